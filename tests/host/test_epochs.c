// SPDX-License-Identifier: BSD-2-Clause
// Rule B1's words: a frame's epoch is that of its last unmap, however it was unmapped and whatever
// it merged with; a CPU's `flushed` follows when it has flushed, and not before.
#include "lib/string.h"
#include "mm/journal.h"
#include "tests/host/support.h"

#define SMALL VADDR(VA_VMAP)
#define LARGE VADDR(VA_VMAP + GIB) // in large pages

/* --- frames ----------------------------------------------------------------------------------- */

static frame_t *block; // what is mapped and unmapped
static space_t *space; // where: NULL is the kernel's

static vaddr_t at_of(const frame_t *f)
{
    return f->order < ORDER_2M ? SMALL : LARGE;
}

static int unmap_put(void)
{
    return vput(space, at_of(block), block);
}

static int unmap_all(void)
{
    return vunmap(space, at_of(block), block);
}

static int unmap_whole_part(void)
{
    return vunmap_part(space, at_of(block), block, 0, block->order);
}

static int unmap_range(void)
{
    return vunmap_range(space, at_of(block), block, 0, frame_pages(block));
}

static int unmap_frames(void)
{
    return vput_frames(space, SMALL, &block, 1);
}

// As each of these, of a block of that order.
static void unmapped_by(int (*unmap)(void), unsigned order)
{
    uint32_t before;

    OK(get_frame(order, &block));
    OK(vmap(space, at_of(block), block, VATTR_W));
    before = mm.epoch;
    block->epoch = 0;
    OK(unmap());
    SAME(block->mapcount, 0);
    CHECK(block->epoch - before - 1 < mm.epoch - before);
    OK(put_frame(block));
}

static void by_every_way(void)
{
    int (*const ways[])(void) = {unmap_put, unmap_all, unmap_whole_part, unmap_range};
    static const unsigned orders[] = {0, 3, 9, 10};

    for (unsigned way = 0; way < ARRAY_SIZE(ways); way++)
        for (unsigned i = 0; i < ARRAY_SIZE(orders); i++)
            unmapped_by(ways[way], orders[i]);
    unmapped_by(unmap_frames, 0);
}

// Something beside it, in a table and in one of large pages, so that these do not go with it.
static void keep_tables(void)
{
    frame_t *small, *large;

    OK(get_frame(0, &small));
    OK(get_frame(9, &large));
    OK(vmap(space, VADDR(SMALL.v + 511 * PAGE_SIZE), small, VATTR_R));
    OK(vmap(space, VADDR(LARGE.v + 1022 * MIB), large, VATTR_R));
}

static void unmapped(void)
{
    machine_boot(64 * MIB);
    space = NULL;
    by_every_way(); // with their tables
    machine_boot(64 * MIB);
    keep_tables();
    by_every_way(); // alone
    machine_boot(64 * MIB);
    machine_start_cpu(1);
    keep_tables();
    by_every_way(); // and with another CPU to be asked
    SAME(mm_check(), 0);
}

static void unmapped_page(void)
{
    uint32_t before;
    frame_t *f;

    for (uint32_t cpus = 1; cpus <= 2; cpus++) {
        machine_boot(64 * MIB);
        space = NULL;
        keep_tables();
        if (cpus == 2)
            machine_start_cpu(1);
        OK(get_frame(3, &f));
        OK(vmap_page(SMALL, f, 2, VATTR_W, CALLER));
        before = mm.epoch;
        f->epoch = 0;
        OK(vput_page(SMALL, f, 2, CALLER));
        CHECK(f->epoch - before - 1 < mm.epoch - before);
        SAME(mm_check(), 0);
    }
}

static void unmapped_with_space(void)
{
    uint32_t before;
    space_t *user;
    frame_t *f;

    machine_boot(64 * MIB);
    OK(space_create("user", &user));
    OK(get_frame(0, &f));
    OK(vmap(user, VADDR(0x400000), f, VATTR_U));
    before = mm.epoch;
    f->epoch = 0;
    OK(space_destroy(user));
    CHECK(f->epoch - before - 1 < mm.epoch - before);
}

/* --- merging ---------------------------------------------------------------------------------- */

// Two blocks of that order that are halves of one.
static void get_buddies(unsigned order, frame_t **lower, frame_t **upper)
{
    frame_t *one, *other;

    OK(get_frame(order, &other));
    do { // what is split for one gives the other half next
        one = other;
        OK(get_frame(order, &other));
    } while ((one->mfn ^ other->mfn) != frame_pages(one));
    *lower = one->mfn < other->mfn ? one : other;
    *upper = one->mfn < other->mfn ? other : one;
}

static void unmap_once(frame_t *f)
{
    OK(vmap(NULL, at_of(f), f, VATTR_W));
    OK(vunmap(NULL, at_of(f), f));
}

