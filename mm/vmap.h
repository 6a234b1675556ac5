// SPDX-License-Identifier: BSD-2-Clause
// The vmap family: the one door through which memory gets mapped. Frames go in, never numbers.
#pragma once

#include "mm/frame.h"
#include "mm/mapping.h"
#include "mm/space.h"

/* What all of the family share. space NULL: the kernel's.
 *
 * A frame that is mapped again at the same address with the same attributes counts that mapping up
 * (refs + 1). Whatever the error, nothing has changed:
 *
 *   -EINVAL     a NULL; a space that is not live; unknown attribute bits; writable and executable;
 *               user access in the kernel's half
 *   -EUNKNOWN   not the descriptor of a frame
 *   -EFREE      the frame is free
 *   -EALIGN     va is not aligned to the page size
 *   -ECANON     va or its end is not canonical, or not in the space's half
 *   -EORDER     the block is smaller than the page size, or this CPU has no such page size
 *   -EEXIST     another frame is mapped there
 *   -EATTR      the frame is mapped there with other attributes
 *   -ELARGE     a large page is in the way
 *   -ETABLE     a page table is in the way of a large page
 *   -ETYPE      the memory type differs from the frame's other mappings; or device memory is to be
 *               write-back; or the MTRRs give it another type, or several
 *   -EBUSY      a page table or the manager's own memory, writable or for ring 3; the kernel's
 *               image, writable by ring 3; an address in the manager's own windows
 *   -EOVERFLOW  the count is full
 *   -ENOMEM     no frame for a table or a record
 */

/* Maps the whole block at va, by the largest pages that block and va allow. */
int vmap(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_kern(vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_user(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check; // adds VATTR_U
/* The same with pages of one size only. */
int vmap_4k(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_2m(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_1g(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_kern_4k(vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_kern_2m(vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_kern_1g(vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_user_4k(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_user_2m(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vmap_user_1g(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;

/* Maps pages [offset, offset + 2^order) of the block, offset a multiple of 2^order.
 *   -EBEYOND    the part ends behind the block */
int vmap_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
              unsigned attr) must_check;

/* One reference less on the mapping of the whole block `frame` at va. At 0 it is unmapped; a frame
 * that has no owner and no other mapping is free from then on.
 *   -EINVAL, -EUNKNOWN, -ECANON, -EALIGN  as above
 *   -ENOENT     nothing is mapped there
 *   -EOTHER     something else is mapped there
 *   -EBUSY      it is one of the manager's own mappings */
int vput(space_t *space, vaddr_t va, frame_t *frame) must_check;
/* Drops all references of that mapping at once. The same errors. */
int vunmap(space_t *space, vaddr_t va, frame_t *frame) must_check;
/* The same for a part of a mapping, pages [offset, offset + 2^order) of the block, mapped at va:
 * the mapping is split around it; each piece keeps the refs of the whole. */
int vput_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
              unsigned order) must_check;
int vunmap_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                unsigned order) must_check;

/* vmap_part() and vput_part() of one page in the kernel's space, on behalf of another function.
 * caller: an address in that function, for the journal. */
int vmap_page(vaddr_t va, frame_t *frame, uint64_t offset, unsigned attr,
              const void *caller) must_check;
int vput_page(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller) must_check;

/* Gives the mapping at va other permissions, and another type if the frame has no other mapping. */
int vprotect(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;
/* The same for a part; pieces that are alike again merge again. */
int vprotect_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
                  unsigned attr) must_check;

/* Ranges: `pages` pages of physically consecutive memory, from page `offset` of `first` on. The
 * frames that follow are found. One mapping per naturally aligned piece, by the largest pages that
 * fit. All or nothing.
 *   -EUNKNOWN   the frames end before the range does */
int vmap_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages,
               unsigned attr) must_check;
int vput_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset,
               uint64_t pages) must_check;
int vunmap_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset,
                 uint64_t pages) must_check;
/* vput_range() on behalf of `caller`, as vput_page(). */
int vput_range_for(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages,
                   const void *caller) must_check;
/* The same for `count` frames from anywhere, one after the other at va. */
int vmap_frames(space_t *space, vaddr_t va, frame_t *const *frames, size_t count,
                unsigned attr) must_check;
int vput_frames(space_t *space, vaddr_t va, frame_t *const *frames, size_t count) must_check;

/* What is mapped at va, which may be any byte of the mapping. */
struct vlookup {
    frame_t *frame;
    uint64_t offset; // page of the block that holds va
    unsigned attr;
    unsigned level; // of the entry
    uint32_t refs;
};
/*   -ENOENT     nothing is mapped there
 *   -ECANON     va is not canonical, or not in the space's half */
int vmap_lookup(space_t *space, vaddr_t va, struct vlookup *out) must_check;
