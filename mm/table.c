// SPDX-License-Identifier: BSD-2-Clause
// Page tables: made, hooked in, freed when empty; slots of the window; the first tables at boot.
#include "mm/table.h"

#include "arch/x86/boot_window.h"
#include "arch/x86/zero.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/arena_internal.h"
#include "mm/frame_block.h"
#include "mm/frame_word.h"
#include "mm/inject.h"
#include "mm/mapping_internal.h"
#include "mm/mm.h"
#include "mm/space.h"
#include "mm/table_flush.h"

enum {
    SLOTS_PER_SHADOW_PAGE = PAGE_SIZE / sizeof(struct shadow),
    SLOTS_PER_TABLE_PAGE = PAGE_SIZE / sizeof(struct table),
    SHADOWS_ORDER = 2, // pages of shadows that are made at once, and tables
    TABLES_ORDER = 3,
    SLOTS_AT_ONCE = SLOTS_PER_SHADOW_PAGE << SHADOWS_ORDER,
};

static vaddr_t window_va(uint32_t slot)
{
    return VADDR(VA_WINDOW + ((uint64_t)slot << PAGE_SHIFT));
}

bool pt_canonical(vaddr_t va, uint64_t bytes, unsigned levels)
{
    unsigned unused = 64 - (PAGE_SHIFT + 9 * levels);
    uint64_t last = va.v + bytes - 1;

    if (last < va.v || (va.v ^ last) >> 63)
        return false;
    return (uint64_t)((int64_t)(va.v << unused) >> unused) == va.v &&
           (uint64_t)((int64_t)(last << unused) >> unused) == last;
}

/* --- slots ------------------------------------------------------------------------------------ */

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
    err = pt_walk_create(kernel_space(), window_va(slot), 1, &w);
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
    pt_walk(kernel_space(), window_va(slot), 1, &w);
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

/* --- tables ----------------------------------------------------------------------------------- */

static always_inline void set_entry(uint32_t slot, unsigned index, pgentry_t entry, uint32_t shadow)
{
    uint32_t *old = &table_shadow(slot)[index];

    table_at(slot)->used += (shadow != 0) - (*old != 0);
    *old = shadow;
    table_entries(slot)[index] = entry;
}

void pt_set(uint32_t slot, unsigned index, pgentry_t entry, uint32_t shadow)
{
    set_entry(slot, index, entry, shadow);
}

// Every user space has the kernel's upper half in its root.
static always_inline void set_parent_entry(uint32_t parent, unsigned index, pgentry_t entry,
                                           uint32_t shadow)
{
    set_entry(parent, index, entry, shadow);
    if (likely(parent != kernel_space()->root || index < PT_ENTRIES / 2))
        return;
    for (uint32_t i = kernel_space()->next; i; i = space_at(i)->next)
        pt_set(space_at(i)->root, index, entry, shadow);
}

static always_inline void hook(space_t *space, uint32_t parent, unsigned index, uint32_t slot)
{
    struct table *t = table_at(slot);
    mfn_t mfn = frame_mfn(frame_at(t->frame));

    t->parent = parent;
    t->index = index;
    set_parent_entry(parent, index, pgentry_table(mfn, space != kernel_space()),
                     SHADOW_TABLE | slot);
}

// A frame for a table, mapped in the window, all zero as its shadow is; 0 if there is no memory.
static uint32_t table_back(void)
{
    uint32_t slot = mm.free_slots > reserve(RESERVE_SLOTS) ? mm.free_slot : 0;
    frame_t *frame = slot ? frame_take(0, FRAME_TABLE) : NULL;

    if (!frame)
        return 0;
    slot_unlist(slot);
    if (mm.root_ready && mapping_create(kernel_space(), window_va(slot), frame, 0, 0, 1, VATTR_W)) {
        slot_push(slot);
        frame_drop(frame);
        return 0;
    }
    arch_meta_map(window_va(slot), frame_mfn(frame));
    page_zero(table_entries(slot));
    frame->slot = slot;
    table_at(slot)->frame = frame_index(frame);
    return slot;
}

