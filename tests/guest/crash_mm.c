// SPDX-License-Identifier: BSD-2-Clause
// crash=KIND: memory that is used after it was given back, or by code that does not own it.
#include "arch/x86/cpu.h"
#include "mm/table.h"
#include "kernel/smp.h"
#include "lib/panic.h"
#include "mm/frame_word.h"
#include "mm/mm.h"
#include "mm/space.h"
#include "mm/table.h"
#include "mm/vmap.h"
#include "tests/guest/crash.h"
#include "tests/guest/test.h"

enum {
    WORDS = PAGE_SIZE / sizeof(uint64_t),
    TABLES_MAX = 256,  // a frame that was just put is a page table before so many more are made
    BUFFER_ORDER = 6,  // page tables are made eight at once, and others take memory, too
    QUIET = 100000,    // instructions between a wild store and its consequence
    WILD = 0x6b6b6b6a, // what it stores: no present entry
    FRAMES_MAX = 64,   // a frame that was just put is handed out among so many
    FILL = 0x5a,
    BUSY = 1200, // times that others map a page and unmap it meanwhile
};

frame_t *crash_page(space_t *space, vaddr_t va, unsigned attr)
{
    frame_t *frame;
    int err = get_frame(ORDER_4K, &frame);

    if (!err)
        err = vmap(space, va, frame, attr);
    if (err)
        panic("crash: no page at 0x%lx: %s", va.v, error_name(err));
    return frame;
}

void crash_unmap(vaddr_t va)
{
    vaddr_t page = VADDR(ROUND_DOWN(va.v, PAGE_SIZE));
    struct vlookup at;
    int err = vmap_lookup(NULL, page, &at);

    if (!err)
        err = vunmap_part(NULL, page, at.frame, at.offset, ORDER_4K);
    if (err)
        panic("crash: 0x%lx can't be unmapped: %s", va.v, error_name(err));
}

/* --- a page that is read after its owner gave it back ----------------------------------------- */

static __attribute__((noinline)) void give_buffer_back(vaddr_t va, frame_t *frame)
{
    if (vunmap(NULL, va, frame) || put_frame(frame))
        panic("crash: the buffer can't be given back");
}

// Others go on working with memory.
static void pass_time(void)
{
    frame_t *frame = NULL;
    vaddr_t va;

    for (unsigned i = 0; i < 10; i++) {
        va = VADDR(CRASH_VA.v + (i + 2) * PAGE_SIZE);
        frame = crash_page(NULL, va, VATTR_W);
    }
    for (unsigned i = 0; i < BUSY; i++)
        if (vunmap(NULL, va, frame) || vmap(NULL, va, frame, VATTR_W))
            panic("crash: 0x%lx can't be mapped again", va.v);
}

static __attribute__((noinline)) uint64_t read_buffer(const volatile uint64_t *buffer)
{
    return *buffer;
}

void crash_use_after_unmap(void)
{
    frame_t *frame = crash_page(NULL, CRASH_VA, VATTR_W);

    give_buffer_back(CRASH_VA, frame);
    pass_time();
    read_buffer(vaddr_ptr(CRASH_VA));
}

static void on_cpu2(void *arg)
{
    (void)arg;
    crash_use_after_unmap();
}

void crash_cpu2(void)
{
    if (smp_count() < 3)
        panic("crash=cpu2 needs three CPUs or more, here are %u: use SMP=4", smp_count());
    smp_run(2, on_cpu2, NULL);
    smp_wait(2);
}

/* --- a page that is put while an entry for it lives on, and then becomes a page table --------- */

// The bug: a second entry is written by hand, and forgotten when the page goes back.
static __attribute__((noinline)) void map_by_hand(vaddr_t va, const frame_t *frame, unsigned page)
{
    struct pt_walk w;

    pt_walk(kernel_space(), va, 1, &w);
    assert(w.level == 1);
    table_entries(w.slot)[w.index] = pgentry_leaf(MFN(frame->mfn + page), 1, VATTR_W);
}

