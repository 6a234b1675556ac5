// SPDX-License-Identifier: BSD-2-Clause
// Guest tests of frames and mappings that need the real MMU, or all of the machine's memory.
#include "mm/mm.h"

#include "arch/x86/layout.h"
#include "arch/x86/probe.h"
#include "kernel/traps.h"
#include "mm/vmap.h"
#include "tests/guest/test.h"

#define TEST_VA VA_VMAP

static vaddr_t page_va(uint64_t page)
{
    return VADDR(TEST_VA + page * PAGE_SIZE);
}

/* --- all of memory ---------------------------------------------------------------------------- */

// Takes every available frame, one page each, and maps it; how many.
static uint64_t take_all(void)
{
    uint64_t count = 0;
    frame_t *frame;

    while (get_frame(0, &frame) == 0) {
        if (vmap_kern(page_va(count), frame, VATTR_W)) {
            put_frame(frame);
            break;
        }
        *(volatile uint64_t *)vaddr_ptr(page_va(count)) = frame->mfn;
        count++;
    }
    return count;
}

// Visits 0 to count - 1 in a scattered order: a full-period generator modulo the next power of two.
static uint64_t next_scattered(uint64_t at, uint64_t count)
{
    uint64_t mask = 1;

    while (mask < count)
        mask *= 2;
    do {
        at = (at * 5 + 0x9e3779b9 * 2 + 1) & (mask - 1);
    } while (at >= count);
    return at;
}

// Half of the frames are put before they are unmapped, so that the unmapping frees them.
static bool give_back(uint64_t page)
{
    frame_t *frame = find_kern_va_frame(vaddr_ptr(page_va(page)));

    if (!frame || *(volatile uint64_t *)vaddr_ptr(page_va(page)) != frame->mfn)
        return false;
    if (page & 1)
        return put_frame(frame) == 0 && vunmap(NULL, page_va(page), frame) == 0;
    return vunmap(NULL, page_va(page), frame) == 0 && put_frame(frame) == 0;
}

GUEST_TEST(mm_all_memory)
{
    uint64_t count = take_all();
    uint64_t page = 0;

    printk("  %lu pages taken and mapped, %lu left\n", count, mm_free_pages());
    CHECK_EQ(mm_free_pages(), 0);
    CHECK_EQ(mm_check(), 0);
    for (uint64_t i = 0; i < count; i++) {
        page = next_scattered(page, count);
        CHECK(give_back(page));
    }
}

GUEST_TEST(mm_all_unmapped)
{
    frame_t *frame, *last = NULL;
    uint64_t count = 0;

    // A chain through the frames themselves would need mappings: each but the first is found by its
    // number.
    while (get_frame(0, &frame) == 0) {
        last = frame;
        count++;
    }
    CHECK(last);
    printk("  %lu pages taken, %lu left\n", count, mm_free_pages());
    CHECK_EQ(mm_free_pages(), 0);
    CHECK_EQ(get_frame(0, &frame), -ENOMEM);
    for (unsigned i = 0; i < mm.region_count; i++) {
        const struct region *r = &mm.region[i];

        for (uint64_t mfn = r->start >> PAGE_SHIFT; mfn < r->end >> PAGE_SHIFT;) {
            frame = find_mfn_frame(MFN(mfn));
            mfn = frame->mfn + frame_pages(frame);
            if (frame->kind == FRAME_AVAILABLE && frame->order == 0 && !frame->mapcount &&
                frame->refcount) {
                CHECK_EQ(put_frame(frame), 0);
                count--;
            }
        }
    }
    CHECK_EQ(count, 0);
}

/* --- what the CPU sees ------------------------------------------------------------------------ */

