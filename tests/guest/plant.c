// SPDX-License-Identifier: BSD-2-Clause
// plant=RULE: commits, in the running guest, the bug that breaks that rule and as little else as
// can be.
#include "arch/x86/tlb.h"
#include "kernel/idt.h"
#include "kernel/stack.h"
#include "kernel/traps.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/arena_internal.h"
#include "mm/mapping_internal.h"
#include "mm/mm.h"
#include "mm/space.h"
#include "mm/table.h"
#include "mm/vmap.h"
#include "tests/guest/plant.h"
#include "tests/guest/test.h"

// Each plant has its own 2 MiB of the kernel's space: PLANT_VA is the first page of it.
#define PLANT_VA   VADDR(VA_VMAP + 0x7000000000 + ((uint64_t)planted << 21))
#define PLANT_USER VADDR(0x40000000)

static unsigned planted; // how many so far

frame_t *plant_frame(unsigned order)
{
    frame_t *frame;

    if (get_frame(order, &frame))
        panic("plant: no frame of order %u", order);
    return frame;
}

void plant_map(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    int err = vmap(space, va, frame, attr);

    if (err)
        panic("plant: 0x%lx can't be mapped: %s", va.v, error_name(err));
}

space_t *plant_space(void)
{
    space_t *space;

    if (space_create("planted", &space))
        panic("plant: no address space");
    return space;
}

struct pt_walk plant_at(space_t *space, vaddr_t va, unsigned level)
{
    struct pt_walk w;

    pt_walk(space, va, level, &w);
    assert(w.level == level);
    return w;
}

/* Writes an entry behind everybody's back, where a page table counts it but no record does. */
static void write_entry(vaddr_t va, uint64_t mfn)
{
    struct pt_walk w;

    // A neighbour mapped properly, so that the page table is there.
    plant_map(NULL, PLANT_VA, plant_frame(0), VATTR_W);
    w = plant_at(kernel_space(), va, 1);
    table_entries(w.slot)[w.index] = pgentry_leaf(MFN(mfn), 1, VATTR_W);
    table_at(w.slot)->used++;
}

static vaddr_t second_page(void)
{
    return VADDR(PLANT_VA.v + PAGE_SIZE);
}

// The first page above all of the boot map's lower part that is in no frame.
static uint64_t hole(void)
{
    uint64_t mfn = 0x100;

    while (find_mfn_frame(MFN(mfn)))
        mfn = find_mfn_frame(MFN(mfn))->mfn + frame_pages(find_mfn_frame(MFN(mfn)));
    return mfn;
}

static void plant_p1(void)
{
    write_entry(second_page(), hole());
}

// The bug of a put that does not look at mapcount.
static void plant_p2(void)
{
    frame_t *frame = plant_frame(0);
    uint64_t mfn = frame->mfn;

    write_entry(second_page(), mfn);
    put_frame(frame);
}

static void plant_p3(void)
{
    frame_t *frame = plant_frame(1);
    struct pt_walk w;
    pgentry_t *entries;
    pgentry_t first;

    plant_map(NULL, PLANT_VA, frame, VATTR_W);
    w = plant_at(kernel_space(), PLANT_VA, 1);
    entries = table_entries(w.slot);
    first = entries[w.index];
    entries[w.index] = entries[w.index + 1];
    entries[w.index + 1] = first;
}

static void plant_p4(void)
{
    write_entry(second_page(), plant_frame(0)->mfn);
}

static void plant_p5(void)
{
    struct pt_walk w;

    plant_map(NULL, PLANT_VA, plant_frame(0), VATTR_W);
    w = plant_at(kernel_space(), PLANT_VA, 1);
    table_entries(w.slot)[w.index] = 0;
    table_at(w.slot)->used--;
    tlb_flush_page(PLANT_VA);
}

static void plant_p6(void)
{
    frame_t *frame = plant_frame(0);

    plant_map(NULL, PLANT_VA, frame, VATTR_W);
    frame->mapcount++;
}

// A space is destroyed, and one of its records stays on the frame's list.
static void plant_p7(void)
{
    frame_t *frame = plant_frame(0);
    space_t *space = plant_space();
    mapping_t record;
    uint32_t index;

    plant_map(space, PLANT_USER, frame, VATTR_W | VATTR_U);
    record = *mapping_at(frame->maps);
    if (space_destroy(space))
        panic("plant: the space can't be destroyed");
    index = arena_alloc(ARENA_MAPPINGS);
    *mapping_at(index) = record;
    mapping_link(frame, index);
}

