// SPDX-License-Identifier: BSD-2-Clause
// Memory types: what the MTRRs say of an address, what PAT and MTRRs make of it, and what mm/ makes
// of that.
#include "arch/x86/memtype.h"
#include "tests/host/support.h"

#define AT VADDR(VA_VMAP)

// What a firmware leaves on a machine with RAM below 2 GiB: all is write-back but the legacy hole,
// the ROM and the GiBs below 4 GiB.
static void usual_mtrrs(void)
{
    mtrr = (struct mtrr){
        .cap = MTRR_CAP_FIXED | 8,
        .def_type = MTRR_DEF_ENABLE | MTRR_DEF_FIXED | CACHE_WB,
        .base = {2 * GIB | CACHE_UC},
        .mask = {((TIB - 1) & ~(2 * GIB - 1)) | MTRR_MASK_VALID},
        .limit = TIB,
        .count = 8,
    };
    for (unsigned i = 0; i < MTRR_FIXED_COUNT; i++)
        mtrr.fixed[i] = i == 2  ? 0 // 0xa0000 to 0xbffff
                        : i > 2 ? UINT64_C(0x0505050505050505)
                                : UINT64_C(0x0606060606060606);
}

static void range(unsigned i, uint64_t base, uint64_t size, enum cache_type type)
{
    mtrr.base[i] = base | type;
    mtrr.mask[i] = ((mtrr.limit - 1) & ~(size - 1)) | MTRR_MASK_VALID;
}

// SDM vol. 3, table 12-7.
static void effective(void)
{
    static const enum cache_type mtrrs[] = {CACHE_UC, CACHE_WC, CACHE_WT, CACHE_WB, CACHE_WP};
    static const struct {
        enum memtype entry;
        enum cache_type want[5];
    } rows[] = {
        {MEMTYPE_UC, {CACHE_UC, CACHE_UC, CACHE_UC, CACHE_UC, CACHE_UC}},
        {MEMTYPE_UCM, {CACHE_UC, CACHE_WC, CACHE_UC, CACHE_UC, CACHE_WC}},
        {MEMTYPE_WC, {CACHE_WC, CACHE_WC, CACHE_WC, CACHE_WC, CACHE_WC}},
        {MEMTYPE_WT, {CACHE_UC, CACHE_UC, CACHE_WT, CACHE_WT, CACHE_WT}},
        {MEMTYPE_WB, {CACHE_UC, CACHE_WC, CACHE_WT, CACHE_WB, CACHE_WP}},
        {MEMTYPE_WP, {CACHE_UC, CACHE_UC, CACHE_WP, CACHE_WP, CACHE_WP}},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        for (unsigned n = 0; n < ARRAY_SIZE(mtrrs); n++)
            SAME(memtype_effective(rows[i].entry, mtrrs[n]), rows[i].want[n]);
    SAME(pat_value(), UINT64_C(0x0007010500070406));
}

static void addresses(void)
{
    static const struct {
        uint64_t paddr;
        enum cache_type want;
        uint64_t next;
    } cases[] = {
        {0, CACHE_WB, 0x10000},           {0x7ffff, CACHE_WB, 0x80000},
        {0x9ffff, CACHE_WB, 0xa0000},     {0xa0000, CACHE_UC, 0xa4000},
        {0xbffff, CACHE_UC, 0xc0000},     {0xc0000, CACHE_WP, 0xc1000},
        {0xfffff, CACHE_WP, 0x100000},    {0x100000, CACHE_WB, 2 * GIB},
        {2 * GIB - 1, CACHE_WB, 2 * GIB}, {2 * GIB, CACHE_UC, 4 * GIB},
        {4 * GIB - 1, CACHE_UC, 4 * GIB}, {4 * GIB, CACHE_WB, TIB},
    };

    usual_mtrrs();
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        SAME(mtrr_type(&mtrr, cases[i].paddr), cases[i].want);
        SAME(mtrr_next_change(&mtrr, cases[i].paddr), cases[i].next);
    }
    mtrr.def_type &= ~(uint64_t)MTRR_DEF_FIXED;
    SAME(mtrr_type(&mtrr, 0xa0000), CACHE_WB);
    mtrr.def_type &= ~(uint64_t)MTRR_DEF_ENABLE;
    SAME(mtrr_type(&mtrr, 3 * GIB), CACHE_WB);
    CHECK(!mtrr_active(&mtrr));
}

