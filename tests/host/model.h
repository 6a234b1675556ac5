// SPDX-License-Identifier: BSD-2-Clause
// What frames and mappings should be, page by page, as plain as can be: the manager is held against
// it.
#pragma once

#include "tests/host/support.h"

enum {
    MODEL_SPACES = 5,    // 0 is the kernel's
    MODEL_WINDOW = 2048, // pages of each of the two places of a space where the test maps
    MODEL_PAGES = 2 * MODEL_WINDOW,
    MODEL_RAM_PAGES = 16384,
    MODEL_BLOCKS = 20000,
};

// One page of an address space; nothing is mapped there if refs is 0.
struct mpage {
    uint64_t mfn;
    uint32_t refs;
    uint32_t id; // of the call that mapped it
    uint8_t attr;
    uint8_t home; // level of the pages that the call asked for
};

struct mspace {
    space_t *space; // NULL: not there
    uint32_t count; // pages mapped
    struct mpage page[MODEL_PAGES];
};

// A block in use, reserved or of a device.
struct mblock {
    frame_t *frame; // NULL: not there
    uint64_t mfn;
    unsigned order;
    unsigned kind;
    uint32_t refcount;
    uint32_t mapped; // pages of mappings
    unsigned type;   // of all its mappings
    bool outside;    // mapped elsewhere too, for good
};

struct model {
    struct mspace space[MODEL_SPACES];
    struct mblock block[MODEL_BLOCKS];
    uint32_t blocks;             // slots of block[] in use or used once
    int32_t at[MODEL_RAM_PAGES]; // block that holds the page, -1 for none
    uint32_t next_id;
};
extern struct model model;

// Part of an operation: pages of a block, at a page of a space.
struct mpart {
    unsigned space;
    int page; // index of the first; may lie outside
    struct mblock *block;
    uint64_t offset;
    unsigned order;
};

/* Learns what mm_init() has left. */
void model_start(void);
/* The block that holds the page; NULL. */
struct mblock *model_block(uint64_t mfn);
struct mblock *model_add(frame_t *frame, unsigned kind);
/* Gone if nobody owns or maps it. */
void model_release(struct mblock *b);
uint64_t model_va(unsigned space, int page);
/* Errors (bit 1 << number) one of which mapping the part must return; 0: it must succeed. level 0:
 * whatever fits. */
uint32_t model_map_errors(const struct mpart *p, unsigned level, unsigned attr);
uint32_t model_cover_errors(const struct mpart *p);
uint32_t model_protect_errors(const struct mpart *p, unsigned attr);
void model_map(const struct mpart *p, unsigned level, unsigned attr);
void model_put(const struct mpart *p, bool all);
void model_protect(const struct mpart *p, unsigned attr);
void model_space_gone(unsigned space);
/* Fails the test if manager and model differ in anything. */
void model_compare(void);
