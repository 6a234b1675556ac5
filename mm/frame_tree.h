// SPDX-License-Identifier: BSD-2-Clause
// The tree that leads from an mfn to its frame (mm.h, struct frame_node). frame_lock is held.
#pragma once

#include "mm/frame_word.h"
#include "mm/mm.h"

/* Makes the root. Boot only. -ENOMEM. */
int tree_setup(void) must_check;
/* Makes every node (and page of descriptors) that a block at mfn needs. -ENOMEM: some may have been
 * made. */
int tree_prepare(uint64_t mfn, unsigned order) must_check;
/* Lets the tree lead to block `index` (order >= FRAME_PAGE_ORDER) from all of its pages; 0: to
 * nothing. */
void tree_set(uint64_t mfn, unsigned order, uint32_t index);
/* The same to the page of descriptors that starts with `index`. */
void tree_set_page(uint64_t mfn, uint32_t index);
/* Index of the descriptor of that page, in a page of descriptors; 0 if there is no such page. */
uint32_t tree_page_descriptor(uint64_t mfn);
/* Splits the 2^NODE_ORDER pages at mfn from one block into a node whose entries all lead to it. A
 * node must be in stock. */
void tree_split(uint64_t mfn, uint32_t index);
/* Back to one entry. */
void tree_merge(uint64_t mfn, uint32_t index);
/* Frees page of descriptors and nodes at mfn if nothing is left in them. */
void tree_prune(uint64_t mfn);
/* True if any frame lies in those pages. */
bool tree_occupied(uint64_t mfn, unsigned order);

/* --- look-up inline --------------------------------------------------------------------------- */

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