static void overlaps(void)
{
    static const struct {
        enum cache_type a, b, want;
    } cases[] = {
        {CACHE_WB, CACHE_WB, CACHE_WB}, {CACHE_WB, CACHE_UC, CACHE_UC},
        {CACHE_UC, CACHE_WC, CACHE_UC}, {CACHE_WT, CACHE_WB, CACHE_WT},
        {CACHE_WB, CACHE_WT, CACHE_WT}, {CACHE_WC, CACHE_WB, CACHE_UC}, // not defined
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        usual_mtrrs();
        range(1, 8 * GIB, 2 * GIB, cases[i].a);
        range(2, 8 * GIB, GIB, cases[i].b);
        SAME(mtrr_type(&mtrr, 8 * GIB + 5), cases[i].want);
        SAME(mtrr_type(&mtrr, 9 * GIB), cases[i].a);
        SAME(mtrr_type(&mtrr, 10 * GIB), CACHE_WB);
        SAME(mtrr_next_change(&mtrr, 8 * GIB), 9 * GIB);
        SAME(mtrr_next_change(&mtrr, 9 * GIB), 10 * GIB);
    }
}

static void ranges(void)
{
    usual_mtrrs();
    SAME(mtrr_range_type(&mtrr, GIB, GIB), CACHE_WB);
    SAME(mtrr_range_type(&mtrr, GIB, GIB + PAGE_SIZE), CACHE_MIXED);
    SAME(mtrr_range_type(&mtrr, 2 * GIB, 2 * GIB), CACHE_UC);
    SAME(mtrr_range_type(&mtrr, 0, 2 * MIB), CACHE_MIXED);
    SAME(mtrr_range_type(&mtrr, 512 * GIB, 512 * GIB), CACHE_WB);
    SAME(memtype_range_effective(&mtrr, MEMTYPE_UC, 0, 4 * GIB), CACHE_UC);
    SAME(memtype_range_effective(&mtrr, MEMTYPE_WB, 0, 4 * GIB), CACHE_MIXED);
    CHECK(memtype_holds(&mtrr, MEMTYPE_WB, GIB, GIB));
    CHECK(!memtype_holds(&mtrr, MEMTYPE_WB, 3 * GIB, PAGE_SIZE));
    CHECK(!memtype_holds(&mtrr, MEMTYPE_WT, 3 * GIB, PAGE_SIZE));
    CHECK(memtype_holds(&mtrr, MEMTYPE_WC, 3 * GIB, PAGE_SIZE));
    CHECK(memtype_holds(&mtrr, MEMTYPE_UC, 0, 16 * GIB));
    CHECK(memtype_holds(&mtrr, MEMTYPE_WT, GIB, PAGE_SIZE));
    // A mask with a hole: every second GiB of 4.
    mtrr.base[1] = 16 * GIB | CACHE_UC;
    mtrr.mask[1] = ((TIB - 1) & ~(4 * GIB - 1)) | GIB | MTRR_MASK_VALID;
    SAME(mtrr_type(&mtrr, 16 * GIB), CACHE_UC);
    SAME(mtrr_type(&mtrr, 17 * GIB), CACHE_WB);
    SAME(mtrr_type(&mtrr, 18 * GIB), CACHE_UC);
    SAME(mtrr_range_type(&mtrr, 16 * GIB, 2 * GIB), CACHE_MIXED);
}

/* --- what mm/ makes of it --------------------------------------------------------------------- */

static unsigned type_at(vaddr_t va)
{
    struct vlookup at;

    OK(vmap_lookup(NULL, va, &at));
    return at.attr & VATTR_TYPE;
}

static void boot(void)
{
    machine_reset();
    machine.phys_bits = 40;
    machine_usual(32 * MIB);
    usual_mtrrs();
    machine_start();
}