GUEST_TEST(mm_permissions)
{
    frame_t *frame;
    uint64_t value;

    CHECK_EQ(get_frame(0, &frame), 0);
    CHECK_EQ(vmap_kern(page_va(0), frame, VATTR_W), 0);
    CHECK_EQ(probe_write(page_va(0), 0xc3), 0); // a 'ret'
    CHECK_EQ(probe_exec(page_va(0)), -1);
    CHECK_EQ(vprotect(NULL, page_va(0), frame, VATTR_R), 0);
    CHECK_EQ(probe_write(page_va(0), 1), -1);
    CHECK_EQ(probe_last()->address, page_va(0).v);
    CHECK_EQ(vprotect(NULL, page_va(0), frame, VATTR_X), 0);
    CHECK_EQ(probe_exec(page_va(0)), 0);
    CHECK_EQ(probe_write(page_va(0), 1), -1);
    CHECK_EQ(vput(NULL, page_va(0), frame), 0);
    CHECK_EQ(probe_read(page_va(0), &value), -1);
    CHECK_EQ(put_frame(frame), 0);
}

GUEST_TEST(mm_aliases_show_one_frame)
{
    frame_t *frame;
    uint64_t value;

    CHECK_EQ(get_frame(0, &frame), 0);
    for (unsigned i = 0; i < 100; i++)
        CHECK_EQ(vmap_kern(page_va(i * 513), frame, i & 1 ? VATTR_W : VATTR_R), 0);
    CHECK_EQ(frame->mapcount, 100);
    CHECK_EQ(probe_write(page_va(513), 0x1234), 0);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(probe_read(page_va(i * 513), &value), 0);
        CHECK_EQ(value, 0x1234);
    }
    CHECK_EQ(put_frame(frame), 0);
    CHECK_EQ(mm_check(), 0);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(vput(NULL, page_va(i * 513), frame), 0);
        CHECK_EQ(probe_read(page_va(i * 513), &value), -1);
    }
}

// One page of a 2 MiB page is made read-only, then all is as before: the large page is back.
GUEST_TEST(mm_part_of_large_page)
{
    vaddr_t va = VADDR(TEST_VA + (2 << 20));
    struct vlookup at;
    frame_t *frame;

    CHECK_EQ(get_frame(ORDER_2M, &frame), 0);
    CHECK_EQ(vmap_kern(va, frame, VATTR_W), 0);
    CHECK_EQ(vmap_lookup(NULL, va, &at), 0);
    CHECK_EQ(at.level, 2);
    CHECK_EQ(vprotect_part(NULL, VADDR(va.v + 5 * PAGE_SIZE), frame, 5, 0, VATTR_R), 0);
    CHECK_EQ(probe_write(VADDR(va.v + 5 * PAGE_SIZE), 1), -1);
    CHECK_EQ(probe_write(VADDR(va.v + 4 * PAGE_SIZE), 1), 0);
    CHECK_EQ(probe_write(VADDR(va.v + 6 * PAGE_SIZE), 1), 0);
    CHECK_EQ(mm_check(), 0);
    CHECK_EQ(vprotect_part(NULL, VADDR(va.v + 5 * PAGE_SIZE), frame, 5, 0, VATTR_W), 0);
    CHECK_EQ(vmap_lookup(NULL, va, &at), 0);
    CHECK_EQ(at.level, 2);
    CHECK_EQ(frame->mapcount, 1);
    CHECK_EQ(vunmap_part(NULL, VADDR(va.v + 7 * PAGE_SIZE), frame, 7, 0), 0);
    CHECK_EQ(probe_write(VADDR(va.v + 7 * PAGE_SIZE), 1), -1);
    CHECK_EQ(probe_write(VADDR(va.v + 8 * PAGE_SIZE), 1), 0);
    CHECK_EQ(vput(NULL, va, frame), -ENOENT);
    CHECK_EQ(vmap_part(NULL, VADDR(va.v + 7 * PAGE_SIZE), frame, 7, 0, VATTR_W), 0);
    CHECK_EQ(vput(NULL, va, frame), 0);
    CHECK_EQ(put_frame(frame), 0);
}

