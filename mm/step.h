// SPDX-License-Identifier: BSD-2-Clause
// The steps that map one entry, and those that unmap it: each written once, for the general code
// (mapping.c), the fast paths (vmap_fast*.c, vmap_page.c), runs (vmap_run.c) and the manager's own
// pages (arena_pages.c).
//
// Mapping, in this order:
//   1. pin        frame_pin() or frame_pin_once() counts the frame up, by acquire
//   2. look       only now the descriptor stays as it is: look at it (again), at the type of the
//                 frame's other mappings too (list_front()); if it is not as wanted, frame_unpin()
//   3. record     record_new() takes a record and puts it on the frame's list
//   4. entry      entry_write()
// Unmapping:
//   1. entry      entry_clear(), then the flush, then shadow_clear()
//   2. list       record_unlist()
//   3. record     record_put() gives it back
//   4. unpin      frame_unpin(), by release: others may have the frame now
// A mapping that is mapped again keeps the frame pinned: refs_up() and refs_down() count both.
//
// map_lock is held in all of them.
#pragma once

#include "mm/arena_internal.h"
#include "mm/frame_word.h"
#include "mm/mm.h"
#include "mm/table.h"

// Descriptors and records are read and written by whole words here: a compiler handles bit-fields
// one by one.
typedef uint32_t __attribute__((may_alias)) word_t;
typedef uint64_t __attribute__((may_alias, aligned(4))) words_t;

enum {
    WORD_TAG = 3,    // of a record: attr, level, refs
    WORD_EXTENT = 4, // offset, order, and what it was made as
    TAG_REFS_SHIFT = 8,
    TAG_REF = 1 << TAG_REFS_SHIFT,
};
#define TAG_FULL ((uint32_t)MAPPING_REFS_MAX << TAG_REFS_SHIFT) // from here on no room for one more

static always_inline uint32_t *record_tag(mapping_t *m)
{
    return (uint32_t *)m + WORD_TAG;
}

static always_inline uint32_t record_extent(const mapping_t *m)
{
    return ((const word_t *)m)[WORD_EXTENT];
}

/* Those words of a new record with refs 1. */
static always_inline uint32_t tag_of(unsigned level, unsigned attr)
{
    const mapping_t m = {.refs = 1, .level = level};

    return ((const word_t *)&m)[WORD_TAG] + attr;
}

static always_inline uint32_t extent_of(unsigned level, unsigned order, uint64_t offset)
{
    const mapping_t m = {.order = order,
                         .home = order,
                         .home_level = level,
                         .home_odd = (unsigned)__builtin_parity(order),
                         .home_1g = level == 3};

    return record_extent(&m) + (uint32_t)offset;
}

/* --- places ----------------------------------------------------------------------------------- */

/* Entry number `at` of those of all slots: slot * 512 + entry. */
static always_inline uint32_t *shadow_of(uint64_t at)
{
    return (uint32_t *)(uintptr_t)VA_SHADOWS + at;
}

static always_inline pgentry_t *entry_of(uint64_t at)
{
    return (pgentry_t *)(uintptr_t)VA_WINDOW + at;
}

/* --- mapping ---------------------------------------------------------------------------------- */

/* One try to count the frame up: false if it is free, its count is full, or another CPU changed its
 * counts meanwhile. */
static always_inline bool frame_pin_once(frame_t *frame)
{
    uint64_t counts = frame_counts(frame), more;

    return likely(counts) &&
           likely(!__builtin_add_overflow(counts, UINT64_C(1) << COUNT_MAP_SHIFT, &more)) &&
           likely(__atomic_compare_exchange_n(frame_counts_at(frame), &counts, more, false,
                                              __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
}

/* The record `index`, still to be made, goes before the first of the frame's list: that one is
 * *next. False, and nothing is done, if it has another memory type. */
static always_inline bool list_front(const frame_t *frame, uint32_t index, uint64_t attr,
                                     uint32_t *next)
{
    mapping_t *first = mapping_at(*next = frame->maps);

    if (*next) {
        if (unlikely((*record_tag(first) ^ attr) & VATTR_TYPE))
            return false;
        first->prev = index;
    }
    return true;
}

/* Makes a record of the first free one, *head, at the front of the frame's list; its number. The
 * caller counts the records. */
static always_inline uint32_t record_new(uint32_t *head, frame_t *frame, uint32_t next, uint64_t at,
                                         uint32_t tag, uint32_t extent)
{
    uint32_t index = *head;
    mapping_t *m = mapping_at(index);

    __asm__("" : "+r"(m));       // one register: else it may be worked out anew for each field
    *(words_t *)&m->next = next; // and prev
    *head = m->at;
    m->at = (uint32_t)at;
    *(word_t *)record_tag(m) = tag;
    ((word_t *)m)[WORD_EXTENT] = extent;
    frame->maps = index;
    return index;
}

static always_inline void entry_write(uint64_t at, uint32_t index, pgentry_t entry)
{
    *shadow_of(at) = index;
    *entry_of(at) = entry;
}

/* One reference more of a mapping that stands; false if a count is full. */
static always_inline bool refs_up(frame_t *frame, uint32_t *tag, uint32_t old)
{
    if (unlikely(old >= TAG_FULL || frame->mapcount == UINT32_MAX))
        return false;
    *tag = old + TAG_REF;
    __atomic_fetch_add(&frame->mapcount, 1, __ATOMIC_RELAXED);
    return true;
}

/* --- unmapping -------------------------------------------------------------------------------- */

/* One reference less of a mapping that keeps others; what its word then is. */
static always_inline uint32_t refs_down(frame_t *frame, uint32_t *tag)
{
    uint32_t left = *tag - TAG_REF;

    *tag = left;
    __atomic_fetch_sub(&frame->mapcount, 1, __ATOMIC_RELAXED);
    return left;
}

static always_inline void entry_clear(uint64_t at)
{
    *entry_of(at) = 0;
}

/* After the flush. */
static always_inline void shadow_clear(uint64_t at)
{
    *shadow_of(at) = 0;
}

/* Takes the record that stands between these two off the frame's list. */
static always_inline void record_unlist(frame_t *frame, uint32_t next, uint32_t prev)
{
    if (likely(!prev))
        frame->maps = next;
    else
        mapping_at(prev)->next = next;
    if (next)
        mapping_at(next)->prev = prev;
}
