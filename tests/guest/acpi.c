// SPDX-License-Identifier: BSD-2-Clause
// Tests: ACPI's tree and routing are printed and make sense; stopped, it leaves nothing behind, and
// starts again.
#include "tests/guest/acpi.h"

#include <acpi/acpi.h>

#include "acpi/ktf_acpi.h"
#include "mm/kmalloc/kmalloc.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/test.h"

enum {
    ROOT_DEVICES = 32,
    PINS = 4,
    PCI_VENDOR = 0,
    PCI_PIN = 0x3d,
    PCI_NOBODY = 0xffff,
    GSI_MAX = 64,
    RESTARTS = 2,
};

/* --- nothing is left behind ------------------------------------------------------------------- */

// What must be as before the start once ACPI is stopped.
struct counts {
    uint32_t free[ORDER_COUNT], used[ORDER_COUNT];
    uint64_t tables;
    uint64_t records;
    uint64_t objects, object_pages;
};

static uint64_t records_used(void)
{
    const struct arena *a = &mm.arena[ARENA_MAPPINGS];
    uint64_t used = 0;

    for (uint32_t i = 0; i < a->pages; i++)
        used += ((const struct arena_page *)(uintptr_t)(a->base + i * PAGE_SIZE))->used;
    return used - mm.records.count;
}

static struct counts counts_now(void)
{
    struct counts c;

    mm_trim(); // what arenas hold in stock depends on what went before
    for (unsigned order = 0; order < ORDER_COUNT; order++) {
        c.free[order] = mm_free_blocks(order);
        c.used[order] = mm_used_blocks(order);
    }
    c.tables = kernel_space()->tables;
    c.records = records_used();
    c.objects = kmalloc_usage().objects;
    c.object_pages = kmalloc_usage().pages;
    return c;
}

static void same_counts(const struct counts *before, const struct counts *after)
{
    for (unsigned order = 0; order < ORDER_COUNT; order++) {
        CHECK_EQ(after->free[order], before->free[order]);
        CHECK_EQ(after->used[order], before->used[order]);
    }
    CHECK_EQ(after->tables, before->tables);
    CHECK_EQ(after->records, before->records);
    CHECK_EQ(after->objects, before->objects);
    CHECK_EQ(after->object_pages, before->object_pages);
}

static struct counts stopped; // at the beginning of the test

bool acpi_test_need(void)
{
    if (ktf_acpi_running())
        return true;
    ktf_acpi_start();
    if (!ktf_acpi_running())
        guest_test_failed(__FILE__, __LINE__, "ACPI starts");
    return false;
}

bool acpi_test_begin(void)
{
    bool ran = ktf_acpi_running();

    guest_test_rebuilt();
    if (ran)
        ktf_acpi_stop();
    stopped = counts_now();
    (void)acpi_test_need();
    return ran;
}

void acpi_test_end(bool ran)
{
    struct counts now;

    ktf_acpi_stop();
    now = counts_now();
    same_counts(&stopped, &now);
    if (ran)
        ktf_acpi_start();
}

uint32_t acpi_refs(uint64_t paddr)
{
    struct vlookup at;

    if (vmap_lookup(NULL, VADDR(VA_ACPI + ROUND_DOWN(paddr, PAGE_SIZE)), &at))
        return 0;
    return ((at.frame->mfn + at.offset) << PAGE_SHIFT) == ROUND_DOWN(paddr, PAGE_SIZE) ? at.refs
                                                                                       : UINT32_MAX;
}

/* --- what it knows of the machine ------------------------------------------------------------- */

static uint64_t pci_read(uint16_t device, uint32_t reg, uint32_t width)
{
    struct acpi_pci_id id = {.device = device};
    uint64_t value;

    return ACPI_SUCCESS(acpi_os_read_pci_configuration(&id, reg, &value, width)) ? value
                                                                                 : UINT64_MAX;
}

// Each pin of each device that is there goes to an interrupt, and the SCI's pin to the SCI.
static void check_pins(void)
{
    for (uint16_t device = 0; device < ROOT_DEVICES; device++) {
        uint64_t pin;

        if (pci_read(device, PCI_VENDOR, 16) == PCI_NOBODY)
            continue;
        pin = pci_read(device, PCI_PIN, 8);
        CHECK(pin <= PINS);
        if (pin)
            CHECK(ktf_acpi_route(device, (uint32_t)pin - 1) < GSI_MAX);
    }
    CHECK_EQ(ktf_acpi_route(ROOT_DEVICES, 0), ACPI_NO_GSI);
}

// A table that ACPICA has mapped, twice more. tests/gdb/guest/acpi_inside.py watches.
static __attribute__((noinline)) void acpi_map_twice(const void *table, uint64_t paddr)
{
    uint32_t refs = acpi_refs(paddr);
    void *a = acpi_os_map_memory(paddr, 1), *b = acpi_os_map_memory(paddr, 1);

    CHECK(a == table && b == table);
    CHECK_EQ(acpi_refs(paddr), refs + 2);
    acpi_os_unmap_memory(a, 1);
    acpi_os_unmap_memory(b, 1);
    CHECK_EQ(acpi_refs(paddr), refs);
}

static void map_dsdt_twice(void)
{
    struct acpi_table_header *dsdt;
    acpi_physical_address paddr;

    CHECK_EQ(acpi_get_table(ACPI_SIG_DSDT, 1, &dsdt), AE_OK);
    CHECK_EQ(acpi_os_get_physical_address(dsdt, &paddr), AE_OK);
    acpi_map_twice(dsdt, paddr);
    acpi_put_table(dsdt);
}

GUEST_TEST(acpi)
{
    bool ran = acpi_test_begin();
    uint32_t entries;

    CHECK(ktf_acpi_print_devices() > 5);
    entries = ktf_acpi_print_routing();
    CHECK(entries > 0 && entries % PINS == 0);
    check_pins();
    map_dsdt_twice();
    acpi_test_end(ran);
}

/* --- taken down and started again ------------------------------------------------------------- */

GUEST_TEST(acpi_restart)
{
    bool ran = ktf_acpi_running();
    struct counts before, after;
    uint32_t mark;

    guest_test_rebuilt();
    if (ran)
        ktf_acpi_stop();
    before = counts_now();
    mark = kmalloc_mark();
    for (unsigned i = 0; i < RESTARTS; i++) {
        ktf_acpi_start();
        CHECK(ktf_acpi_running());
        CHECK(counts_now().records > before.records);
        CHECK(counts_now().objects > before.objects);
        ktf_acpi_stop();
        CHECK(!ktf_acpi_running());
        after = counts_now();
        printk("  stopped: %lu objects, %lu mapping records, %lu tables\n", after.objects,
               after.records, after.tables);
        if (after.objects != before.objects)
            kmalloc_leaks(mark);
        same_counts(&before, &after);
    }
    if (ran)
        ktf_acpi_start();
    CHECK_EQ(ktf_acpi_running(), ran);
}
