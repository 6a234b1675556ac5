// SPDX-License-Identifier: BSD-2-Clause
// What arena.c, where objects are taken and arenas grow, and arena_upkeep.c share.
#pragma once

#include "mm/mm.h"

enum {
    NODE_FREE = 0xffffffff, // entry 1 of a free node: a value that no entry in use can have
};

// What each is before it has a page; some of it never changes.
extern const struct arena arena_first[ARENA_COUNT];

static inline struct arena_page *page_header(const struct arena *a, uint32_t number)
{
    return (struct arena_page *)(uintptr_t)(a->base + (uint64_t)(number - 1) * PAGE_SIZE);
}

static inline uint32_t objects_per_page(const struct arena *a)
{
    return (PAGE_SIZE - MAX(a->size, sizeof(struct arena_page))) / a->size;
}

/* Takes a page off the list of those with free objects, or of the empty ones. */
void arena_page_remove(const struct arena *a, uint32_t *list, uint32_t number);
/* ARENA_FRAMES: the page holds nothing any more. */
void arena_page_make_empty(struct arena *a, uint32_t number);
