// SPDX-License-Identifier: BSD-2-Clause
// Records and their entries, made and taken away together. map_lock is held.
#pragma once

#include "arch/x86/pgentry.h"
#include "mm/mm.h"

// Pages [offset, offset + 2^order) of a block, at a place of an address space.
struct part {
    space_t *space; // NULL: the kernel's
    vaddr_t va;
    frame_t *frame;
    uint64_t offset; // first page within the block
    unsigned order;
    unsigned level; // of the entries; 0: the largest that fit
    unsigned attr;
    uint64_t word; // what the descriptor said when the part was chosen
    bool separate; // its records do not merge with others yet: a range that is taken back needs no
                   // memory then for splitting them again
    bool unmerged; // set if some of them might merge
};

/* Puts record `index` at the front of the frame's list, or takes it off; mapcount follows by its
 * refs. */
void mapping_link(frame_t *frame, uint32_t index);
void mapping_unlink(frame_t *frame, uint32_t index);
/* Makes a new mapping of the part by entries of p->level, at least 1. All of *p is valid. Whatever
 * the error, nothing has changed:
 *   -EEXIST     another page is mapped there
 *   -ELARGE     a large page is in the way
 *   -ETABLE     a page table is in the way of a large page
 *   -EFREE      the frame is free
 *   -ENOMEM     no memory for the record or a table */
int mapping_create(const struct part *p) must_check;
/* The same of a page of the manager's own: writable, in the kernel's space. */
int mapping_create_own(vaddr_t va, frame_t *frame) must_check;
/* Takes all its entries away, and tables that became empty. The record and the mapcount go with
 * tlb_commit(), and the frame may be free then. */
void mapping_destroy(space_t *space, frame_t *frame, uint32_t index);
/* Writes its entries anew with m->attr changed to attr. */
void mapping_set_attr(space_t *space, frame_t *frame, uint32_t index, unsigned attr);
/* The shadow entries of 2^order pages at va now hold `index`. */
void mapping_set_shadow(space_t *space, vaddr_t va, unsigned level, unsigned order, uint32_t index);

/* --- parts (mapping_split.c) ------------------------------------------------------------------ */

/* Splits record `index` until one covers exactly pages [offset, offset + 2^order): that one is
 * returned in *out.
 *   -ENOMEM     no memory for records or a table; nothing has changed */
int mapping_split(space_t *space, frame_t *frame, uint32_t index, uint64_t offset, unsigned order,
                  uint32_t *out) must_check;
/* Merges the record with its neighbours as far as they are alike and came from one mapping. */
void mapping_merge(space_t *space, frame_t *frame, uint32_t index);

/* --- memory types, and what attributes are allowed (mapping_type.c) --------------------------- */

/* Whether it is a part of the kernel's image, which ring 3 must not write. */
static inline bool is_image(unsigned kind)
{
    return kind >= FRAME_IMAGE && kind <= FRAME_BSS;
}

/* What mm.leaf_bits holds for that level, 1 or 2, and enum vattr. */
static inline pgentry_t leaf_bits_of(unsigned level, unsigned attr)
{
    bool allowed = (attr >> VATTR_TYPE_SHIFT) < MEMTYPE_COUNT &&
                   (attr & (VATTR_W | VATTR_X)) != (VATTR_W | VATTR_X);

    return allowed ? pgentry_leaf(MFN(0), level, attr) : 0;
}

static inline enum memtype attr_type(unsigned attr)
{
    return (enum memtype)((attr & VATTR_TYPE) >> VATTR_TYPE_SHIFT);
}

// Pages that are write-back by the MTRRs, most of memory. A block that starts there ends there.
struct type_stretch {
    uint64_t first; // number of the first
    uint64_t pages;
};
extern struct type_stretch type_wb;

/* mm.wb_kinds and type_wb, from the regions and the MTRRs. */
void type_init(void);
/* mm.wb_kinds as it should be: the kinds of the boot map that are write-back by the MTRRs. Device
 * frames are looked at one by one. */
uint32_t type_kinds(void);
/* The attributes as a record holds them: with the frame's own type if none is asked for. */
unsigned type_settled(const frame_t *frame, unsigned attr);
/* -ETYPE if device memory is to be write-back, or if the MTRRs make another type of it. */
int type_check(const frame_t *frame, uint64_t offset, unsigned order, unsigned attr) must_check;
/* True if the frame's other mappings have another type. */
bool type_differs(const frame_t *frame, unsigned attr);
