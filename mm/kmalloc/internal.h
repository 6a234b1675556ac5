// SPDX-License-Identifier: BSD-2-Clause
// What the files of kmalloc share: chunks, pages, slots.
#pragma once

#include "arch/x86/layout.h"
#include "mm/kmalloc/kmalloc.h"

#if KTF_DEBUG
#define KMALLOC_DEBUG 1
#else
#define KMALLOC_DEBUG 0
#endif

// The window is cut into chunks of 64 pages. A chunk's first page describes the others.
enum {
    CHUNK_PAGES = 64,
    CHUNK_SHIFT = PAGE_SHIFT + 6,
    CHUNK_COUNT = VA_KMALLOC_SIZE >> CHUNK_SHIFT,
    CLASS_SHIFT = 4, // the smallest class: 16 bytes
    CLASS_COUNT = 8, // the largest one: 2048
    SLOTS_MAX = PAGE_SIZE >> CLASS_SHIFT,
};

enum kpage_kind {
    KPAGE_FREE = 0,
    KPAGE_SLAB = 1,  // slots of one class
    KPAGE_LARGE = 2, // the first page of a large object
    KPAGE_REST = 3,  // its other pages, and the unmapped one behind
};

// What is said of a large object, or (debug builds) behind each slot.
struct ktag {
    uint64_t caller;
    uint32_t serial;
    uint32_t size; // asked for, bytes; a large object's is in kpage.bytes
};

// A page of a chunk. Invariant: a slab's `used` is the number of bits set in `map`, at least 1; it
// is on the list of its class exactly if a slot is free.
struct kpage {
    uint32_t next, prev; // slabs with room, by page number in the window + 1; 0 at the end
    uint16_t used;
    uint8_t kind;  // enum kpage_kind
    uint8_t class; // of a slab: slots of 16 << class bytes
    uint32_t pages;
    union {
        uint64_t map[SLOTS_MAX / 64]; // of a slab: slots in use
        struct {
            struct ktag tag; // of a large object
            uint64_t bytes;
        };
    };
    uint64_t zero[2];
};
_Static_assert(sizeof(struct kpage) * CHUNK_PAGES == PAGE_SIZE, "one page describes a chunk");

// The chunk's first page; page[0]'s place holds the head. Invariant: bit i of `taken` says that
// page i is not free; bit 0 is always set. A chunk whose other pages are all free goes back. A
// chunk of an object of more than 62 pages holds nothing else; the chunks behind it, on which the
// object goes on, have no head.
struct kchunk {
    union {
        struct {
            uint64_t taken;
            uint32_t next, prev; // chunks with a free page, by number + 1; 0 at the end
            uint32_t chunks;     // how many it covers
            uint32_t magic;      // KCHUNK_MAGIC
        };
        struct kpage page[CHUNK_PAGES];
    };
};
#define KCHUNK_MAGIC 0x4b4d4348u

struct kmalloc {
    uint64_t taken[CHUNK_COUNT / 64]; // chunks
    uint64_t heads[CHUNK_COUNT / 64]; // of them those that have a head
    uint32_t room;                    // chunks with a free page: number + 1 of the first
    uint32_t slabs[CLASS_COUNT];      // slabs with a free slot: page number + 1 of the first
    uint32_t serial;                  // of the next object
    uint64_t objects;
    uint64_t pages; // mapped
};
extern struct kmalloc kmalloc_state;

enum {
    JUNK_ALLOC = 0xa5, // an object's bytes before they are written
    JUNK_FREE = 0x6b,  // a free slot's
    JUNK_RED = 0xbb,   // behind an object
    RED_BYTES = 8,     // at least so many follow an object
};

static inline bool bit_get(const uint64_t *map, uint32_t i)
{
    return map[i / 64] >> (i % 64) & 1;
}

static inline void bit_set(uint64_t *map, uint32_t i, bool value)
{
    map[i / 64] = (map[i / 64] & ~(UINT64_C(1) << (i % 64))) | (uint64_t)value << (i % 64);
}

static inline struct kchunk *chunk_at(uint32_t number)
{
    return (struct kchunk *)(uintptr_t)(VA_KMALLOC + ((uint64_t)number << CHUNK_SHIFT));
}

static inline uint32_t chunk_number(const struct kchunk *c)
{
    return (uint32_t)(((uintptr_t)c - VA_KMALLOC) >> CHUNK_SHIFT);
}

/* By page number in the window. */
static inline struct kpage *kpage_at(uint32_t page)
{
    return &chunk_at(page / CHUNK_PAGES)->page[page % CHUNK_PAGES];
}

static inline uint64_t kpage_va(uint32_t page)
{
    return VA_KMALLOC + ((uint64_t)page << PAGE_SHIFT);
}

static inline uint32_t class_bytes(unsigned class)
{
    return 16u << class;
}

/* From slot to slot: in debug builds the tag and the red zone follow the object, as large as it. */
static inline uint32_t class_stride(unsigned class)
{
    return KMALLOC_DEBUG ? 2 * MAX(class_bytes(class), 32u) : class_bytes(class);
}

static inline uint32_t class_slots(unsigned class)
{
    return PAGE_SIZE / class_stride(class);
}

static inline uint8_t *slot_at(uint32_t page, uint32_t slot)
{
    return (uint8_t *)(uintptr_t)(kpage_va(page) + slot * class_stride(kpage_at(page)->class));
}

/* --- kmalloc_pages.c -------------------------------------------------------------------------- */

/* `count` pages in a row, mapped, and one behind that is not if `guard`: number of the first in
 * *page; their struct kpage says KPAGE_REST. -ENOMEM: nothing has changed. */
int kpages_take(uint32_t count, bool guard, uint32_t *page) must_check;
/* Gives a run back whose first pages are mapped and the others not. */
void kpages_give(uint32_t page, uint32_t mapped, uint32_t unmapped);
/* The page that holds the address, if it is one of kmalloc's in use: its number. */
bool kpages_find(const void *p, uint32_t *page);

/* --- kmalloc_debug.c: nothing but the tags of large objects is kept without KMALLOC_DEBUG ----- */

/* The tag of a slot; NULL without debug. */
struct ktag *kdebug_tag(uint32_t page, uint32_t slot);
/* All slots of a new slab become free ones. */
void kdebug_new_slab(uint32_t page);
/* A free slot, or a large object whose `pages` and `bytes` are set, is handed out. */
void kdebug_alloc(uint32_t page, uint32_t slot, size_t size, const void *caller);
void kdebug_alloc_large(uint32_t page, const void *caller);
/* It gets another size, which fits where it is. */
void kdebug_resize(uint32_t page, uint32_t slot, size_t size);
void kdebug_resize_large(uint32_t page, size_t size);
void kdebug_free(uint32_t page, uint32_t slot, const void *caller);
/* 0, or -ECORRUPT after printing where and how. The slot may be free. */
int kdebug_check_slot(uint32_t page, uint32_t slot);
int kdebug_check_large(uint32_t page);
