// SPDX-License-Identifier: BSD-2-Clause
// Slots of the window, in which page tables are written: made, given back, and filled with tables.
#include "mm/table.h"

#include "arch/x86/boot_window.h"
#include "arch/x86/zero.h"
#include "mm/arena_internal.h"
#include "mm/frame_block.h"
#include "mm/frame_word.h"
#include "mm/mapping_internal.h"
#include "mm/mm.h"

enum {
    SLOTS_PER_SHADOW_PAGE = PAGE_SIZE / sizeof(struct shadow),
    SLOTS_PER_TABLE_PAGE = PAGE_SIZE / sizeof(struct table),
    SHADOWS_ORDER = 2, // pages of shadows that are made at once, and tables
    TABLES_ORDER = 3,
    SLOTS_AT_ONCE = SLOTS_PER_SHADOW_PAGE << SHADOWS_ORDER,
};

// Free slots are linked both ways by frame (next) and parent (the one before).
static void slot_push(uint32_t slot)
{
    *table_at(slot) = (struct table){.frame = mm.free_slot};
    if (mm.free_slot)
        table_at(mm.free_slot)->parent = slot;
    mm.free_slot = slot;
    mm.free_slots++;
}

static void slot_unlist(uint32_t slot)
{
    struct table *t = table_at(slot);

    if (t->parent)
        table_at(t->parent)->frame = t->frame;
    else
        mm.free_slot = t->frame;
    if (t->frame)
        table_at(t->frame)->parent = t->parent;
    *t = (struct table){0};
    if (--mm.free_slots < STOCK_SLOTS)
        work_add(MM_GROW);
}

static bool slot_is_free(uint32_t slot)
{
    return !table_at(slot)->level && !table_at(slot)->stock;
}

// The table that maps 512 slots must stand before the first of them is handed out.
static int window_pin(uint32_t slot)
{
    struct pt_walk w;
    int err;

    if (!mm.root_ready || slot % PT_ENTRIES)
        return 0;
    err = pt_walk_create(kernel_space(), table_va(slot), 1, &w);
    if (err)
        return err;
    table_at(w.slot)->pins++;
    return 0;
}

static void window_unpin(uint32_t slot)
{
    struct pt_walk w;

    if (slot % PT_ENTRIES)
        return;
    pt_walk(kernel_space(), table_va(slot), 1, &w);
    table_at(w.slot)->pins--;
    pt_prune(w.slot);
}

// Shadows, and structs, for the slots from `first` on; how many, 0: no memory.
static uint32_t slots_back(uint32_t first, uint32_t want)
{
    bool tables = first % SLOTS_PER_TABLE_PAGE == 0;

    if (tables && arena_grow(ARENA_TABLES))
        return 0;
    if (mm.live && want >= SLOTS_AT_ONCE &&
        first % SLOTS_PER_TABLE_PAGE <= SLOTS_PER_TABLE_PAGE - SLOTS_AT_ONCE &&
        arena_grow_pages(ARENA_SHADOWS, SHADOWS_ORDER) == 0)
        return SLOTS_AT_ONCE;
    if (arena_grow(ARENA_SHADOWS) == 0)
        return SLOTS_PER_SHADOW_PAGE;
    if (tables)
        arena_shrink(ARENA_TABLES);
    return 0;
}

int slots_grow(uint32_t want)
{
    uint32_t first = mm.slot_count, count;
    int err = window_pin(first);

    if (err)
        return err;
    count = slots_back(first, want);
    if (!count) {
        window_unpin(first);
        return -ENOMEM;
    }
    mm.slot_count += count;
    for (uint32_t slot = mm.slot_count - 1; slot >= first && slot > 0; slot--)
        slot_push(slot);
    return 0;
}

