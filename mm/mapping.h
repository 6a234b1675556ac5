// SPDX-License-Identifier: BSD-2-Clause
// Mapping records: one for each place where a frame, or a naturally aligned part of it, is mapped.
#pragma once

#include "arch/x86/pgentry.h"
#include "lib/types.h"
#include "mm/frame.h"

// Invariant: a record in use has refs >= 1 and is on the list of exactly one frame, linked both
// ways (the first one's prev is 0). Its entries are the 2^(order - 9 * (level - 1)) consecutive
// ones of that level from table slot `at / 512`, entry `at % 512` on (further tables follow by
// virtual address); they map the pages [offset, offset + 2^order) of the block, and their shadow
// entries hold this record's index.
typedef struct mapping {
    uint32_t next; // index of the frame's next mapping, 0 at the end; see mapping_at()
    uint32_t prev; // index of the one before, 0 for the first
    uint32_t at;   // slot * 512 + entry: where its first entry stands, and so its space and address
    uint32_t attr : 6;  // enum vattr
    uint32_t level : 2; // of its entries: 1 4K, 2 2M, 3 1G
    uint32_t refs : 24;
    uint32_t offset : 18;    // first page of the block that it maps
    uint32_t order : 5;      // it maps 2^order pages
    uint32_t home : 5;       // order as the caller made it; parts merge again up to this
    uint32_t home_level : 2; // level as the caller made it
    uint32_t home_odd : 1;   // 1 if home has an odd number of ones, for the self-check
    uint32_t home_1g : 1;    // 1 if home_level is 3, likewise
} mapping_t;
_Static_assert(sizeof(mapping_t) == 20, "20 bytes, and 4 in the shadow: at most 24 a mapping");

enum {
    MAPPING_REFS_MAX = (1 << 24) - 1,
};

/* Calls fn for each mapping of a frame (head), newest first, until it returns non-zero, which is
 * returned. fn must not map, unmap or look up. */
int frame_each_mapping(frame_t *frame, int (*fn)(frame_t *frame, const mapping_t *m, void *arg),
                       void *arg);
/* Address (not sign-extended beyond canonical form: ready to use) and space of a mapping. */
vaddr_t mapping_va(const mapping_t *m);
struct space *mapping_space(const mapping_t *m);
