// SPDX-License-Identifier: BSD-2-Clause
// A frame that the caller of vmap() does not hold is put and taken as another block, before each
// instruction of vmap() in turn: another CPU at its worst, by single steps.
#define _GNU_SOURCE // REG_EFL
#include "tests/host/support.h"

#include <signal.h>
#include <ucontext.h>

#define LARGE     VADDR(VA_VMAP)                  // where blocks of 2 MiB are mapped
#define KEEPER    VADDR(VA_VMAP + 2 * MIB)        // what keeps the tables
#define SMALL     VADDR(KEEPER.v + 8 * PAGE_SIZE) // where pages are mapped
#define TRAP_FLAG 0x100                           // of RFLAGS: a trap after each instruction

static uint64_t steps, wanted; // instructions done, and before which one the others come
static bool acted;

static frame_t *victim;  // what is mapped
static frame_t *held[8]; // what the others have in the end
static unsigned held_count;
static unsigned retaken; // how often the victim was among it

// Whether the others took a block that is not the victim: there may be none.
static bool take_another(unsigned order)
{
    if (held_count == ARRAY_SIZE(held) || get_frame(order, &held[held_count]))
        return false;
    if (held[held_count++] != victim)
        return true;
    retaken++;
    return false;
}

// The descriptor becomes that of another block: order 9 and above have them where there is room.
static void retake_large(void)
{
    put_frame(victim);
    take_another(10); // of which the block is part now: it would be had again
    while (take_another(9))
        ;
}

// The page with the highest number is of another block then: those below order 7 have their
// descriptors by their pages.
static void retake_smaller(void)
{
    put_frame(victim);
    while (take_another(5))
        ;
}

// Where its descriptor was, there is the head of a page of descriptors that holds none.
static void retake_nothing(void)
{
    put_frame(victim);
    if (((struct arena_page *)victim)->magic == ARENA_PAGE_EMPTY)
        retaken++;
}

static void (*retake)(void);

// The others come when they are due and can: not while this CPU has the lock that they need.
static void on_step(int number, siginfo_t *info, void *context)
{
    ucontext_t *at = context;

    (void)number, (void)info;
    if (++steps < wanted || !spin_trylock(&mm.frame_lock))
        return;
    spin_unlock(&mm.frame_lock);
    at->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    acted = true;
    retake();
}

static always_inline void set_steps(bool on)
{
    // Past the red zone, which a compiler may use here.
    if (on)
        __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orq %0, (%%rsp); popfq; "
                         "lea 128(%%rsp), %%rsp" ::"i"(TRAP_FLAG)
                         : "memory", "cc");
    else
        __asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; andq %0, (%%rsp); popfq; "
                         "lea 128(%%rsp), %%rsp" ::"i"(~TRAP_FLAG)
                         : "memory", "cc");
}

struct way {
    unsigned order; // of the victim
    void (*retake)(void);
    int (*map)(void);
    int (*unmap)(void);
    uint64_t stride; // between the instructions that are tried
};

// One try, all put back after it; false if the function had returned before.
static bool try_at(uint64_t step, const struct way *way)
{
    frame_t *low;
    int err;

    steps = held_count = 0;
    wanted = step;
    acted = false;
    retake = way->retake;
    OK(get_frame(way->order, &low));
    OK(get_frame(way->order, &victim));
    if (way->retake == retake_nothing && low->mfn < victim->mfn) { // the first of its page
        frame_t *upper = victim;

        victim = low;
        low = upper;
    }
    OK(put_frame(low)); // the victim merges with it
    set_steps(true);
    err = way->map();
    set_steps(false);
    SAME(mm_check(), 0);
    if (!err)
        OK(way->unmap());
    if (!acted)
        OK(put_frame(victim));
    while (held_count)
        OK(put_frame(held[--held_count]));
    SAME(mm_check(), 0);
    return acted;
}

static void try_each(const struct way *way)
{
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO}, before;
    uint64_t free_pages, tried = 0;
    frame_t *keeper;

    machine_boot(64 * MIB);
    retaken = 0;
    OK(get_frame(0, &keeper));
    OK(vmap_4k(NULL, KEEPER, keeper, VATTR_W));
    while (mm_free_blocks(way->order)) // the next ones are halves of the same block
        OK(get_frame(way->order, &keeper));
    sigaction(SIGTRAP, &action, &before);
    try_at(UINT64_MAX, way);
    CHECK(try_at(1, way));
    mm_trim();
    free_pages = mm_free_pages();
    try_at(UINT64_MAX, way); // descriptors and records are in stock again: the usual way
    while (try_at(1 + tried * way->stride, way))
        tried++;
    sigaction(SIGTRAP, &before, NULL);
    mm_trim();
    SAME(mm_free_pages(), free_pages);
    CHECK(tried > 20 && retaken > 2);
}

static int map_2m(void)
{
    return vmap_2m(NULL, LARGE, victim, VATTR_W);
}

static int map_block(void)
{
    return vmap(NULL, LARGE, victim, VATTR_W);
}

static int unmap_block(void)
{
    return vunmap(NULL, LARGE, victim);
}

static int map_page(void)
{
    return vmap_page(SMALL, victim, 63, VATTR_W, NULL);
}

static int unmap_page(void)
{
    return vput_page(SMALL, victim, 63, NULL);
}

static int map_small(void)
{
    return vmap(NULL, SMALL, victim, VATTR_W);
}

static int unmap_small(void)
{
    return vunmap(NULL, SMALL, victim);
}

static void large(void)
{
    try_each(&(struct way){9, retake_large, map_2m, unmap_block, 7});
}

static void gone(void)
{
    try_each(&(struct way){6, retake_nothing, map_page, unmap_page, 17});
    try_each(&(struct way){6, retake_nothing, map_small, unmap_small, 151});
}

static void general(void)
{
    try_each(&(struct way){9, retake_large, map_block, unmap_block, 61});
}

static void page(void)
{
    try_each(&(struct way){6, retake_smaller, map_page, unmap_page, 5});
}

static int map_range(void)
{
    return vmap_range(NULL, SMALL, victim, 1, 2, VATTR_W);
}

static int unmap_range(void)
{
    return vunmap_range(NULL, SMALL, victim, 1, 2);
}

static void range(void)
{
    try_each(&(struct way){6, retake_smaller, map_range, unmap_range, 307});
}

static int map_frames(void)
{
    return vmap_frames(NULL, SMALL, &victim, 1, VATTR_W);
}

static int unmap_frames(void)
{
    return vput_frames(NULL, SMALL, &victim, 1);
}

static void frames(void)
{
    try_each(&(struct way){6, retake_smaller, map_frames, unmap_frames, 211});
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"race_vmap_2m", large},    {"race_vmap", general},       {"race_vmap_page", page},
        {"race_vmap_range", range}, {"race_vmap_frames", frames}, {"race_vmap_gone", gone},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
