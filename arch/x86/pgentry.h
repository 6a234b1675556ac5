// SPDX-License-Identifier: BSD-2-Clause
// x86-64 page-table entries (SDM vol. 3, 4.5): their bits, and how attributes become entries.
#pragma once

#include "arch/x86/memtype.h"
#include "lib/types.h"

typedef uint64_t pgentry_t;

// Attributes of a mapping. All mappings can be read; writable and executable at once is refused.
enum vattr {
    VATTR_R = 0,
    VATTR_W = 1 << 0, // writable
    VATTR_X = 1 << 1, // executable
    VATTR_U = 1 << 2, // user access
    // Memory type, enum memtype << VATTR_TYPE_SHIFT. With none, mm/ chooses write-back, or uncached
    // for a device's frame and where an MTRR makes any of the frame something else.
    VATTR_WT = 1 << 3,  // write-through
    VATTR_UCM = 2 << 3, // uncached, unless an MTRR says write-combining
    VATTR_UC = 3 << 3,  // uncached
    VATTR_WP = 4 << 3,  // write-protected cache
    VATTR_WC = 5 << 3,  // write-combining
    VATTR_PERM = VATTR_W | VATTR_X | VATTR_U,
    VATTR_TYPE_SHIFT = 3,
    VATTR_TYPE = 7 << VATTR_TYPE_SHIFT,
    VATTR_ALL = VATTR_PERM | VATTR_TYPE, // what a record holds
    VATTR_WB = 1 << 6, // write-back whatever the frame is; a record does not hold it: its type is 0
};

enum pgentry_bits {
    PG_P = 1 << 0,        // present
    PG_W = 1 << 1,        // writable
    PG_U = 1 << 2,        // user
    PG_PWT = 1 << 3,      // memory type, bit 0 of the PAT index
    PG_PCD = 1 << 4,      // bit 1
    PG_A = 1 << 5,        // accessed, set by the CPU
    PG_D = 1 << 6,        // dirty, set by the CPU
    PG_PS = 1 << 7,       // level 2, 3: a large page
    PG_PAT_4K = 1 << 7,   // level 1: bit 2 of the PAT index
    PG_PAT_BIG = 1 << 12, // large page: bit 2 of the PAT index
};
#define PG_NX   (UINT64_C(1) << 63)          // not executable (EFER.NXE)
#define PG_ADDR UINT64_C(0x000ffffffffff000) // address field, bits 12 to 51

enum {
    PT_ENTRIES = 512,
    PT_LEVELS_MAX = 5,
};

/* log2 of the bytes that one entry of that level (1 to 5) covers. */
static inline unsigned level_shift(unsigned level)
{
    return PAGE_SHIFT + 9 * (level - 1);
}

/* log2 of the pages that one entry of that level covers. */
static inline unsigned level_order(unsigned level)
{
    return 9 * (level - 1);
}

static inline unsigned level_index(vaddr_t va, unsigned level)
{
    return (va.v >> level_shift(level)) & (PT_ENTRIES - 1);
}

/* The entry that maps the page at mfn (aligned to the level) with these attributes. */
static inline pgentry_t pgentry_leaf(mfn_t mfn, unsigned level, unsigned attr)
{
    unsigned type = attr >> VATTR_TYPE_SHIFT;
    pgentry_t e = (mfn.v << PAGE_SHIFT) | PG_P;

    e |= (attr & VATTR_W) ? PG_W : 0;
    e |= (attr & VATTR_U) ? PG_U : 0;
    e |= (attr & VATTR_X) ? 0 : PG_NX;
    e |= (pgentry_t)(type & 3) << 3;
    if (type & 4)
        e |= level == 1 ? PG_PAT_4K : PG_PAT_BIG;
    return level == 1 ? e : e | PG_PS;
}

/* The entry that points to a table at mfn; permissions are the leaf's to limit. */
static inline pgentry_t pgentry_table(mfn_t mfn, bool user)
{
    return (mfn.v << PAGE_SHIFT) | PG_P | PG_W | (user ? PG_U : 0);
}

/* The frame number in an entry of that level. */
static inline mfn_t pgentry_mfn(pgentry_t e, unsigned level)
{
    uint64_t addr = e & PG_ADDR;

    if (level > 1 && (e & PG_PS))
        addr &= ~(uint64_t)PG_PAT_BIG;
    return MFN(addr >> PAGE_SHIFT);
}