// A level 2 entry that leads to a plain frame instead of a page table.
static void plant_t1(void)
{
    space_t *space = plant_space();
    frame_t *frame = plant_frame(0);
    struct pt_walk w;

    plant_map(NULL, PLANT_VA, frame, VATTR_W);
    memset(vaddr_ptr(PLANT_VA), 0, PAGE_SIZE);
    plant_map(space, PLANT_USER, plant_frame(0), VATTR_U);
    w = plant_at(space, PLANT_USER, 2);
    table_entries(w.slot)[w.index + 1] = pgentry_table(frame_mfn(frame), true);
    table_at(w.slot)->used++;
}

static void plant_t2(void)
{
    space_t *space = plant_space();
    struct pt_walk w;

    plant_map(space, PLANT_USER, plant_frame(0), VATTR_U);
    w = plant_at(space, PLANT_USER, 1);
    frame_at(table_at(w.slot)->frame)->level = 2;
}

// One level 1 table under two entries of level 2.
static void plant_t3(void)
{
    space_t *space = plant_space();
    struct pt_walk w;

    plant_map(space, PLANT_USER, plant_frame(0), VATTR_U);
    w = plant_at(space, PLANT_USER, 2);
    table_entries(w.slot)[w.index + 1] = table_entries(w.slot)[w.index];
    table_at(w.slot)->used++;
}

static void plant_t4(void)
{
    frame_t *root = frame_at(table_at(kernel_space()->root)->frame);
    uint32_t index;
    struct pt_walk w;

    plant_map(NULL, PLANT_VA, root, VATTR_R);
    w = plant_at(kernel_space(), PLANT_VA, 1);
    index = w.shadow;
    mapping_at(index)->attr |= VATTR_W;
    table_entries(w.slot)[w.index] |= PG_W;
}

// Bit 51 is above every physical address that QEMU's CPUs have.
static void plant_t5(void)
{
    space_t *space = plant_space();
    struct pt_walk w;

    plant_map(space, PLANT_USER, plant_frame(0), VATTR_U);
    w = plant_at(space, PLANT_USER, 1);
    table_entries(w.slot)[w.index] |= UINT64_C(1) << 51;
}

// An entry of level 3 that leads back to the root.
static void plant_t6(void)
{
    space_t *space = plant_space();
    struct pt_walk w;

    plant_map(space, PLANT_USER, plant_frame(0), VATTR_U);
    w = plant_at(space, PLANT_USER, 3);
    table_entries(w.slot)[w.index + 1] = pgentry_table(MFN(space->cr3 >> PAGE_SHIFT), true);
    table_at(w.slot)->used++;
}

// An empty page table that is taken out of its parent and forgotten.
static void plant_t7(void)
{
    space_t *space = plant_space();
    struct pt_walk w;

    plant_map(space, PLANT_USER, plant_frame(0), VATTR_U);
    if (pt_walk_create(space, VADDR(PLANT_USER.v + (2 << 20)), 1, &w))
        panic("plant: no page table");
    pt_set(table_at(w.slot)->parent, table_at(w.slot)->index, 0, 0);
}

// The record and the entry of a mapping made with other attributes, behind everybody's back.
static void rewrite(vaddr_t va, unsigned clear, unsigned set)
{
    struct pt_walk w = plant_at(kernel_space(), va, 1);
    mapping_t *record = mapping_at(w.shadow);

    record->attr = (record->attr & ~clear) | set;
    table_entries(w.slot)[w.index] =
        pgentry_leaf(pgentry_mfn(table_entries(w.slot)[w.index], 1), 1, record->attr);
}

static void plant_m1(void)
{
    frame_t *frame;

    if (get_device_frame(PADDR(hole() << PAGE_SHIFT), 0, &frame))
        panic("plant: no device frame");
    plant_map(NULL, PLANT_VA, frame, VATTR_W);
    rewrite(PLANT_VA, VATTR_TYPE, 0);
}

static void plant_m2(void)
{
    frame_t *frame = plant_frame(0);

    plant_map(NULL, PLANT_VA, frame, VATTR_W);
    plant_map(NULL, second_page(), frame, VATTR_W);
    rewrite(second_page(), VATTR_TYPE, VATTR_UC);
}

static void plant_x1(void)
{
    struct pt_walk w;

    plant_map(NULL, PLANT_VA, plant_frame(0), VATTR_W);
    w = plant_at(kernel_space(), PLANT_VA, 1);
    mapping_at(w.shadow)->attr |= VATTR_X;
    table_entries(w.slot)[w.index] &= ~PG_NX;
}

