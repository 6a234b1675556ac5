// SPDX-License-Identifier: BSD-2-Clause
// The fast paths: what they share. A page that is one entry of a page table that stands.
#pragma once

#include "arch/x86/tlb.h"
#include "mm/frame_word.h"
#include "mm/lock.h"
#include "mm/step.h"
#include "mm/table.h"
#include "mm/vmap.h"

// Rare cases are functions of their own that the fast ones end in, so that these save no registers.
#define cold_path __attribute__((noinline, cold))

// A function that a public one ends in by a jump, so that it has its return address.
#ifdef KTF_HOST
#define tail_path always_inline
#else
#define tail_path __attribute__((noinline))
#endif

enum {
    // A descriptor's first word, in whose place the address of the block's first page remains when
    // these are taken off: available memory of that order, no table, no tail.
    WORD_AVAILABLE = FRAME_AVAILABLE,
    WORD_BITS = PAGE_SIZE - 1,

    ATTRS_KERNEL = VATTR_ALL & ~VATTR_U, // what the kernel's space allows
};

// Takes the lock, unless there is work to do or another CPU has it.
static always_inline bool enter(void)
{
    return !(mm.work & MM_WORK) && spin_trylock(&mm.map_lock);
}

// After an operation that was not entered so: the lock is given back.
static always_inline void do_work(void)
{
    if (mm.work) {
        map_lock();
        map_unlock();
    }
}

/* --- where it is ------------------------------------------------------------------------------ */

// The physical address of the block's first page; with any of WORD_BITS set it is no available
// block of one page of that level.
static always_inline uint64_t block_address(const frame_t *frame, unsigned level)
{
    return frame_word(frame) - (WORD_AVAILABLE + (level_order(level) << WORD_ORDER_SHIFT));
}

// The number of va's entry among those of all slots; false if its table is not the recent one, or
// va not aligned.
static always_inline bool find_entry(const space_t *space, vaddr_t va, unsigned level, uint64_t *at)
{
    const struct recent_table *recent = &space->recent[level - 1];
    uint64_t index = va.v - recent->va;

    index = index >> level_shift(level) | index << (64 - level_shift(level)); // odd bytes: huge
    *at = recent->at + index;
    return index < recent->count;
}

// The same, where it is another table, which may have to be made; 0 if there is none.
static always_inline uint64_t find_elsewhere(space_t *space, vaddr_t va, unsigned level, bool make)
{
    return likely(IS_ALIGNED(va.v, UINT64_C(1) << level_shift(level)))
               ? recent_at(space, va, level, make)
               : 0;
}

static always_inline struct table *recent_table(const space_t *space, unsigned level)
{
    return (struct table *)(uintptr_t)space->recent[level - 1].table;
}

static always_inline bool known_frame(const frame_t *frame)
{
    return frame_number(frame) < mm.frame_limit;
}
