// SPDX-License-Identifier: BSD-2-Clause
// Start-up: boot maps of every quality, and that what mm_init() leaves behind is sound.
#include "tests/host/support.h"
#include "mm/table.h"

static uint64_t total_pages(unsigned kind)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < mm.region_count; i++)
        if (mm.region[i].kind == kind)
            pages += (mm.region[i].end - mm.region[i].start) >> PAGE_SHIFT;
    return pages;
}

// Each page's kind, by asking the tree, is that of the first function that claims it.
static void expect_kind(uint64_t start, uint64_t end, unsigned kind)
{
    for (uint64_t p = start; p < end; p += PAGE_SIZE) {
        frame_t *f = find_paddr_frame(PADDR(p));
        unsigned have = f ? f->kind : FRAME_NONE;

        if (have == FRAME_TABLE || have == FRAME_METADATA)
            have = FRAME_AVAILABLE;
        if (have != kind)
            test_fail(__FILE__, __LINE__, "0x%llx is %s, not %s", (unsigned long long)p,
                      frame_kind_name(have), frame_kind_name(kind));
    }
}

static void sound(void)
{
    SAME(mm_check(), 0);
    SAME(mm.magic, MM_MAGIC);
    SAME(machine.cr3, kernel_space()->cr3);
    CHECK(mm_free_pages() <= total_pages(FRAME_AVAILABLE));
}

static void usual(void)
{
    static const uint64_t ram[] = {5 * MIB, 16 * MIB, 128 * MIB, 1 * GIB, 3 * GIB};

    for (unsigned i = 0; i < ARRAY_SIZE(ram); i++)
        for (unsigned levels = 4; levels <= 5; levels++)
            for (unsigned has_1g = 0; has_1g < 2; has_1g++) {
                machine_reset();
                machine_usual(ram[i]);
                machine.levels = levels;
                machine.has_1g = has_1g;
                machine_start();
                sound();
                expect_kind(0, 0x9f000, FRAME_LOW);
                expect_kind(0x9f000, 0xa0000, FRAME_RESERVED);
                expect_kind(0xa0000, 0xf0000, FRAME_NONE);
                expect_kind(0x100000, 0x102000, FRAME_IMAGE);
                expect_kind(0x130000, 0x131000, FRAME_BOOT);
                expect_kind(0x131000, 0x132000, FRAME_AVAILABLE);
                expect_kind(0x132000, 0x135000, FRAME_BOOT);
                expect_kind(0x135000, 0x400000, FRAME_AVAILABLE);
                expect_kind(ram[i] - 0x20000, ram[i], FRAME_ACPI);
                CHECK(machine_said("is not page-aligned"));
            }
}

static void high(void)
{
    machine_reset();
    machine.phys_bits = 46;
    machine_usual(64 * MIB);
    machine_map(4 * GIB, 12 * GIB, BOOT_MEM_AVAILABLE);
    machine_map(3 * TIB, 2 * GIB, BOOT_MEM_AVAILABLE);
    machine_start();
    sound();
    expect_kind(4 * GIB, 4 * GIB + MIB, FRAME_AVAILABLE);
    expect_kind(16 * GIB - MIB, 16 * GIB, FRAME_AVAILABLE);
    expect_kind(3 * TIB + GIB, 3 * TIB + GIB + MIB, FRAME_AVAILABLE);
    SAME(mm_free_blocks(ORDER_1G), 14);
    SAME(total_pages(FRAME_AVAILABLE) - mm_free_pages() < 400, 1);
}

static void unsorted(void)
{
    machine_reset();
    machine_map(0x2000000, 0x1000000, BOOT_MEM_AVAILABLE);
    machine_map(0x800000, 0x800000, BOOT_MEM_AVAILABLE);
    machine_map(0x1800000, 0, BOOT_MEM_AVAILABLE);
    machine_map(0x1000000, 0x1000000, BOOT_MEM_AVAILABLE);
    machine_start();
    sound();
    CHECK(machine_said("out of order"));
    CHECK(machine_said("is empty"));
    CHECK(!machine_said("overlaps"));
    expect_kind(0x800000, 0x3000000, FRAME_AVAILABLE);
    expect_kind(0, 0x800000, FRAME_NONE);
    SAME(total_pages(FRAME_AVAILABLE), 0x2800);
}