static void defaults(void)
{
    frame_t *ram, *device, *rom, *low;

    boot();
    OK(get_frame(0, &ram));
    OK(get_device_frame(PADDR(3 * GIB), 9, &device));
    rom = find_paddr_frame(PADDR(0xf0000));
    low = find_paddr_frame(PADDR(0x1000));
    OK(vmap(NULL, AT, ram, VATTR_W));
    SAME(type_at(AT), 0);
    OK(vmap(NULL, AT, ram, VATTR_W | VATTR_WB)); // the same
    OK(vunmap(NULL, AT, ram));
    OK(vmap(NULL, AT, device, VATTR_W));
    SAME(type_at(AT), VATTR_UC);
    REFUSES(-EATTR, vmap(NULL, AT, device, VATTR_W | VATTR_WC));
    OK(vmap(NULL, AT, device, VATTR_W | VATTR_UC));
    OK(vprotect(NULL, AT, device, VATTR_R));
    SAME(type_at(AT), VATTR_UC);
    OK(vunmap(NULL, AT, device));
    OK(vmap(NULL, AT, device, VATTR_W | VATTR_WC));
    REFUSES(-ETYPE, vmap(NULL, VADDR(VA_VMAP + GIB), device, VATTR_W));
    OK(vunmap(NULL, AT, device));
    OK(vmap(NULL, AT, rom, VATTR_R));
    SAME(type_at(AT), VATTR_UC);
    OK(vunmap(NULL, AT, rom));
    OK(vmap(NULL, AT, low, VATTR_W));
    SAME(type_at(AT), 0);
    SAME(mm_check(), 0);
}

static void refusals(void)
{
    frame_t *device, *rom, *mixed;

    boot();
    range(1, 8 * GIB, MIB, CACHE_WC);
    OK(get_device_frame(PADDR(3 * GIB), 9, &device));
    OK(get_device_frame(PADDR(8 * GIB), 9, &mixed));
    rom = find_paddr_frame(PADDR(0xf0000));
    REFUSES(-ETYPE, vmap(NULL, AT, device, VATTR_WB));
    REFUSES(-ETYPE, vmap(NULL, AT, device, VATTR_WT)); // would be UC
    REFUSES(-ETYPE, vmap(NULL, AT, device, VATTR_WP));
    REFUSES(-EINVAL, vmap(NULL, AT, device, VATTR_WB | VATTR_WC));
    REFUSES(-ETYPE, vmap(NULL, AT, rom, VATTR_WB)); // would be WP
    REFUSES(-ETYPE, vmap_4k(NULL, AT, rom, VATTR_WB));
    OK(vmap(NULL, AT, rom, VATTR_WP));
    REFUSES(-ETYPE, vprotect(NULL, AT, rom, VATTR_WB));
    OK(vunmap(NULL, AT, rom));
    REFUSES(-ETYPE, vmap(NULL, AT, mixed, VATTR_UCM)); // WC in its lower half, UC in the upper
    REFUSES(-ETYPE, vmap(NULL, AT, mixed, VATTR_WT));
    OK(vmap_part(NULL, AT, mixed, 256, 8, VATTR_UCM));
    SAME(mm_check(), 0);
    OK(vunmap_part(NULL, AT, mixed, 256, 8));
    OK(vmap(NULL, AT, mixed, VATTR_WC));
    SAME(mm_check(), 0);
}

// mm_check() sees a type that the MTRRs change, however it came about.
static void checked(void)
{
    frame_t *frame;

    boot();
    OK(get_frame(3, &frame));
    OK(vmap(NULL, AT, frame, VATTR_W));
    SAME(mm_check(), 0);
    range(1, frame_paddr(frame).v, 2 * PAGE_SIZE, CACHE_UC);
    CHECK(mm_check() > 0);
    CHECK(machine_said("M2"));
}

// Memory that the MTRRs leave uncached is not handed out.
static void uncached_memory(void)
{
    machine_reset();
    machine.phys_bits = 40;
    machine_usual(32 * MIB);
    usual_mtrrs();
    range(1, 16 * MIB, 16 * MIB, CACHE_UC);
    machine_start();
    CHECK(machine_said("UC by the MTRRs, reserved"));
    SAME(find_paddr_frame(PADDR(16 * MIB))->kind, FRAME_RESERVED);
    SAME(find_paddr_frame(PADDR(16 * MIB - 1))->kind, FRAME_AVAILABLE);
    CHECK(mm_free_pages() < 16 * MIB / PAGE_SIZE);
    SAME(mm_check(), 0);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"memtype_effective", effective}, {"memtype_addresses", addresses},
        {"memtype_overlaps", overlaps},   {"memtype_ranges", ranges},
        {"memtype_defaults", defaults},   {"memtype_refusals", refusals},
        {"memtype_checked", checked},     {"memtype_uncached_memory", uncached_memory},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