// All levels give ring 3 what is the kernel's.
static void plant_x2(void)
{
    plant_map(NULL, PLANT_VA, plant_frame(0), VATTR_W);
    rewrite(PLANT_VA, 0, VATTR_U);
    for (unsigned level = 2; level <= kernel_space()->levels; level++) {
        struct pt_walk w = plant_at(kernel_space(), PLANT_VA, level);

        table_entries(w.slot)[w.index] |= PG_U;
    }
}

// The page below the boot CPU's stack: an overflow would go on in it.
static void plant_x3(void)
{
    plant_map(NULL, VADDR(stacks[0].bottom.v - PAGE_SIZE), plant_frame(0), VATTR_W);
}

// The gate of the general protection fault leads to data.
static void plant_c2(void)
{
    uintptr_t handler = (uintptr_t)&mm;

    idt[VECTOR_GP].offset_low = handler & 0xffff;
    idt[VECTOR_GP].offset_middle = handler >> 16 & 0xffff;
    idt[VECTOR_GP].offset_high = (uint32_t)(handler >> 32);
}

// The bug of an unmap that does not wait for the others: the frame is free, and a CPU has not
// flushed.
static void plant_b1(void)
{
    frame_t *frame = plant_frame(0);

    plant_map(NULL, PLANT_VA, frame, VATTR_W);
    if (vunmap(NULL, PLANT_VA, frame))
        panic("plant: the page can't be unmapped");
    mm.cpu[0].asked = mm.epoch;
    mm.cpu[0].flushed = mm.epoch - 1;
    frame->epoch = mm.epoch;
    put_frame(frame);
}

// CR3 holds a copy of the root that no address space knows.
static void plant_c1(void)
{
    frame_t *frame = plant_frame(0);

    plant_map(NULL, PLANT_VA, frame, VATTR_W);
    memcpy(vaddr_ptr(PLANT_VA), table_entries(kernel_space()->root), PAGE_SIZE);
    cr3_load(frame_paddr(frame));
}

static const struct {
    const char *rule, *text;
    void (*run)(void);
} plants[] = {
    {"P1", "an entry maps an address where no frame is", plant_p1},
    {"P2", "an entry maps a frame that was put back", plant_p2},
    {"P3", "the two entries of a block of order 1 are swapped", plant_p3},
    {"P4", "an entry written behind the frame's back", plant_p4},
    {"P5", "an entry cleared, its record kept", plant_p5},
    {"P6", "a mapcount off by one", plant_p6},
    {"P7", "a record kept when its address space was destroyed", plant_p7},
    {"T1", "an entry of level 2 leads to a plain frame", plant_t1},
    {"T2", "a page-table frame says level 2, and is of level 1", plant_t2},
    {"T3", "one page table under two entries", plant_t3},
    {"T4", "the kernel's root table is mapped writable outside the window", plant_t4},
    {"T5", "a reserved bit is set in an entry", plant_t5},
    {"T6", "an entry of level 3 leads back to the root", plant_t6},
    {"T7", "a page table is taken out of its parent and forgotten", plant_t7},
    {"A1", "a frame of the boot map loses its descriptor", plant_a1},
    {"A2", "a frame of order 0 hangs in the ring of order 1", plant_a2},
    {"A3", "a link of a ring is bent", plant_a3},
    {"A4", "a counter of free blocks is off by one", plant_a4},
    {"A5", "two free buddies are not merged", plant_a5},
    {"A6", "an available frame says that it is an ACPI table", plant_a6},
    {"M1", "device memory is mapped write-back", plant_m1},
    {"M2", "a frame is mapped write-back and uncached", plant_m2},
    {"X1", "a mapping is writable and executable", plant_x1},
    {"X2", "a page of the kernel's half can be reached by ring 3", plant_x2},
    {"X3", "the guard page below a stack is mapped", plant_x3},
    {"B1", "a frame is free, and a CPU has not flushed since its last unmap", plant_b1},
    {"C1", "CR3 holds a copy of the root table", plant_c1},
    {"C2", "the gate of an exception leads to data", plant_c2},
};

int plant_bug(const char *rule)
{
    bool list = strcmp(rule, "list") == 0;

    for (size_t i = 0; i < ARRAY_SIZE(plants); i++) {
        if (list) {
            printk("plant=%s %s\n", plants[i].rule, plants[i].text);
        } else if (strcmp(rule, plants[i].rule) == 0) {
            plants[i].run();
            planted++;
            printk("planted %s: %s\n", plants[i].rule, plants[i].text);
            return 0;
        }
    }
    return list ? 0 : -1;
}
