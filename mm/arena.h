// SPDX-License-Identifier: BSD-2-Clause
// Arenas: where the memory manager keeps its own objects; windows of virtual memory that grow and
// shrink by pages.
#pragma once

#include "lib/types.h"

// An object is named by a 32-bit index: its byte distance from the arena's base divided by `unit`.
enum arena_id {
    ARENA_FRAMES,   // frame_t, unit 32
    ARENA_MAPPINGS, // mapping_t, unit 4
    ARENA_NODES,    // struct frame_node, unit 8192
    ARENA_TABLES,   // struct table, unit 32, indexed by slot
    ARENA_SHADOWS,  // struct shadow, unit 2048, indexed by slot
    ARENA_SPACES,   // space_t, unit 128
    ARENA_COUNT,
};

// Invariant: the first `pages` pages of the window are mapped, each to an order-0 FRAME_METADATA
// frame with one reference; nothing behind them is. At least `low` objects are free after each
// public function, memory permitting. Arenas of small objects (frames, mappings, spaces) start each
// page of theirs with a struct arena_page. Records in mm.records count as in use here.
struct arena {
    uint64_t base;    // virtual address of the window
    uint64_t limit;   // bytes the window can grow to
    uint32_t unit;    // bytes per index step
    uint32_t size;    // bytes of an object
    uint32_t pages;   // pages mapped now
    uint32_t boot;    // of them made at boot; never given back
    uint32_t free;    // objects free (ARENA_FRAMES: wholly free pages; nodes: free nodes)
    uint32_t low;     // with fewer free than this the arena grows
    uint32_t partial; // number of the first page with free objects, counted from 1; 0 if none
    uint32_t empty;   // ARENA_FRAMES: number of the first wholly free page, counted from 1. Nodes:
                      // index of the first free node, linked by entry[0]. 0 if none
};

// Head of a page of small objects. Where a frame_t has its kind and its counts there is 0: it is
// never taken for a frame, nor counted up, by who still has the address of one that stood there.
struct arena_page {
    uint64_t zero;
    uint32_t next; // number of the next page of the same list, counted from 1; 0 at the end
    uint32_t prev; // and of the one before, 0 for the first
    uint64_t zero2;
    uint32_t magic : 24; // ARENA_PAGE_OBJECTS or ARENA_PAGE_EMPTY
    uint32_t used : 8;   // objects in use
    uint32_t free; // index of the first free object, linked by their word at byte 8; 0 if none
};
_Static_assert(sizeof(struct arena_page) == 32, "one frame descriptor's place");

enum {
    ARENA_PAGE_OBJECTS = 0x4f424a, // holds objects
    ARENA_PAGE_EMPTY = 0x465245,   // ARENA_FRAMES: holds nothing
};
