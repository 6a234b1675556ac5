// SPDX-License-Identifier: BSD-2-Clause
// The benchmark's ACPI: mapping and unmapping a page as ACPICA asks for it, while others are
// mapped.
#include <acpi/acpi.h>

#include "lib/panic.h"
#include "tests/guest/bench.h"

enum {
    OTHERS_MAX = 1000,
    BORDER = PAGE_SIZE - 0x10, // 0x24 bytes from there on are of two pages
    BORDER_BYTES = 0x24,
    DEVICE = 0xfed00000, // outside the boot map
};

static frame_t *other[OTHERS_MAX];

// ACPICA itself is not up (acpi=off), so that nothing is mapped but what is counted here.
static always_inline void map_unmap(acpi_physical_address at, acpi_size length)
{
    void *p = acpi_os_map_memory(at, length);

    if (unlikely(!p))
        panic("bench: 0x%lx can't be mapped", at);
    acpi_os_unmap_memory(p, length);
}

static void measure(const char *key, acpi_physical_address at)
{
    uint64_t ticks = 0;

    BENCH_LOOP(ticks, i, BENCH_MIN, map_unmap(at, PAGE_SIZE));
    bench_say(key, ticks, BENCH_MIN);
}

// The firmware's tables lie in the first region behind the first MiB that is not available.
static frame_t *firmware_block(void)
{
    for (unsigned i = 0; i < mm.region_count; i++) {
        const struct region *r = &mm.region[i];

        if (r->start > 1 << 20 && (r->kind == FRAME_RESERVED || r->kind == FRAME_ACPI))
            return find_paddr_frame(PADDR(r->start));
    }
    panic("bench: no memory of the firmware");
}

static void with_others(acpi_physical_address at)
{
    static const unsigned counts[] = {0, 100, 1000};
    unsigned others = 0;
    char key[40];

    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        for (; others < counts[i]; others++)
            if (!acpi_os_map_memory(frame_paddr(other[others]).v, PAGE_SIZE))
                panic("bench: page %u can't be mapped", others);
        snprintk(key, sizeof(key), "acpi_map_unmap[%u]", others);
        measure(key, at);
    }
    measure("acpi_map_unmap_again", frame_paddr(other[0]).v);
    while (others--)
        acpi_os_unmap_memory(vaddr_ptr(VADDR(VA_ACPI + frame_paddr(other[others]).v)), PAGE_SIZE);
}

// One of the others whose page table is not that address's, and is the next one's as well.
static unsigned elsewhere(acpi_physical_address at)
{
    for (unsigned i = 0; i + 1 < OTHERS_MAX; i++) {
        uint64_t pa = frame_paddr(other[i]).v;

        if ((pa ^ at) >> 21 && !((pa ^ frame_paddr(other[i + 1]).v) >> 21))
            return i;
    }
    panic("bench: no page tables to stay");
}

// A page border crossed, the second page being mapped already, or not; a device's page, its page
// table standing; pages of two tables in turns.
static void other_ways(acpi_physical_address block)
{
    unsigned i_far = elsewhere(block);
    acpi_physical_address far = frame_paddr(other[i_far]).v;
    void *device = acpi_os_map_memory(DEVICE + PAGE_SIZE, 1);
    void *away = acpi_os_map_memory(frame_paddr(other[i_far + 1]).v, 1);
    uint64_t border = 0, both = 0, alone = 0, turns = 0;

    if (!device || !away)
        panic("bench: no pages to keep their tables");
    BENCH_LOOP(border, i, BENCH_MIN, map_unmap(block + BORDER, BORDER_BYTES));
    BENCH_LOOP(both, i, BENCH_MIN, map_unmap(block + 2 * PAGE_SIZE + BORDER, BORDER_BYTES));
    BENCH_LOOP(alone, i, BENCH_MIN, map_unmap(DEVICE, PAGE_SIZE));
    BENCH_LOOP(turns, i, BENCH_MIN, {
        map_unmap(block, PAGE_SIZE);
        map_unmap(far, PAGE_SIZE);
    });
    bench_say("acpi_map_unmap_border", border, BENCH_MIN);
    bench_say("acpi_map_unmap_two_pages", both, BENCH_MIN);
    bench_say("acpi_map_unmap_device", alone, BENCH_MIN);
    bench_say("acpi_map_unmap_turns", turns, 2 * BENCH_MIN);
    acpi_os_unmap_memory(device, 1);
    acpi_os_unmap_memory(away, 1);
}

// A page of the block that holds the firmware's tables, which is what ACPICA maps most. As for the
// other figures the page table stands: by a mapping next to it, which is not ACPI's. Without it
// (acpi_map_unmap_alone) three tables come and go.
void bench_acpi(void)
{
    frame_t *block = firmware_block();
    acpi_physical_address at = frame_paddr(block).v;
    vaddr_t beside = VADDR(VA_ACPI + at + PAGE_SIZE);

    for (unsigned i = 0; i < OTHERS_MAX; i++)
        other[i] = bench_get(ORDER_4K);
    measure("acpi_map_unmap_alone", at);
    bench_check(vmap_part(NULL, beside, block, 1, ORDER_4K, VATTR_W), "a page beside");
    with_others(at);
    other_ways(at);
    bench_check(vunmap_part(NULL, beside, block, 1, ORDER_4K), "a page beside");
    for (unsigned i = 0; i < OTHERS_MAX; i++)
        put_frame(other[i]);
}