static void overlaps(void)
{
    machine_reset();
    machine_map(0, 0x2000000, BOOT_MEM_AVAILABLE);
    machine_map(0x1000000, 0x3000000, BOOT_MEM_AVAILABLE);
    machine_map(0x1800000, 0x10000, BOOT_MEM_RESERVED);
    machine_map(0x1808000, 0x10000, BOOT_MEM_ACPI);
    machine_map(0x1810000, 0x10000, BOOT_MEM_NVS);
    machine_map(0x1818000, 0x10000, BOOT_MEM_BAD);
    machine_map(0x1800000, 0x1000, 77);
    machine_map(0x2000000, 0x1000000, BOOT_MEM_AVAILABLE);
    machine_start();
    sound();
    CHECK(machine_said("overlaps"));
    expect_kind(0x1700000, 0x1800000, FRAME_AVAILABLE);
    expect_kind(0x1800000, 0x1808000, FRAME_RESERVED);
    expect_kind(0x1808000, 0x1810000, FRAME_ACPI);
    expect_kind(0x1810000, 0x1818000, FRAME_NVS);
    expect_kind(0x1818000, 0x1828000, FRAME_BAD);
    expect_kind(0x1828000, 0x4000000, FRAME_AVAILABLE);
}

static void unaligned(void)
{
    machine_reset();
    machine_map(0x400000, 0x1000000, BOOT_MEM_AVAILABLE);
    machine_map(0x1400001, 0x1ffe, BOOT_MEM_AVAILABLE);
    machine_map(0x1402fff, 0x2, BOOT_MEM_AVAILABLE);
    machine_map(0x1500010, 0x10, BOOT_MEM_RESERVED);
    machine_map(0x1600800, 0x2000, BOOT_MEM_AVAILABLE);
    machine_map(0x1602800, 0x2000, BOOT_MEM_AVAILABLE);
    machine_start();
    sound();
    CHECK(machine_said("not page-aligned"));
    expect_kind(0x1400000, 0x1404000, FRAME_RESERVED);
    expect_kind(0x1500000, 0x1501000, FRAME_RESERVED);
    expect_kind(0x1600000, 0x1601000, FRAME_RESERVED);
    expect_kind(0x1601000, 0x1602000, FRAME_AVAILABLE);
    expect_kind(0x1603000, 0x1604000, FRAME_AVAILABLE);
    expect_kind(0x1604000, 0x1605000, FRAME_RESERVED);
}

// Ends that wrap, starts beyond what the CPU can address: nothing of them may become memory.
static void wrapping(void)
{
    static const uint32_t types[] = {BOOT_MEM_AVAILABLE, BOOT_MEM_RESERVED, BOOT_MEM_BAD};

    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        machine_reset();
        machine.phys_bits = 36;
        machine_map(0x400000, 0x1000000, BOOT_MEM_AVAILABLE);
        machine_map(UINT64_MAX - 7, 4, types[i]);
        machine_map(UINT64_MAX - 7, 0x100000, types[i]);
        machine_map(UINT64_MAX - 0xfff, 0x1000, types[i]);
        machine_map(UINT64_MAX, UINT64_MAX, types[i]);
        machine_map(64 * GIB, GIB, types[i]);
        machine_map(1 * TIB + 5, UINT64_MAX - TIB, types[i]);
        machine_map(63 * GIB, 2 * GIB, types[i]);
        machine_map(62 * GIB, UINT64_MAX, types[i]);
        machine_start();
        sound();
        CHECK(machine_said("cut"));
        SAME(mm.region[mm.region_count - 1].end, 64 * GIB);
        expect_kind(0x1400000, 0x1500000, FRAME_NONE);
        expect_kind(61 * GIB, 61 * GIB + MIB, FRAME_NONE);
        CHECK(find_paddr_frame(PADDR(64 * GIB)) == NULL);
        SAME(total_pages(FRAME_AVAILABLE), 0x1000 + (i ? 0 : 2 * GIB / PAGE_SIZE));
    }
}