bool slots_trim(uint32_t keep)
{
    uint32_t first = mm.slot_count - SLOTS_PER_SHADOW_PAGE;

    if (mm.arena[ARENA_SHADOWS].pages <= mm.arena[ARENA_SHADOWS].boot ||
        mm.free_slots < keep + SLOTS_PER_SHADOW_PAGE || !slot_is_free(first) ||
        !slot_is_free(first + 1))
        return false;
    slot_unlist(first);
    slot_unlist(first + 1);
    mm.slot_count = first;
    arena_shrink(ARENA_SHADOWS);
    if (first % SLOTS_PER_TABLE_PAGE == 0)
        arena_shrink(ARENA_TABLES);
    window_unpin(first);
    return true;
}

/* --- tables in slots -------------------------------------------------------------------------- */

uint32_t table_back(void)
{
    uint32_t slot = mm.free_slots > reserve(RESERVE_SLOTS) ? mm.free_slot : 0;
    frame_t *frame = slot ? frame_take(0, FRAME_TABLE) : NULL;

    if (!frame)
        return 0;
    slot_unlist(slot);
    if (mm.root_ready && mapping_create_own(table_va(slot), frame)) {
        slot_push(slot);
        frame_drop(frame);
        return 0;
    }
    arch_meta_map(table_va(slot), frame_mfn(frame));
    page_zero(table_entries(slot));
    frame->slot = slot;
    table_at(slot)->frame = frame_index(frame);
    return slot;
}

void table_unback(uint32_t slot)
{
    frame_t *frame = frame_at(table_at(slot)->frame);
    struct pt_walk w;

    pt_walk(kernel_space(), table_va(slot), 1, &w);
    frame->kind = FRAME_AVAILABLE; // for others that still map it, read-only
    frame->epoch = 0;
    mapping_destroy(kernel_space(), frame, w.shadow);
    arch_meta_unmap(table_va(slot));
    frame_drop(frame);
    slot_push(slot);
    work_add(MM_TRIM);
}

/* --- several at once -------------------------------------------------------------------------- */

// The first free slots, as far as they stand side by side in either direction, 2^TABLES_ORDER at
// most: log2 of their number, and the lowest.
static unsigned slots_in_row(uint32_t *lowest)
{
    uint32_t slot = mm.free_slot, next = table_at(slot)->frame, step = next - slot, count = 1;
    unsigned order = 0;

    while (count < 1u << TABLES_ORDER && next == slot + step && (step == 1 || step == -1u)) {
        slot = next;
        next = table_at(slot)->frame;
        count++;
    }
    while (2u << order <= count)
        order++;
    *lowest = step == 1 ? mm.free_slot : mm.free_slot - (1u << order) + 1;
    return order;
}

// Takes that many slots, the first ones, off the list of free ones.
static void slots_unlist(uint32_t last, uint32_t count)
{
    uint32_t next = table_at(last)->frame;

    mm.free_slot = next;
    if (next)
        table_at(next)->parent = 0;
    mm.free_slots -= count;
    if (mm.free_slots < STOCK_SLOTS)
        work_add(MM_GROW);
}

static bool slots_ready(uint32_t count)
{
    int err = 0;

    mm.busy = 1;
    while (!err && mm.free_slots < count)
        err = slots_grow(SLOTS_AT_ONCE);
    mm.busy = 0;
    return !err;
}

bool stock_fill(void)
{
    uint32_t slot, count, next = mm.stock_slot;
    struct table *t;
    unsigned order;
    frame_t *frame;

    if (!mm.live || mm.busy || !slots_ready((1u << TABLES_ORDER) + RESERVE_SLOTS))
        return false;
    order = slots_in_row(&slot);
    count = 1u << order;
    frame = own_pages(table_va(slot), order, FRAME_TABLE);
    if (!frame)
        return false;
    slots_unlist(slot == mm.free_slot ? slot + count - 1 : slot, count);
    t = table_at(slot);
    for (uint32_t i = 0; i < count; i++, next = slot++) {
        frame[i].slot = slot;
        t[i] = (struct table){.frame = frame_index(frame) + i, .parent = next, .stock = 1};
    }
    mm.stock_slot = next;
    mm.stock_count += count;
    return true;
}
