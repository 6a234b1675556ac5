// SPDX-License-Identifier: BSD-2-Clause
// Arenas: what the manager takes from them, what it keeps in stock, and the cache of records. Not
// for callers of mm/.
#pragma once

#include "arch/x86/spinlock.h"
#include "mm/inject.h"
#include "mm/mm.h"

enum {
    STOCK_FRAME_PAGES = 6, // a split needs two pages of descriptors at most
    STOCK_NODES = 1,
    STOCK_MAPPINGS = 56, // a split mapping needs up to 20 records, its tables some more
    STOCK_SLOTS = 10,    // RESERVE_SLOTS, and the tables of one address in 5 levels, roots apart
    STOCK_TABLES = 8,    // empty ones, at most after each operation
    // Of it callers leave so much, however short memory is: without it no arena could grow any
    // more when memory comes back, for growing needs frames, records and tables itself.
    RESERVE_FRAME_PAGES = 2,
    // get_frame() leaves so much more, for the tables of an operation on another CPU.
    RESERVE_OPERATION = 2,
    RESERVE_NODES = 1,
    RESERVE_MAPPINGS = 8,
    RESERVE_SLOTS = 6,
};

/* How much of a reserve must stay: nothing for the CPU that lets the arenas grow. */
static inline uint32_t reserve(uint32_t count)
{
    return mm.busy && (!mm.live || spin_held(&mm.map_lock)) ? 0 : count;
}

void arena_setup(void);
/* One more page (nodes: two). -ENOMEM. */
int arena_grow(enum arena_id id) must_check;
/* Unmaps the last page. */
void arena_shrink(enum arena_id id);
/* An object, all zero; its index, 0 if there is none. Frames, mappings, spaces and nodes. */
uint32_t arena_alloc(enum arena_id id);
void arena_free(enum arena_id id, uint32_t index);
/* --- the cache of records: map_lock is held --------------------------------------------------- */

/* The free records of a page move to the cache, which is empty; a reserve stays. False if there are
 * no more. */
bool records_refill(void);
/* The same for a cache that shall hold at least `count`. */
bool records_fill(uint32_t count);
/* All of the cache goes back to its pages. */
void records_spill(void);
/* Takes the first; there is one. */
static always_inline uint32_t record_take(void)
{
    uint32_t index = mm.records.head;

    mm.records.head = mapping_at(index)->at;
    mapping_at(index)->at = 0;
    mm.records.count--;
    return index;
}

/* Puts m, which is record `index` and on no list, before the free ones from *head on. The caller
 * counts it. */
static always_inline void record_free_to(uint32_t *head, mapping_t *m, uint32_t index)
{
    *m = (mapping_t){.at = *head};
    *head = index;
}

/* Puts it into the cache, where there is room. */
static always_inline void record_put(mapping_t *m, uint32_t index)
{
    mm.records.count++; // not beside the head: the two would be put together to be stored at once
    record_free_to(&mm.records.head, m, index);
}

void record_free_slow(uint32_t index);

/* arena_free() of a record. */
static always_inline void record_free(uint32_t index)
{
    if (likely(mm.records.count < RECORD_CACHE_MAX && !mm.busy))
        record_put(mapping_at(index), index);
    else
        record_free_slow(index);
}

/* 2^order more pages at once, of an arena that hands out none of them: TABLES, SHADOWS. Once
 * mm.live. -ENOMEM: not at once. */
int arena_grow_pages(enum arena_id id, unsigned order) must_check;
/* A page of 128 zero descriptors: index of its first, 0 if there is none. */
uint32_t frame_page_alloc(void);
void frame_page_free(uint32_t index);
/* Refills what is short, gives back what is too much. Does nothing while it is running already.
 * Holds map_lock, not frame_lock. */
void mm_upkeep(void);
/* The same for a caller without locks; nothing if another CPU has map_lock, and so will do it. */
void upkeep_try(void);
/* Fills the arenas FRAMES and NODES up to that many free pages and nodes. No locks. False if there
 * is no memory. */
bool arenas_fill(uint32_t pages, uint32_t nodes);

// map_lock is held.
static inline void upkeep(void)
{
    if (unlikely(mm.work))
        mm_upkeep();
}

// No lock is held.
static inline void upkeep_unlocked(void)
{
    if (unlikely(mm.work))
        upkeep_try();
}

static inline void work_add(uint32_t work)
{
    __atomic_or_fetch(&mm.work, work, __ATOMIC_RELAXED);
}

/* --- the manager's own pages (arena_pages.c) -------------------------------------------------- */

/* 2^order pages for the manager, each a frame of its own, mapped writable from va on in the
 * kernel's space, all zero: the descriptor of the first, the others stand behind it. The addresses
 * lie in one table that stands, and are free. mm.live, map_lock is held. NULL: no memory, or no
 * such table. */
frame_t *own_pages(vaddr_t va, unsigned order, enum frame_kind kind);

/* --- pages of an arena (arena.c, arena_upkeep.c) ---------------------------------------------- */

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
/* ARENA_FRAMES: the page is empty now. */
void arena_page_make_empty(struct arena *a, uint32_t number);