// Maps these pages two MiB apart, so that each needs a table of its own, until that is a page of
// the block: which one.
static unsigned map_until_table(frame_t *const *page, const frame_t *block, vaddr_t *victim)
{
    for (unsigned i = 0; i < TABLES_MAX; i++) {
        struct pt_walk w;

        *victim = VADDR(CRASH_VA.v + ((uint64_t)(i + 1) << level_shift(2)));
        if (vmap_kern_4k(*victim, page[i], VATTR_W))
            panic("crash: 0x%lx can't be mapped", victim->v);
        pt_walk(kernel_space(), *victim, 1, &w);
        if (frame_at(table_at(w.slot)->frame)->mfn - block->mfn < 1u << BUFFER_ORDER)
            return (unsigned)(frame_at(table_at(w.slot)->frame)->mfn - block->mfn);
    }
    panic("crash: the block became no page tables");
}

// Who still believes that the buffer is theirs.
static __attribute__((noinline)) void fill_buffer(vaddr_t va)
{
    volatile uint64_t *word = vaddr_ptr(va);

    for (unsigned i = 0; i < WORDS; i++)
        word[i] = UINT64_C(0x0101010101010101) * FILL;
}

static vaddr_t alias_of(unsigned page)
{
    return VADDR(CRASH_VA.v + (page + 1) * (uint64_t)PAGE_SIZE);
}

// Of the entries by hand only one stays.
static void forget_others(unsigned page)
{
    struct pt_walk w;

    for (unsigned i = 0; i < 1u << BUFFER_ORDER; i++) {
        pt_walk(kernel_space(), alias_of(i), 1, &w);
        if (i != page)
            table_entries(w.slot)[w.index] = 0;
    }
}

void crash_table_reuse(void)
{
    vaddr_t buffer = VADDR(CRASH_VA.v + 128 * PAGE_SIZE), victim;
    static frame_t *page[TABLES_MAX];
    frame_t *frame;
    unsigned hit;

    for (unsigned i = 0; i < TABLES_MAX; i++)
        if (get_frame(ORDER_4K, &page[i]))
            panic("crash: no memory");
    if (get_frame(BUFFER_ORDER, &frame) || vmap(NULL, buffer, frame, VATTR_W))
        panic("crash: no buffer");
    for (unsigned i = 0; i < 1u << BUFFER_ORDER; i++)
        map_by_hand(alias_of(i), frame, i);
    crash_page(NULL, VADDR(buffer.v - PAGE_SIZE), VATTR_W); // keeps the table
    give_buffer_back(buffer, frame);
    hit = map_until_table(page, frame, &victim);
    forget_others(hit);
    fill_buffer(alias_of(hit));
    read_buffer(vaddr_ptr(victim));
}

/* --- an address space that is loaded after it was destroyed ----------------------------------- */

static __attribute__((noinline)) void load_cr3(uint64_t cr3)
{
    write_cr3(cr3);
}

// Somebody gets the frame of that number and fills it.
static void reuse(uint64_t mfn)
{
    for (unsigned i = 0; i < FRAMES_MAX; i++) {
        vaddr_t va = VADDR(CRASH_VA.v + (uint64_t)i * PAGE_SIZE);

        if (crash_page(NULL, va, VATTR_W)->mfn != mfn)
            continue;
        fill_buffer(va);
        return;
    }
    panic("crash: nobody got the frame 0x%lx again", mfn);
}

void crash_dead_cr3(void)
{
    space_t *space;
    uint64_t cr3;

    if (space_create("doomed", &space))
        panic("crash: no address space");
    cr3 = space->cr3;
    if (space_destroy(space))
        panic("crash: the space can't be destroyed");
    reuse(cr3 >> PAGE_SHIFT);
    load_cr3(cr3);
}

/* --- a store through a pointer that is off, into a page table --------------------------------- */

// It was meant for the buffer; it hits the entry that maps it, and nobody notices yet.
static __attribute__((noinline)) void wild_store(uint64_t *p)
{
    *(volatile uint64_t *)p = WILD;
}

static __attribute__((noinline)) void work_quietly(uint64_t count)
{
    __asm__ volatile("1:\tdecq %0\n\t"
                     "jnz 1b"
                     : "+r"(count)
                     :
                     : "cc");
}

void crash_wild_store(void)
{
    struct pt_walk w;

    crash_page(NULL, CRASH_VA, VATTR_W);
    pt_walk(kernel_space(), CRASH_VA, 1, &w);
    wild_store(&table_entries(w.slot)[w.index]);
    work_quietly(QUIET / 2);
    read_buffer(vaddr_ptr(CRASH_VA));
}
