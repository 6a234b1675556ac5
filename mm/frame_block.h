// SPDX-License-Identifier: BSD-2-Clause
// Blocks: made, split, merged, taken from the orders and given back. Callers of these hold
// frame_lock.
#pragma once

#include "mm/mm.h"

/* The smallest order from `order` on with a free block; above ORDER_MAX if there is none. */
unsigned block_free_order(unsigned order) must_check;
/* A block of that order and kind with refcount 1; NULL if there is none, or if splitting a larger
 * one would leave fewer than `kept` pages of descriptors. */
frame_t *block_take(unsigned order, enum frame_kind kind, unsigned kept);
/* The block, just taken and smaller than FRAME_PAGE_ORDER, becomes blocks of order 0 like it. */
void block_shatter(frame_t *frame);
/* Gives back a block whose counts are both 0 now. */
void block_release(frame_t *frame);
/* Registers a new block. refcount 0: it is free. -ENOMEM. */
int frame_create(uint64_t mfn, unsigned order, enum frame_kind kind, uint32_t refcount) must_check;
/* Gives the free block (order >= FRAME_PAGE_ORDER) described at `from` the descriptor `to`, which
 * is zero. */
void frame_move(uint32_t from, uint32_t to);

/* --- without frame_lock (frame.c) ------------------------------------------------------------- */

/* A free block of that order with refcount 1 and that kind, for the manager itself; NULL if there
 * is none. No upkeep. */
frame_t *frame_take(unsigned order, enum frame_kind kind);
/* Drops a reference without questions or upkeep. */
void frame_drop(frame_t *frame);
