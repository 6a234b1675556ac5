// SPDX-License-Identifier: BSD-2-Clause
// Memory types: what PAT and MTRRs make of an address together.
#include "arch/x86/memtype.h"

struct mtrr mtrr;

// Entries 0 to 3 are those of reset, so that nothing changes for mappings made before; 4 and 5 are
// new.
const uint8_t memtype_pat[MEMTYPE_PAT_COUNT] = {
    [MEMTYPE_WB] = CACHE_WB,          [MEMTYPE_WT] = CACHE_WT, [MEMTYPE_UCM] = CACHE_UC_MINUS,
    [MEMTYPE_UC] = CACHE_UC,          [MEMTYPE_WP] = CACHE_WP, [MEMTYPE_WC] = CACHE_WC,
    [MEMTYPE_COUNT] = CACHE_UC_MINUS, [7] = CACHE_UC};

uint64_t pat_value(void)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(memtype_pat); i++)
        value |= (uint64_t)memtype_pat[i] << (8 * i);
    return value;
}

bool mtrr_active(const struct mtrr *m)
{
    return m->cap && (m->def_type & MTRR_DEF_ENABLE);
}

/* --- MTRRs ------------------------------------------------------------------------------------ */

#define FIXED_END 0x100000

static bool fixed_counts(const struct mtrr *m, uint64_t paddr)
{
    return paddr < FIXED_END && (m->def_type & MTRR_DEF_FIXED) && (m->cap & MTRR_CAP_FIXED);
}

// log2 of the size of the fixed ranges there.
static unsigned fixed_shift(uint64_t paddr)
{
    return paddr < 0x80000 ? 16 : paddr < 0xc0000 ? 14 : 12;
}

static enum cache_type fixed_type(const struct mtrr *m, uint64_t paddr)
{
    uint64_t range; // its number among those of all sizes

    if (paddr < 0x80000)
        range = paddr >> 16;
    else if (paddr < 0xc0000)
        range = 8 + ((paddr - 0x80000) >> 14);
    else
        range = 24 + ((paddr - 0xc0000) >> 12);
    return m->fixed[range / 8] >> (8 * (range % 8)) & 0xff;
}

// Where two ranges overlap: UC wins, WT wins over WB; the rest is not defined.
static enum cache_type combine(enum cache_type a, enum cache_type b)
{
    if (a == b)
        return a;
    if ((a == CACHE_WT && b == CACHE_WB) || (a == CACHE_WB && b == CACHE_WT))
        return CACHE_WT;
    return CACHE_UC;
}

static uint64_t mask_of(const struct mtrr *m, unsigned i)
{
    return m->mask[i] & (m->limit - 1) & ~(uint64_t)(PAGE_SIZE - 1);
}

static bool range_counts(const struct mtrr *m, unsigned i)
{
    return m->mask[i] & MTRR_MASK_VALID;
}

enum cache_type mtrr_type(const struct mtrr *m, uint64_t paddr)
{
    enum cache_type type = CACHE_MIXED;

    if (!mtrr_active(m))
        return CACHE_WB;
    if (fixed_counts(m, paddr))
        return fixed_type(m, paddr);
    for (unsigned i = 0; i < m->count; i++) {
        enum cache_type one = m->base[i] & MTRR_DEF_TYPE;

        if (range_counts(m, i) && ((paddr ^ m->base[i]) & mask_of(m, i)) == 0)
            type = type == CACHE_MIXED ? one : combine(type, one);
    }
    return type == CACHE_MIXED ? m->def_type & MTRR_DEF_TYPE : type;
}

// The first border above paddr of one variable range; m->limit if there is none.
static uint64_t range_border(const struct mtrr *m, unsigned i, uint64_t paddr)
{
    uint64_t mask = mask_of(m, i);
    uint64_t size = mask & -mask;
    uint64_t base = m->base[i] & mask;

    if (!mask)
        return m->limit;
    if (mask + size != m->limit) // not one stretch, but many of that size
        return ROUND_DOWN(paddr, size) + size;
    return base > paddr ? base : base + size > paddr ? base + size : m->limit;
}

uint64_t mtrr_next_change(const struct mtrr *m, uint64_t paddr)
{
    uint64_t next = m->limit;

    if (!mtrr_active(m))
        return UINT64_MAX;
    if (fixed_counts(m, paddr))
        return ROUND_DOWN(paddr, UINT64_C(1) << fixed_shift(paddr)) +
               (UINT64_C(1) << fixed_shift(paddr));
    for (unsigned i = 0; i < m->count; i++)
        if (range_counts(m, i))
            next = MIN(next, range_border(m, i, paddr));
    return next;
}

enum cache_type mtrr_range_type(const struct mtrr *m, uint64_t paddr, uint64_t bytes)
{
    enum cache_type type = mtrr_type(m, paddr);

    uint64_t at = mtrr_next_change(m, paddr);

    while (at > paddr && at - paddr < bytes && at < m->limit) {
        if (mtrr_type(m, at) != type)
            return CACHE_MIXED;
        at = mtrr_next_change(m, at);
    }
    return type;
}

/* --- PAT and MTRR ----------------------------------------------------------------------------- */

// SDM vol. 3, table 12-7, but for UC and WC in the entry: these are so in memory of every type.
static enum cache_type table(enum cache_type entry, enum cache_type memory)
{
    bool cached = memory != CACHE_UC && memory != CACHE_WC;

    switch (entry) {
    case CACHE_UC_MINUS:
        return memory == CACHE_WC || memory == CACHE_WP ? CACHE_WC : CACHE_UC;
    case CACHE_WB:
        return memory;
    default: // WT, WP
        return cached ? entry : CACHE_UC;
    }
}

enum cache_type memtype_effective(enum memtype type, enum cache_type mtrr_type)
{
    enum cache_type entry = memtype_pat[type];

    return entry == CACHE_UC || entry == CACHE_WC ? entry : table(entry, mtrr_type);
}

enum cache_type memtype_range_effective(const struct mtrr *m, enum memtype type, uint64_t paddr,
                                        uint64_t bytes)
{
    enum cache_type first = memtype_effective(type, mtrr_type(m, paddr));
    uint64_t at = mtrr_next_change(m, paddr);

    while (at > paddr && at - paddr < bytes && at < m->limit) {
        if (memtype_effective(type, mtrr_type(m, at)) != first)
            return CACHE_MIXED;
        at = mtrr_next_change(m, at);
    }
    return first;
}

bool memtype_holds(const struct mtrr *m, enum memtype type, uint64_t paddr, uint64_t bytes)
{
    enum cache_type effective;

    if (!mtrr_active(m) || type == MEMTYPE_UC || type == MEMTYPE_WC)
        return true;
    effective = memtype_range_effective(m, type, paddr, bytes);
    return type == MEMTYPE_UCM ? effective != CACHE_MIXED : effective == memtype_pat[type];
}

const char *cache_type_name(enum cache_type type)
{
    static const char *const name[] = {
        [CACHE_UC] = "UC", [CACHE_WC] = "WC",        [CACHE_WT] = "WT",       [CACHE_WP] = "WP",
        [CACHE_WB] = "WB", [CACHE_UC_MINUS] = "UC-", [CACHE_MIXED] = "mixed",
    };

    return type < ARRAY_SIZE(name) && name[type] ? name[type] : "?";
}
