// SPDX-License-Identifier: BSD-2-Clause
// The look-up by mfn (mm.h, struct frame_node), for those who look up inline.
#pragma once

#include "mm/internal.h"
#include "mm/journal.h"

static always_inline uint64_t *tree_root(void)
{
    return node_at(0)->entry;
}

/* Entry number `number`, counted from mfn 0, of the node that a node's entry leads to. */
static always_inline uint64_t *tree_below(uint64_t entry, uint64_t number)
{
    // 0 in the kernel.
    uint64_t lift = ~(uint64_t)LAYOUT_BASE & NODE_BELOW;

    return (uint64_t *)(uintptr_t)(entry - lift + number * sizeof(uint64_t));
}

/* Page mfn's descriptor, a tail or no frame's maybe, where a lowest node's entry leads to. */
static always_inline frame_t *tree_descriptor(uint64_t entry, uint64_t mfn)
{
    uint64_t lift = ~(uint64_t)LAYOUT_BASE & NODE_BELOW;

    return (frame_t *)(uintptr_t)(entry - lift + mfn * sizeof(frame_t));
}

/* What remains of a tail's first word is how many bytes before it the head stands. */
enum {
    WORD_TAIL_SHIFT = 52,
};

static always_inline frame_t *tree_block(uint64_t entry)
{
    return entry ? frame_at((uint32_t)entry) : NULL;
}

/* From the entry for mfn's 512 MiB on. */
static always_inline frame_t *tree_find_from(uint64_t entry, uint64_t mfn)
{
    frame_t *frame;
    uint64_t tail;

    if (unlikely(!(entry & NODE_BELOW)))
        return tree_block(entry);
    entry = *tree_below(entry, mfn >> FRAME_PAGE_ORDER);
    if (unlikely(!(entry & NODE_BELOW)))
        return tree_block(entry);
    frame = tree_descriptor(entry, mfn);
    if (likely(frame->kind))
        return frame;
    tail = frame_word(frame) >> WORD_TAIL_SHIFT;
    return tail ? (frame_t *)((uintptr_t)frame - tail) : NULL;
}

/* NULL beyond the root. */
static always_inline frame_t *tree_find_low(uint64_t mfn)
{
    if (unlikely(mfn >> NODE_ORDER >= NODE_ROOTS * NODE_ENTRIES))
        return NULL;
    return tree_find_from(tree_root()[mfn >> NODE_ORDER], mfn);
}

/* From above the root on. */
frame_t *tree_find_high(uint64_t mfn);

/* find_mfn_frame(). */
static always_inline frame_t *tree_find(uint64_t mfn)
{
    if (unlikely(mfn >> NODE_ORDER >= NODE_ROOTS * NODE_ENTRIES))
        return tree_find_high(mfn);
    return tree_find_low(mfn);
}
