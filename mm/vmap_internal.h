// SPDX-License-Identifier: BSD-2-Clause
// The general code of the vmap family (vmap.c): one block, or a part of it, at one place. map_lock
// is held.
#pragma once

#include "mm/frame_word.h"
#include "mm/mapping_internal.h"
#include "mm/vmap.h"

/* What the descriptor says before anything is checked; 0 if there is none at that address. */
static inline uint64_t first_word(const frame_t *frame)
{
    return frame_number(frame) < mm.frame_limit ? frame_word(frame) : 0;
}

/* A part of a block. */
static inline struct part part_of(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                                  unsigned order)
{
    return (struct part){.space = space,
                         .va = va,
                         .frame = frame,
                         .offset = offset,
                         .order = order,
                         .word = first_word(frame)};
}

/* All of a block. */
static inline struct part whole_block(space_t *space, vaddr_t va, frame_t *frame)
{
    return part_of(space, va, frame, 0, word_order(first_word(frame)));
}

/* vmap_part(), vput_part(), vunmap_part() and vprotect_part(): their errors. */
int part_map(struct part *p) must_check;
int part_put(struct part *p) must_check;
int part_unmap(struct part *p) must_check;
int part_protect(struct part *p) must_check;
/* 0 if all of the part is mapped where it belongs: the errors of vput(). */
int part_check(struct part *p) must_check;
/* Gives the part, which is mapped, records of its own. -ENOMEM, -EOVERFLOW: nothing changed. */
int part_split(struct part *p) must_check;
/* Merges the records over the part as far as they are alike; holes are skipped. */
void part_merge(const struct part *p);
/* vmap_lookup(). */
int vmap_lookup_locked(space_t *space, vaddr_t va, struct vlookup *out) must_check;
