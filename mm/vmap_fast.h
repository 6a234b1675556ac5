// SPDX-License-Identifier: BSD-2-Clause
// What mapping and unmapping share in the common case: a block that is one entry of a page table.
#pragma once

#include "arch/x86/tlb.h"
#include "mm/internal.h"
#include "mm/journal.h"
#include "mm/vmap.h"

// What is not as simple as that is for functions that the fast ones end in, so that these save no
// registers. Descriptors and records are looked at by whole words here: a compiler handles
// bit-fields one by one.
#define slow __attribute__((noinline, cold))

// A function that the public ones end in, so that it has their return address.
#ifdef KTF_HOST
#define ending always_inline
#else
#define ending __attribute__((noinline))
#endif

enum {
    // A descriptor's first word, in whose place the address of the block's first page remains when
    // these are taken off: available memory of that order, no table, no tail.
    WORD_AVAILABLE = FRAME_AVAILABLE,
    WORD_BITS = PAGE_SIZE - 1,

    TAG_REFS_SHIFT = 8, // of a record's fourth
    TAG_REF = 1 << TAG_REFS_SHIFT,
    WORD_TAG = 3,    // attr, level, refs
    WORD_EXTENT = 4, // offset, order, home, home_level
};
#define TAG_FULL ((uint32_t)-2 * TAG_REF) // from here on there may be no room for one more

typedef uint32_t __attribute__((may_alias)) word_t;
typedef uint64_t __attribute__((may_alias, aligned(4))) words_t;

static always_inline uint32_t *record_tag(mapping_t *m)
{
    return (uint32_t *)m + WORD_TAG;
}

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

static always_inline uint32_t *shadow_of(uint64_t at)
{
    return (uint32_t *)(uintptr_t)VA_SHADOWS + at;
}

static always_inline pgentry_t *entry_of(uint64_t at)
{
    return (pgentry_t *)(uintptr_t)VA_WINDOW + at;
}

static always_inline bool known_frame(const frame_t *frame)
{
    return frame_number(frame) < mm.frame_limit;
}

/* --- what is allowed, and lists --------------------------------------------------------------- */

enum {
    ATTRS_KERNEL = VATTR_ALL & ~VATTR_U, // in the kernel's space
};

// Takes the record that stood between these two off the frame's list.
static always_inline void list_remove(frame_t *frame, uint32_t next, uint32_t prev)
{
    if (likely(!prev))
        frame->maps = next;
    else
        mapping_at(prev)->next = next;
    if (next)
        mapping_at(next)->prev = prev;
}
