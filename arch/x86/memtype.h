// SPDX-License-Identifier: BSD-2-Clause
// Memory types as the processor combines them: the page attribute table and the MTRRs (SDM vol. 3,
// chapter 12).
#pragma once

#include "lib/types.h"

// The number of the page attribute table's entry that means it (SDM vol. 3, 12.12; set in
// arch/x86/cpu.c).
enum memtype {
    MEMTYPE_WB = 0,
    MEMTYPE_WT = 1,
    MEMTYPE_UCM = 2,
    MEMTYPE_UC = 3,
    MEMTYPE_WP = 4,
    MEMTYPE_WC = 5,
    MEMTYPE_COUNT = 6,
};

// Encodings in the PAT and the MTRRs.
enum cache_type {
    CACHE_UC = 0,
    CACHE_WC = 1,
    CACHE_WT = 4,
    CACHE_WP = 5,
    CACHE_WB = 6,
    CACHE_UC_MINUS = 7, // PAT only
    CACHE_MIXED = 8,    // no type: several in one range
};

enum mtrr_bits {
    MTRR_CAP_COUNT = 0xff,
    MTRR_CAP_FIXED = 1 << 8,
    MTRR_DEF_TYPE = 0xff,
    MTRR_DEF_FIXED = 1 << 10,  // the fixed ranges count
    MTRR_DEF_ENABLE = 1 << 11, // MTRRs count at all
    MTRR_MASK_VALID = 1 << 11,
};

enum {
    MTRR_FIXED_COUNT = 11, // 1 of 64K, 2 of 16K, 8 of 4K ranges, eight each
    MTRR_VARIABLE_MAX = 32,
    MEMTYPE_PAT_COUNT = 8, // the last two are not used
};

// The MTRRs as they were at boot; the debugger reads them here.
struct mtrr {
    uint64_t cap;      // 0: there are none
    uint64_t def_type; // MTRR_DEF_*
    uint64_t fixed[MTRR_FIXED_COUNT];
    uint64_t base[MTRR_VARIABLE_MAX];
    uint64_t mask[MTRR_VARIABLE_MAX];
    uint64_t limit; // first byte beyond physical addresses
    uint32_t count; // of variable ranges
    uint32_t zero;
};
extern struct mtrr mtrr;

// What the PAT holds, by enum memtype (enum cache_type); every CPU has it so, and the debugger
// reads it here.
extern const uint8_t memtype_pat[MEMTYPE_PAT_COUNT];

/* The same as a value for IA32_PAT. */
uint64_t pat_value(void);

/* Whether the MTRRs say anything: they exist and are on. Where they do not, all is write-back to
 * us; a machine without firmware leaves them off, and QEMU's TCG does not look at them. */
bool mtrr_active(const struct mtrr *m);
/* What they say of that byte. Where ranges overlap in a way that is not defined: CACHE_UC. */
enum cache_type mtrr_type(const struct mtrr *m, uint64_t paddr);
/* What they say of [paddr, paddr + bytes): CACHE_MIXED if not the same of all of it. */
enum cache_type mtrr_range_type(const struct mtrr *m, uint64_t paddr, uint64_t bytes);
/* The first address above paddr where they may say something else; m->limit if there is none. */
uint64_t mtrr_next_change(const struct mtrr *m, uint64_t paddr);

/* What becomes of a page with that type in its entry, in memory of that MTRR type. */
enum cache_type memtype_effective(enum memtype type, enum cache_type mtrr_type);
/* The same for a range; CACHE_MIXED if it is not the same everywhere. */
enum cache_type memtype_range_effective(const struct mtrr *m, enum memtype type, uint64_t paddr,
                                        uint64_t bytes);
/* True if an entry of that type means what it says in all of the range: the effective type is the
 * one asked for, or for UC- one that it allows. */
bool memtype_holds(const struct mtrr *m, enum memtype type, uint64_t paddr, uint64_t bytes);
/* "WB", "UC", ... */
const char *cache_type_name(enum cache_type type);
