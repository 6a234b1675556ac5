// SPDX-License-Identifier: BSD-2-Clause
// Page tables: their slots in the window, their shadows, and the one walk over levels.
#pragma once

#include "arch/x86/layout.h"
#include "arch/x86/pgentry.h"
#include "mm/space.h"

// Each page table has a slot. Its entries stand at VA_WINDOW + slot * 4096 (mapped through its
// frame, the only writable mapping of it), its shadow at VA_SHADOWS + slot * 2048, its struct table
// at VA_TABLES + slot * 32. Slot 0 is never used.
//
// Invariant: `used` counts the present entries; a table that has none, and no pins, is freed, roots
// excepted. parent is the slot of the table whose entry `index` points here; a root's parent is 0.
// A free slot has level 0. So has one in stock: a table that became empty stays mapped in the
// window, all zero as it is, for the next one that is made (mm.stock_slot; linked by parent).
// Nothing leads to it, and no CPU remembers that anything did.
struct table {
    uint64_t va;     // first address that the table covers, canonical
    uint32_t frame;  // index of its frame; in a free slot: the next free slot
    uint32_t parent; // slot; in stock: the next one there
    uint32_t space;  // index of its address space
    uint16_t index;  // entry of the parent
    uint16_t used;
    uint8_t level;  // 1 to 5; 0: the slot is free
    uint8_t pins;   // kept even when empty
    uint16_t stock; // 1: in stock, or will be after the next flush
    uint32_t zero;
};
_Static_assert(sizeof(struct table) == 32, "one size for kernel, host tests and the debugger");

// What each entry stands for: 0 nothing, SHADOW_TABLE | slot a table, else the index of a mapping.
struct shadow {
    uint32_t entry[PT_ENTRIES];
};
#define SHADOW_TABLE 0x80000000u

static inline pgentry_t *table_entries(uint32_t slot)
{
    return (pgentry_t *)(uintptr_t)(VA_WINDOW + ((uint64_t)slot << PAGE_SHIFT));
}

static inline vaddr_t table_va(uint32_t slot)
{
    return VADDR(VA_WINDOW + ((uint64_t)slot << PAGE_SHIFT));
}

static inline uint32_t *table_shadow(uint32_t slot)
{
    return ((struct shadow *)(uintptr_t)VA_SHADOWS)[slot].entry;
}

static inline struct table *table_at(uint32_t slot)
{
    return (struct table *)(uintptr_t)VA_TABLES + slot;
}

/* One step of a walk that is short of instructions: the number, among those of all slots, of the
 * entry that 9 bits of an address, the highest of `rest`, have in the table that `shadow` leads to.
 * Its mark SHADOW_TABLE counts as a slot. */
static always_inline uint64_t pt_next(uint64_t shadow, uint64_t *rest)
{
    __asm__("shldq $9, %1, %0\n\tshlq $9, %1" : "+r"(shadow), "+r"(*rest) : : "cc");
    return shadow;
}

// Where a walk for an address ended: the first entry that is no table, or the one at the level
// asked for.
struct pt_walk {
    uint32_t slot;   // of the table
    unsigned level;  // of the table
    unsigned index;  // of the entry
    uint32_t shadow; // what the entry stands for
};

/* Goes down from the root towards level `target` (1 to 5). Never fails. */
static inline void pt_walk(const space_t *space, vaddr_t va, unsigned target, struct pt_walk *w)
{
    uint32_t slot = space->root;
    unsigned level = space->levels;

    for (;;) {
        unsigned index = level_index(va, level);
        uint32_t shadow = table_shadow(slot)[index];

        if (level == target || !(shadow & SHADOW_TABLE)) {
            *w = (struct pt_walk){slot, level, index, shadow};
            return;
        }
        slot = shadow & ~SHADOW_TABLE;
        level--;
    }
}

/* The same, making the tables that are missing. -ELARGE a large page is in the way, -ENOMEM: no
 * table is left that was not there. */
int pt_walk_create(space_t *space, vaddr_t va, unsigned target, struct pt_walk *w) must_check;
/* Makes the table below the empty entry at *w, which is va's entry there from then on. -ENOMEM:
 * the table at *w is pruned. */
int pt_make_below(space_t *space, vaddr_t va, struct pt_walk *w) must_check;
/* Frees the table if nothing is in it, then its parent, and so on. */
void pt_prune(uint32_t slot);
/* After a flush: the empty tables from slot `first` on (linked by parent) go to the stock. */
void pt_flushed(uint32_t first);
/* Frees tables in stock until `keep` are left. True if there were more. */
bool pt_trim(uint32_t keep);
/* Makes a space's root table; the kernel's half is copied from the kernel's space. -ENOMEM. */
int pt_root_create(space_t *space) must_check;
/* Frees an empty root. */
void pt_root_destroy(space_t *space);
/* Puts a table made of the large page at *w in its place: 512 entries one level below, which map
 * the same. The shadows hold the same record. *w is then the first of them. -ENOMEM. */
int pt_split_large(space_t *space, vaddr_t va, struct pt_walk *w) must_check;
/* The opposite: the full table at slot, all of one record, becomes the large page `entry` of its
 * parent. */
void pt_merge_large(uint32_t slot, pgentry_t entry, struct pt_walk *w);
/* The first tables of the kernel's space, with which the window can map itself. Boot only. */
void pt_boot(space_t *kernel);

/* Writes an entry and its shadow; keeps count of the table's entries. */
void pt_set(uint32_t slot, unsigned index, pgentry_t entry, uint32_t shadow);

/* True if va .. va + bytes - 1 is canonical and in one half. */
bool pt_canonical(vaddr_t va, uint64_t bytes, unsigned levels);

/* --- slots (table_slot.c) --------------------------------------------------------------------- */

/* Table slots, `want` or two of them; two fewer if `keep` stay free.  */
int slots_grow(uint32_t want) must_check;
bool slots_trim(uint32_t keep);
/* A frame for a table in a slot of its own, all zero as its shadow is; 0 if there is no memory. */
uint32_t table_back(void);
/* Its frame and its slot go back; the frame only after the next flush. */
void table_unback(uint32_t slot);
/* Puts several tables in stock at once: who makes one soon makes more. False: not now, or no
 * memory. */
bool stock_fill(void);

/* --- the tables used last (table_recent.c) ---------------------------------------------------- */

/* The number of va's entry among those of all slots, in its table of that level, which the fast
 * path finds by itself the next time. The space is live; any address, 0 if there is no such table
 * for callers. `make`: one that only lacks itself is made, empty, if there is memory: something is
 * mapped in it next, or it is pruned. */
uint32_t recent_at(space_t *space, vaddr_t va, unsigned level, bool make);
/* Frees the table for va if nothing is in it. */
void recent_prune(space_t *space, vaddr_t va, unsigned level);
