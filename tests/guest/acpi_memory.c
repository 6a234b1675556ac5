// SPDX-License-Identifier: BSD-2-Clause
// Tests: AcpiOsMapMemory() and AcpiOsUnmapMemory() count, page by page, what callers hold, whoever
// they are.
#include <acpi/acpi.h>

#include "acpi/osl.h"
#include "arch/x86/layout.h"
#include "arch/x86/memtype.h"
#include "arch/x86/probe.h"
#include "lib/string.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/acpi.h"
#include "tests/guest/test.h"

static uint8_t *at_va(uint64_t paddr)
{
    return vaddr_ptr(VADDR(VA_ACPI + paddr));
}

static bool readable(uint64_t paddr)
{
    uint64_t unused;

    return probe_read(VADDR(VA_ACPI + paddr), &unused) == 0;
}

/* --- two pieces of one page ------------------------------------------------------------------- */

enum {
    PIECE_A = 0x00,
    PIECE_B = 0x40,
    PIECE = 0x20,
};

// The one that is left can be read, and is as it was; then nothing is mapped any more.
static void unmap_two(uint64_t page, uint64_t first, uint64_t second)
{
    const frame_t *frame = find_paddr_frame(PADDR(page));
    uint32_t mapped = frame->mapcount;
    uint8_t *a = acpi_os_map_memory(page + first, PIECE);
    uint8_t *b = acpi_os_map_memory(page + second, PIECE);

    CHECK(a == at_va(page + first) && b == at_va(page + second));
    CHECK_EQ(acpi_refs(page), 2);
    CHECK_EQ(frame->mapcount, mapped + 2);
    CHECK_EQ(acpi_refs(page + PAGE_SIZE), 0);
    *b = 0x5a;
    acpi_os_unmap_memory(a, PIECE);
    CHECK_EQ(acpi_refs(page), 1);
    CHECK(readable(page + second));
    CHECK_EQ(*b, 0x5a);
    acpi_os_unmap_memory(b, PIECE);
    CHECK_EQ(acpi_refs(page), 0);
    CHECK_EQ(frame->mapcount, mapped);
    CHECK(!readable(page) && !acpi_os_readable(b, PIECE));
}

static void unmap_both_orders(frame_t *frame, uint64_t page)
{
    uint64_t paddr = frame_paddr(frame).v + page * PAGE_SIZE;

    unmap_two(paddr, PIECE_A, PIECE_B);
    unmap_two(paddr, PIECE_B, PIECE_A);
}

GUEST_TEST(acpi_two_maps)
{
    frame_t *small, *large;

    CHECK_EQ(get_frame(ORDER_4K, &small), 0);
    CHECK_EQ(get_frame(3, &large), 0);
    unmap_both_orders(small, 0);
    unmap_both_orders(large, 0);
    unmap_both_orders(large, 5);
    CHECK_EQ(put_frame(small), 0);
    CHECK_EQ(put_frame(large), 0);
}

// Another owner's mapping of the frame, at its own address, is none of ACPI's.
GUEST_TEST(acpi_other_owner)
{
    vaddr_t va = VADDR(VA_VMAP + 0x3900000000);
    frame_t *frame;
    uint64_t value;
    void *p;

    CHECK_EQ(get_frame(ORDER_4K, &frame), 0);
    CHECK_EQ(vmap_kern(va, frame, VATTR_W), 0);
    CHECK_EQ(probe_write(va, 42), 0);
    p = acpi_os_map_memory(frame_paddr(frame).v, PAGE_SIZE);
    CHECK(p && frame->mapcount == 2);
    CHECK_EQ(acpi_refs(frame_paddr(frame).v + PAGE_SIZE), 0); // an aligned page is one page
    acpi_os_unmap_memory(p, PAGE_SIZE);
    CHECK_EQ(frame->mapcount, 1);
    CHECK_EQ(probe_read(va, &value), 0);
    CHECK_EQ(value, 42);
    CHECK_EQ(vput(NULL, va, frame), 0);
    CHECK_EQ(put_frame(frame), 0);
}

// Reserved memory that is not mapped, and that the MTRRs make write-back or uncached throughout.
static const frame_t *reserved_frame(enum cache_type type)
{
    for (unsigned i = 0; i < mm.region_count; i++) {
        const frame_t *frame = find_paddr_frame(PADDR(mm.region[i].start));

        if (frame && frame->kind == FRAME_RESERVED && !frame->mapcount &&
            mtrr_range_type(&mtrr, frame_paddr(frame).v, frame_pages(frame) << PAGE_SHIFT) == type)
            return frame;
    }
    return NULL;
}

// ACPI maps the frame's last page so. For the fast path there is a page table, and a record in the
// cache, by a mapping of another frame: a second one of this frame would settle the type.
static void mapped_as(const frame_t *frame, unsigned attr)
{
    uint64_t paddr = frame_paddr(frame).v + ((frame_pages(frame) - 1) << PAGE_SHIFT);
    vaddr_t beside = VADDR(VA_ACPI + (paddr ^ 1 << 20));
    struct vlookup at;
    frame_t *own;
    void *p;

    CHECK_EQ(get_frame(ORDER_4K, &own), 0);
    CHECK_EQ(vmap_kern_4k(beside, own, VATTR_W), 0);
    p = acpi_os_map_memory(paddr + 0x20, 0x40);
    CHECK(p == at_va(paddr + 0x20));
    CHECK_EQ(vmap_lookup(NULL, ptr_vaddr(p), &at), 0);
    CHECK_EQ(at.attr, attr);
    CHECK_EQ(mm_check(), 0);
    acpi_os_unmap_memory(p, 0x40);
    CHECK_EQ(acpi_refs(paddr), 0);
    CHECK_EQ(vput(NULL, beside, own), 0);
    CHECK_EQ(put_frame(own), 0);
}

