// SPDX-License-Identifier: BSD-2-Clause
// Page tables: made, hooked in, freed when empty; the first tables at boot.
#include "mm/table.h"

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

bool pt_canonical(vaddr_t va, uint64_t bytes, unsigned levels)
{
    unsigned unused = 64 - (PAGE_SHIFT + 9 * levels);
    uint64_t last = va.v + bytes - 1;

    if (last < va.v || (va.v ^ last) >> 63)
        return false;
    return (uint64_t)((int64_t)(va.v << unused) >> unused) == va.v &&
           (uint64_t)((int64_t)(last << unused) >> unused) == last;
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

static always_inline uint32_t stock_pop(void)
{
    uint32_t slot = mm.stock_slot;

    mm.stock_slot = table_at(slot)->parent;
    mm.stock_count--;
    return slot;
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

// The table, which no entry leads to, leaves its space.
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
    vaddr_t va = table_va(0);
    struct pt_walk w;

    kernel->levels = mm.levels;
    if (pt_root_create(kernel) || pt_walk_create(kernel, va, 1, &w))
        panic("no memory for the first page tables");
    table_at(w.slot)->pins++;
    mm.root_ready = 1;
    // Now that the window's own tables stand, they are mapped like all that follow.
    for (uint32_t slot = w.slot; slot; slot = table_at(slot)->parent)
        if (mapping_create_own(table_va(slot), frame_at(table_at(slot)->frame)))
            panic("the first page tables can't be mapped");
}