static void entries_256(void)
{
    machine_reset();
    machine_map(0x1000000, 0x2000000, BOOT_MEM_AVAILABLE);
    for (unsigned i = 1; i < BOOT_MEM_MAX; i++)
        machine_map(0x4000000 + (i * 37 % 256) * 0x8000 + 0x123, 0x5001, 1 + i % 5);
    machine_start();
    sound();
    SAME(machine.info.mem_count, BOOT_MEM_MAX);
}

static void entries_256_overlapping(void)
{
    machine_reset();
    for (unsigned i = 0; i < BOOT_MEM_MAX; i++)
        machine_map(0x1000 * i + 0x10, 0x2000000 + 0x10000 * i, BOOT_MEM_AVAILABLE);
    machine_start();
    sound();
    expect_kind(0x100000, 0x2000000, FRAME_AVAILABLE);
}

static void none(void)
{
    machine_reset();
    CHECK(panics(machine_start));
    machine_reset();
    machine_map(0x100000, 0x180000, BOOT_MEM_AVAILABLE);
    CHECK(panics(machine_start));
    machine_reset();
    machine_map(0x200000, 0x200000, BOOT_MEM_RESERVED);
    CHECK(panics(machine_start));
}

// The least that works: one 2M block.
static void least(void)
{
    frame_t *f;

    machine_reset();
    machine_map(0x200000, 0x200000, BOOT_MEM_AVAILABLE);
    machine_start();
    sound();
    OK(get_frame(0, &f));
    OK(put_frame(f));
}

static void metadata_small(void)
{
    uint64_t pages[2];

    for (unsigned i = 0; i < 2; i++) {
        machine_boot(i ? 3 * GIB : 64 * MIB);
        pages[i] = total_pages(FRAME_AVAILABLE) - mm_free_pages();
    }
    CHECK(pages[1] <= pages[0] + 8);
}

// mm_check() sees a part of the image that is of another kind, its region and its frames alike.
static void image_kind(void)
{
    machine_boot(64 * MIB);
    SAME(mm_check(), 0);
    for (unsigned i = 0; i < mm.region_count; i++) {
        struct region *r = &mm.region[i];

        if (r->kind != FRAME_BSS)
            continue;
        r->kind = FRAME_DATA;
        for (uint64_t p = r->start; p < r->end; p += PAGE_SIZE)
            find_paddr_frame(PADDR(p))->kind = FRAME_DATA;
    }
    CHECK(mm_check() > 0);
    CHECK(machine_said("A6"));
}

// mm_check() sees the first descriptors mapped writable, where record and entry agree.
static void metadata_writable(void)
{
    struct pt_walk w;
    frame_t *f;

    machine_boot(32 * MIB);
    f = find_kern_va_frame((void *)mm.arena[ARENA_FRAMES].base);
    OK(vmap_4k(NULL, VADDR(VA_VMAP), f, VATTR_R));
    SAME(mm_check(), 0);
    pt_walk(kernel_space(), VADDR(VA_VMAP), 1, &w);
    mapping_at(w.shadow)->attr |= VATTR_W;
    table_entries(w.slot)[w.index] |= PG_W;
    CHECK(mm_check() > 0);
    CHECK(machine_said("T4"));
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"boot_usual", usual},
        {"boot_high_memory", high},
        {"boot_unsorted", unsorted},
        {"boot_overlaps", overlaps},
        {"boot_unaligned", unaligned},
        {"boot_wrapping", wrapping},
        {"boot_256_entries", entries_256},
        {"boot_256_overlapping", entries_256_overlapping},
        {"boot_no_memory", none},
        {"boot_least_memory", least},
        {"boot_metadata_small", metadata_small},
        {"boot_image_kind", image_kind},
        {"boot_metadata_writable", metadata_writable},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