// Each page is mapped as what it is: what the MTRRs say, except for devices that only ACPI knows.
GUEST_TEST(acpi_types)
{
    const frame_t *memory = reserved_frame(CACHE_WB), *device = reserved_frame(CACHE_UC);
    uint64_t start;

    CHECK(memory && (device || !mtrr_active(&mtrr)));
    osl_pci_fini();
    osl_uncached_clear(); // PCI's registers are such a device
    if (device)
        mapped_as(device, VATTR_W | VATTR_UC);
    mapped_as(memory, VATTR_W);
    start = frame_paddr(memory).v;
    osl_uncached_add(PADDR(start), PADDR(start + (frame_pages(memory) << PAGE_SHIFT)));
    mapped_as(memory, VATTR_W | VATTR_UC);
    osl_uncached_clear();
    mapped_as(memory, VATTR_W);
    if (ktf_acpi_running())
        osl_pci_init();
}

/* --- what can't be done ----------------------------------------------------------------------- */

// Each is refused, and reported; what is mapped stays as it is: page 1 of `page`, twice.
static void refuse(uint64_t page)
{
    uint8_t *p = at_va(page);

    CHECK_EQ(osl_unmap(p, PAGE_SIZE), -ENOENT);
    CHECK_EQ(osl_unmap(p, 2 * PAGE_SIZE), -ENOENT);             // the first is not
    CHECK_EQ(osl_unmap(p + PAGE_SIZE, PAGE_SIZE + 1), -ENOENT); // the last is not
    CHECK_EQ(osl_unmap(p + PAGE_SIZE + 8, PAGE_SIZE), -ENOENT); // it crosses
    CHECK_EQ(osl_unmap(p + PAGE_SIZE, 0), -EINVAL);
    CHECK_EQ(osl_unmap(p + PAGE_SIZE, UINT64_MAX), -EBEYOND);
    CHECK_EQ(osl_unmap(p + PAGE_SIZE, UINT64_MAX - (uintptr_t)p), -EBEYOND);
    CHECK_EQ(osl_unmap(NULL, PAGE_SIZE), -EBEYOND);
    CHECK_EQ(osl_unmap(vaddr_ptr(VADDR(VA_ACPI - 1)), 2), -EBEYOND);
    CHECK_EQ(osl_unmap(vaddr_ptr(VADDR(VA_ACPI + ACPI_PHYS_LIMIT)), 1), -EBEYOND);
    CHECK(!acpi_os_map_memory(page, 0));
    CHECK(!acpi_os_map_memory(page, UINT64_MAX));
    CHECK(!acpi_os_map_memory(UINT64_MAX, 2));
    CHECK(!acpi_os_map_memory(ACPI_PHYS_LIMIT - 1, 2));
    acpi_os_unmap_memory(p, PAGE_SIZE);
    CHECK_EQ(acpi_refs(page), 0);
    CHECK_EQ(acpi_refs(page + PAGE_SIZE), 2);
    CHECK_EQ(acpi_refs(page + 2 * PAGE_SIZE), 0);
}

GUEST_TEST(acpi_bad_input)
{
    frame_t *frame;
    uint64_t page;
    void *p;

    CHECK_EQ(get_frame(2, &frame), 0);
    page = frame_paddr(frame).v;
    p = acpi_os_map_memory(page + PAGE_SIZE, 1);
    CHECK(p && acpi_os_map_memory(page + 2 * PAGE_SIZE - 1, 1));
    refuse(page);
    acpi_os_unmap_memory(p, 1);
    acpi_os_unmap_memory(p, PAGE_SIZE);
    CHECK_EQ(frame->mapcount, 0);
    CHECK_EQ(put_frame(frame), 0);
    // A free page can't be mapped, nor what leads into one; nothing of it stays.
    CHECK(!acpi_os_map_memory(page, 8));
    CHECK_EQ(acpi_refs(page), 0);
}

static bool next_is_free(const frame_t *frame)
{
    const frame_t *next = find_mfn_frame(MFN(frame->mfn + 1));

    return next && frame_is_free(next);
}

// The second page of two belongs to nobody, or has become a page table meanwhile: the first one is
// not left mapped.
GUEST_TEST(acpi_half_way)
{
    frame_t *held[32];
    unsigned n = 0;

    do
        CHECK_EQ(get_frame(ORDER_4K, &held[n]), 0);
    while (!next_is_free(held[n++]) && n < ARRAY_SIZE(held));
    CHECK(next_is_free(held[n - 1]));
    CHECK(!acpi_os_map_memory(frame_paddr(held[n - 1]).v, PAGE_SIZE + 1));
    CHECK_EQ(acpi_refs(frame_paddr(held[n - 1]).v), 0);
    while (n)
        CHECK_EQ(put_frame(held[--n]), 0);
}
