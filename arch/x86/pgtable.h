// SPDX-License-Identifier: BSD-2-Clause
// Page tables: their slots in the window, their shadows, and the one walk over levels.
#pragma once

#include "arch/x86/layout.h"
#include "arch/x86/pgentry.h"
#include "mm/space.h"

// Each page table has a slot. Its entries stand at VA_WINDOW + slot * 4096 (mapped through its frame, the only writable
// mapping of it), its shadow at VA_SHADOWS + slot * 2048, its struct table at VA_TABLES + slot * 32.
// Slot 0 is never used.
//
// Invariant: `used` counts the present entries and the pins; a table without any is freed, roots excepted. parent is the slot of
// the table whose entry `index` points here; a root's parent is 0. A free slot has level 0.
struct table {
    uint64_t va;     // first address that the table covers, canonical
    uint32_t frame;  // index of its frame; in a free slot: the next free slot
    uint32_t parent; // slot
    uint32_t space;  // index of its address space
    uint16_t index;  // entry of the parent
    uint16_t used;
    uint8_t level; // 1 to 5; 0: the slot is free
    uint8_t pins;  // kept even when empty
    uint16_t zero;
    uint32_t zero2;
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

static inline uint32_t *table_shadow(uint32_t slot)
{
    return ((struct shadow *)(uintptr_t)VA_SHADOWS)[slot].entry;
}

static inline struct table *table_at(uint32_t slot)
{
    return (struct table *)(uintptr_t)VA_TABLES + slot;
}