GUEST_TEST(mm_spaces)
{
    space_t *space[3];
    frame_t *frame;
    uint64_t value;

    CHECK_EQ(get_frame(0, &frame), 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(space_create("test", &space[i]), 0);
        CHECK_EQ(vmap(space[i], VADDR(0x400000 * (i + 1)), frame, VATTR_W), 0);
    }
    CHECK_EQ(space_switch(space[1]), 0);
    CHECK_EQ(probe_write(VADDR(0x800000), 77), 0);
    CHECK_EQ(probe_read(VADDR(0x400000), &value), -1);
    CHECK_EQ(space_destroy(space[1]), -EBUSY);
    // A new top-level entry of the kernel's half is seen from every space.
    CHECK_EQ(vmap_kern(VADDR(VA_KERNEL), frame, VATTR_R), 0);
    CHECK_EQ(probe_read(VADDR(VA_KERNEL), &value), 0);
    CHECK_EQ(value, 77);
    CHECK_EQ(mm_check(), 0);
    CHECK_EQ(vput(NULL, VADDR(VA_KERNEL), frame), 0);
    CHECK_EQ(space_switch(kernel_space()), 0);
    CHECK_EQ(frame->mapcount, 3);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(space_destroy(space[i]), 0);
    CHECK_EQ(frame->mapcount, 0);
    CHECK_EQ(put_frame(frame), 0);
}

GUEST_TEST(mm_device)
{
    frame_t *apic = find_paddr_frame(PADDR(0xfee00000));
    frame_t *frame;
    uint64_t id, again;

    CHECK(apic && apic->kind == FRAME_DEVICE);
    CHECK_EQ(get_device_frame(PADDR(0xfee00000), 0, &frame), 0);
    CHECK(frame == apic);
    CHECK_EQ(vmap_kern(page_va(0), frame, VATTR_WB), -ETYPE);
    CHECK_EQ(vmap_kern(page_va(0), frame, VATTR_WC), -ETYPE);
    CHECK_EQ(vmap_kern(page_va(0), frame, VATTR_R), 0); // uncached, as no type is given
    CHECK_EQ(vmap_kern(page_va(0), frame, VATTR_UC), 0);
    CHECK_EQ(vput(NULL, page_va(0), frame), 0);
    CHECK_EQ(probe_read(VADDR(TEST_VA + 0x30), &id), 0);
    CHECK_EQ(probe_read(VADDR(VA_DEVICES + 0x30), &again), 0);
    CHECK_EQ(id, again);
    CHECK_EQ(vput(NULL, page_va(0), frame), 0);
    CHECK_EQ(put_frame(frame), 0);
    CHECK_EQ(get_device_frame(PADDR(0x100000), 0, &frame), -EEXIST);
}

// 1,000 areas, mapped and unmapped, leave no page table behind (the runner compares).
GUEST_TEST(mm_thousand_areas)
{
    frame_t *frame;

    CHECK_EQ(get_frame(0, &frame), 0);
    for (uint64_t i = 0; i < 1000; i++)
        CHECK_EQ(vmap_kern(VADDR(TEST_VA + i * (1 << 21)), frame, VATTR_W), 0);
    for (uint64_t i = 0; i < 1000; i++)
        CHECK_EQ(vput(NULL, VADDR(TEST_VA + (i * 377 % 1000) * (1 << 21)), frame), 0);
    CHECK_EQ(put_frame(frame), 0);
}

// The guest's own list of free blocks, to be held against the debugger's.
GUEST_TEST(mm_print_free)
{
    mm_print_free();
}

// check-every=1: a broken count is seen by the next operation. Here only that it is counted, and
// that operations go on; that it panics is for tests from outside.
GUEST_TEST(mm_check_every)
{
    uint32_t before = mm.check_every, operations;
    frame_t *frame;

    mm_check_every(1);
    operations = mm.operations;
    CHECK_EQ(get_frame(0, &frame), 0);
    CHECK_EQ(vmap_kern_4k(page_va(0), frame, VATTR_W), 0);
    CHECK_EQ(vput(NULL, page_va(0), frame), 0);
    CHECK_EQ(put_frame(frame), 0);
    CHECK(mm.operations - operations >= 4);
    mm_check_every(before);
}
