// SPDX-License-Identifier: BSD-2-Clause
// A frame's descriptor by words: what it is, and its two counts, which several CPUs change.
#pragma once

#include "mm/frame.h"

/* What a descriptor says of its frame, in one word each: fields, and counts. */
static always_inline uint64_t frame_word(const frame_t *frame)
{
    uint64_t word;

    __builtin_memcpy(&word, frame, sizeof(word));
    return word;
}

enum {
    WORD_ORDER_SHIFT = 4, // of the fields of that word
    WORD_ORDER_MASK = 31,
};

/* Order and first page of the block that such a word describes. */
static always_inline unsigned word_order(uint64_t word)
{
    return (unsigned)(word >> WORD_ORDER_SHIFT & WORD_ORDER_MASK);
}

static always_inline uint64_t word_mfn(uint64_t word)
{
    return word >> PAGE_SHIFT & ((UINT64_C(1) << 40) - 1);
}

/* The same of 2^order pages of it, from page `offset` on. */
static always_inline uint64_t part_word(const frame_t *frame, uint64_t offset, unsigned order)
{
    frame_t part = {.kind = frame->kind, .order = order, .level = frame->level};

    part.mfn = frame->mfn + offset;
    return frame_word(&part);
}

static always_inline uint64_t frame_counts(const frame_t *frame)
{
    uint64_t counts;

    __builtin_memcpy(&counts, &frame->refcount, sizeof(counts));
    return counts;
}

/* --- the counts ------------------------------------------------------------------------------- */

/* refcount in the lower half, mapcount in the upper half: one word, so that exactly one CPU sees
 * both at 0. It becomes 0, and leaves 0, only under frame_lock. */
enum {
    COUNT_MAP_SHIFT = 32,
};
typedef uint64_t __attribute__((may_alias)) frame_counts_t;

static always_inline frame_counts_t *frame_counts_at(frame_t *frame)
{
    return (frame_counts_t *)&frame->refcount;
}

/* A free frame gets its first references. From here on another CPU may pin it, so the rest of the
 * descriptor stands already. */
static always_inline void frame_publish(frame_t *frame, uint32_t refs)
{
    __atomic_store_n(&frame->refcount, refs, __ATOMIC_RELEASE);
}

/* mapcount + more, if the frame is in use; else false. From then on its descriptor stays as it is,
 * even if its owners put the frame. The count has room. map_lock is held. */
static always_inline bool frame_pin(frame_t *frame, uint32_t more)
{
    frame_counts_t *at = frame_counts_at(frame);
    uint64_t old = __atomic_load_n(at, __ATOMIC_RELAXED);

    do {
        if (unlikely(!old))
            return false;
    } while (
        unlikely(!__atomic_compare_exchange_n(at, &old, old + ((uint64_t)more << COUNT_MAP_SHIFT),
                                              false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)));
    return true;
}

/* mapcount - less: both counts then. 0: that would free the frame, and nothing is done. map_lock is
 * held. */
static always_inline uint64_t frame_unpin_shared(frame_t *frame, uint64_t less)
{
    uint64_t old = frame_counts(frame), new;

    do {
        new = old - (less << COUNT_MAP_SHIFT);
        if (unlikely(!new))
            return 0;
    } while (unlikely(!__atomic_compare_exchange_n(frame_counts_at(frame), &old, new, false,
                                                   __ATOMIC_RELEASE, __ATOMIC_RELAXED)));
    return new;
}

/* The same; a frame with both counts 0 is free then. */
void frame_unpin(frame_t *frame, uint32_t less);
