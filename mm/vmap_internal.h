// SPDX-License-Identifier: BSD-2-Clause
// The general code of the vmap family (vmap.c). map_lock is held.
#pragma once

#include "mm/vmap.h"

/* Those of vmap.h without _locked, for callers that hold map_lock. */
int vmap_lookup_locked(space_t *space, vaddr_t va, struct vlookup *out) must_check;
int vmap_part_locked(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
                     unsigned attr) must_check;
int vput_part_locked(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                     unsigned order) must_check;
int vunmap_part_locked(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                       unsigned order) must_check;
int vprotect_whole(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vprotect_part_locked(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                         unsigned order, unsigned attr) must_check;

/* vmap of a whole block by entries of that level (0: the largest that fit), vput and vunmap of it:
 * the general code. */
int vmap_pages(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
               unsigned attr) must_check;
int vput_whole(space_t *space, vaddr_t va, frame_t *frame, bool all) must_check;
/* 0 if all of the part is mapped at va: the errors of vput(). */
int vmap_check_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                    unsigned order) must_check;
/* Gives the part, which is mapped at va, records of its own; or merges them again. */
int vmap_split_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                    unsigned order) must_check;
void vmap_merge_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order);
/* vmap_part(), vput_part() and (all) vunmap_part() for a piece of a range. Its records merge with
 * no others yet, so that what follows, or takes it back, needs no memory for splitting them again.
 * Sets *apart if there is something left that might merge. word: the descriptor's when the piece
 * was chosen. */
int vmap_apart(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
               unsigned attr, bool *apart, uint64_t word) must_check;
int vput_apart(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
               bool all, bool *apart) must_check;