static always_inline uint32_t stock_pop(void)
{
    uint32_t slot = mm.stock_slot;

    mm.stock_slot = table_at(slot)->parent;
    mm.stock_count--;
    return slot;
}

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

// That many free slots, the first ones, are none any more.
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

// Several tables at once, for whoever makes one now makes more. False: not now, or no memory.
static __attribute__((noinline)) bool stock_fill(void)
{
    uint32_t slot, count, next = mm.stock_slot;
    struct table *t;
    unsigned order;
    frame_t *frame;

    if (!mm.live || mm.busy || !slots_ready((1u << TABLES_ORDER) + RESERVE_SLOTS))
        return false;
    order = slots_in_row(&slot);
    count = 1u << order;
    frame = own_pages(window_va(slot), order, FRAME_TABLE);
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

static always_inline uint32_t table_take(void)
{
    if (unlikely(!mm.stock_slot && !stock_fill()))
        return table_back();
    return inject_failure() ? 0 : stock_pop();
}

static always_inline uint32_t table_create(space_t *space, unsigned level, uint64_t va)
{
    uint32_t slot = table_take();
    struct table *t = table_at(slot);

    if (!slot)
        return 0;
    frame_at(t->frame)->level = level;
    *t = (struct table){.va = va, .frame = t->frame, .space = space_index(space), .level = level};
    space->tables++;
    return slot;
}

// Its frame and its slot go back; the frame only after the next flush.
static void table_unback(uint32_t slot)
{
    frame_t *frame = frame_at(table_at(slot)->frame);
    struct pt_walk w;

    pt_walk(kernel_space(), window_va(slot), 1, &w);
    frame->kind = FRAME_AVAILABLE; // whoever still maps it, read-only, maps no table any more
    frame->epoch = 0;
    mapping_destroy(kernel_space(), frame, w.shadow);
    arch_meta_unmap(window_va(slot));
    frame_drop(frame);
    slot_push(slot);
    work_add(MM_TRIM);
}

// The table is hooked in nowhere, and not of its space any more.
static void table_forget(uint32_t slot)
{
    struct table *t = table_at(slot);
    space_t *space = space_at(t->space);

    space->tables--;
    for (unsigned i = 0; i < 2; i++)
        if (space->recent[i].table == (uintptr_t)table_at(slot))
            space->recent[i] = (struct recent_table){0};
    frame_at(t->frame)->level = 0;
}

static void table_free(uint32_t slot)
{
    table_forget(slot);
    memset(table_shadow(slot), 0, sizeof(struct shadow));
    table_unback(slot);
}

// The table is empty: it is kept for the next one, unless others than the manager have to do with
// it.
static void table_keep(uint32_t slot)
{
    uint32_t index = table_at(slot)->frame;
    const frame_t *frame = frame_at(index);

    table_forget(slot);
    if (frame->refcount != 1 || frame->mapcount != 1) {
        table_unback(slot);
        return;
    }
    *table_at(slot) = (struct table){.frame = index, .parent = mm.batch.tables, .stock = 1};
    mm.batch.tables = slot;
    mm.batch.pending = 1;
}

void pt_flushed(uint32_t first)
{
    while (first) {
        uint32_t next = table_at(first)->parent;

        table_at(first)->parent = mm.stock_slot;
        mm.stock_slot = first;
        if (++mm.stock_count > STOCK_TABLES)
            work_add(MM_TRIM);
        first = next;
    }
}

bool pt_trim(uint32_t keep)
{
    bool more = mm.stock_count > keep;

    while (mm.stock_count > keep)
        table_unback(stock_pop());
    return more;
}

void pt_prune(uint32_t slot)
{
    while (slot) {
        struct table *t = table_at(slot);
        uint32_t parent = t->parent;

        if (t->used || t->pins || !parent)
            return;
        set_parent_entry(parent, t->index, 0, 0);
        tlb_gone(space_at(t->space), VADDR(t->va), 1, 1);
        table_keep(slot);
        slot = parent;
    }
}

int pt_make_below(space_t *space, vaddr_t va, struct pt_walk *w)
{
    unsigned level = w->level - 1;
    uint32_t slot =
        table_create(space, level, ROUND_DOWN(va.v, UINT64_C(1) << level_shift(w->level)));

    if (!slot) {
        pt_prune(w->slot);
        return -ENOMEM;
    }
    hook(space, w->slot, w->index, slot);
    *w = (struct pt_walk){slot, level, level_index(va, level), 0};
    return 0;
}

int pt_walk_create(space_t *space, vaddr_t va, unsigned target, struct pt_walk *w)
{
    int err = 0;

    pt_walk(space, va, target, w);
    while (!err && w->level > target)
        err = w->shadow ? -ELARGE : pt_make_below(space, va, w);
    return err;
}

int pt_root_create(space_t *space)
{
    uint32_t slot = table_create(space, mm.levels, 0);
    uint32_t kernel = kernel_space()->root;

    if (!slot)
        return -ENOMEM;
    space->root = slot;
    space->cr3 = frame_paddr(frame_at(table_at(slot)->frame)).v;
    for (unsigned i = PT_ENTRIES / 2; i < PT_ENTRIES && space != kernel_space(); i++)
        pt_set(slot, i, table_entries(kernel)[i] & ~(pgentry_t)(PG_A | PG_D),
               table_shadow(kernel)[i]);
    return 0;
}

void pt_root_destroy(space_t *space)
{
    table_free(space->root);
    space->root = 0;
}

/* --- large pages ------------------------------------------------------------------------------ */

int pt_split_large(space_t *space, vaddr_t va, struct pt_walk *w)
{
    const mapping_t *m = mapping_at(w->shadow);
    uint64_t base = ROUND_DOWN(va.v, UINT64_C(1) << level_shift(w->level));
    unsigned level = w->level - 1;
    uint64_t mfn = pgentry_mfn(table_entries(w->slot)[w->index], w->level).v;
    uint32_t slot = table_create(space, level, base);
    uint32_t index = w->shadow;

    if (!slot)
        return -ENOMEM;
    for (unsigned i = 0; i < PT_ENTRIES; i++, mfn += UINT64_C(1) << level_order(level))
        pt_set(slot, i, pgentry_leaf(MFN(mfn), level, m->attr), index);
    hook(space, w->slot, w->index, slot);
    tlb_gone(space, VADDR(base), level, PT_ENTRIES);
    *w = (struct pt_walk){slot, level, 0, index};
    return 0;
}

void pt_merge_large(uint32_t slot, pgentry_t entry, struct pt_walk *w)
{
    struct table *t = table_at(slot);

    *w = (struct pt_walk){t->parent, t->level + 1u, t->index, table_shadow(slot)[0]};
    pt_set(w->slot, w->index, entry, w->shadow);
    tlb_gone(space_at(t->space), VADDR(t->va), t->level, PT_ENTRIES);
    table_free(slot);
}

/* --- boot ------------------------------------------------------------------------------------- */

void pt_boot(space_t *kernel)
{
    vaddr_t va = window_va(0);
    struct pt_walk w;

    kernel->levels = mm.levels;
    if (pt_root_create(kernel) || pt_walk_create(kernel, va, 1, &w))
        panic("no memory for the first page tables");
    table_at(w.slot)->pins++;
    mm.root_ready = 1;
    // Now that the window's own tables stand, they are mapped like all that follow.
    for (uint32_t slot = w.slot; slot; slot = table_at(slot)->parent)
        if (mapping_create(kernel, window_va(slot), frame_at(table_at(slot)->frame), 0, 0, 1,
                           VATTR_W))
            panic("the first page tables can't be mapped");
}