// The block knows the later unmap of its halves: of the upper one, or (way & 1) of the lower one;
// which of them comes last to be put (way & 2) is all the same.
static void merge(unsigned order, unsigned way)
{
    frame_t *half[2];
    uint64_t mfn;
    uint32_t epoch;

    get_buddies(order, &half[0], &half[1]);
    mfn = half[0]->mfn;
    unmap_once(half[way & 1]);
    unmap_once(half[!(way & 1)]);
    epoch = half[!(way & 1)]->epoch;
    CHECK((int32_t)(epoch - half[way & 1]->epoch) > 0);
    OK(put_frame(half[way >> 1]));
    OK(put_frame(half[!(way >> 1)]));
    CHECK(find_mfn_frame(MFN(mfn))->order > order);
    SAME(find_mfn_frame(MFN(mfn))->epoch, epoch);
}

static void merged(void)
{
    static const unsigned orders[] = {0, 5, 6, 7, 8, 16, 17}; // each way in which descriptors merge

    for (unsigned i = 0; i < ARRAY_SIZE(orders); i++)
        for (unsigned way = 0; way < 4; way++) {
            machine_reset();
            machine_usual(32 * MIB);
            machine_map(4 * GIB, 4 * GIB, BOOT_MEM_AVAILABLE);
            machine_start();
            keep_tables();
            merge(orders[i], way);
            SAME(mm_check(), 0);
        }
}

// Epochs wrap around: 0 comes after all ones.
static void merged_over_the_wrap(void)
{
    for (unsigned way = 0; way < 4; way++) {
        machine_boot(64 * MIB);
        keep_tables();
        mm.epoch = UINT32_MAX - 1;
        merge(0, way);
        SAME(mm.epoch, 0);
    }
}

/* --- CPUs ------------------------------------------------------------------------------------- */

static unsigned flushes; // of CPU 1

// Until it has flushed, all of it, CPU 1 has flushed what came before this round, and nobody gets
// the frame.
static void look_on(void)
{
    const struct mm_cpu *p = &mm.cpu[1];

    if (cpu_number() != 1)
        return;
    flushes++;
    SAME(p->asked, mm.epoch);
    SAME(p->flushed, mm.epoch - 1);
    CHECK(!frame_is_free(block));
}

// CPU 1 flushes once in each of `count` pages, or everything; the frame is its mapping's alone.
static void round_of(int (*unmap)(void), unsigned order, unsigned count)
{
    const struct mm_cpu *p = &mm.cpu[1];
    uint64_t mfn;

    OK(get_frame(order, &block));
    mfn = block->mfn;
    OK(vmap(NULL, at_of(block), block, VATTR_W));
    OK(put_frame(block));
    flushes = 0;
    machine.flushing = look_on;
    OK(unmap());
    machine.flushing = NULL;
    SAME(flushes, count);
    SAME(p->asked, mm.epoch);
    SAME(p->flushed, mm.epoch);
    CHECK(frame_is_free(find_mfn_frame(MFN(mfn))));
    SAME(mm_check(), 0);
}

static void boot_two(void)
{
    machine_boot(64 * MIB);
    space = NULL;
    keep_tables();
    machine_start_cpu(1);
}

static void flushed(void)
{
    boot_two();
    round_of(unmap_all, 0, 1);
    round_of(unmap_put, 0, 1);
    round_of(unmap_all, 9, 1);
    round_of(unmap_range, 4, 16);
    round_of(unmap_range, 6, 1); // so many pages that all goes
}

// Unmaps that were none of its business lie between two rounds: those it has flushed as well.
static void flushed_after_others(void)
{
    space_t *user;
    frame_t *f;

    boot_two();
    OK(space_create("user", &user));
    OK(get_frame(0, &f));
    OK(vmap(user, VADDR(0x401000), f, VATTR_U));
    for (unsigned i = 0; i < 5; i++) {
        OK(vmap(user, VADDR(0x400000), f, VATTR_U));
        OK(vunmap(user, VADDR(0x400000), f));
    }
    CHECK(mm.epoch - mm.cpu[1].asked >= 5);
    SAME(mm.cpu[1].flushed, mm.cpu[1].asked);
    round_of(unmap_all, 0, 1);
}

// One that rests does it before it goes on.
static void flushed_at_rest(void)
{
    boot_two();
    machine.resting = 2;
    round_of(unmap_all, 0, 0);
    round_of(unmap_range, 6, 0);
    machine.resting = 0;
    round_of(unmap_all, 0, 1);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"epoch_unmapped", unmapped},
        {"epoch_unmapped_page", unmapped_page},
        {"epoch_unmapped_with_space", unmapped_with_space},
        {"epoch_merged", merged},
        {"epoch_merged_over_the_wrap", merged_over_the_wrap},
        {"epoch_flushed", flushed},
        {"epoch_flushed_after_others", flushed_after_others},
        {"epoch_flushed_at_rest", flushed_at_rest},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
