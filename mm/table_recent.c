// SPDX-License-Identifier: BSD-2-Clause
// The tables that a space used last, for the next time; and the one that is missing for a page.
#include "mm/frame_word.h"
#include "mm/mm.h"
#include "mm/space.h"
#include "mm/table.h"
#include "mm/table_flush.h"

static vaddr_t covered_va(vaddr_t va, unsigned level)
{
    return VADDR(ROUND_DOWN(va.v, UINT64_C(1) << level_shift(level + 1)));
}

// Tables of the manager's own windows are not remembered, so that the fast path never changes
// those.
static bool is_for_callers(space_t *space, vaddr_t va, unsigned level)
{
    vaddr_t base = covered_va(va, level);
    uint64_t bytes = UINT64_C(1) << level_shift(level + 1);

    return space_is_live(space) && pt_canonical(va, 1, space->levels) && space_has(space, va) &&
           (base.v >= VA_STACKS || base.v + bytes - 1 < LAYOUT_BASE);
}

static always_inline void remember(space_t *space, vaddr_t va, unsigned level, uint32_t slot)
{
    struct recent_table *recent = &space->recent[level - 1];

    recent->va = covered_va(va, level).v;
    recent->table = (uintptr_t)table_at(slot);
    recent->at = slot * PT_ENTRIES;
    recent->count = PT_ENTRIES;
}

// The entry for va's table of that level, in the table above; false if there is none, or if it is
// not for callers.
static bool walk_above(space_t *space, vaddr_t va, unsigned level, struct pt_walk *w)
{
    if (!is_for_callers(space, va, level))
        return false;
    pt_walk(space, va, level + 1, w);
    if (w->level != level + 1)
        return false;
    if (level == 1 && is_for_callers(space, va, 2))
        remember(space, va, 2, w->slot);
    return true;
}

// The same without a walk, if the table above is a recent one.
static always_inline bool find_above(const space_t *space, vaddr_t va, unsigned level,
                                     struct pt_walk *w)
{
    const struct recent_table *above = &space->recent[1];
    uint64_t index = (va.v - above->va) >> level_shift(2);

    if (level != 1 || index >= above->count)
        return false;
    w->slot = above->at / PT_ENTRIES;
    w->level = 2;
    w->index = (unsigned)index;
    w->shadow = table_shadow(w->slot)[index];
    return true;
}

uint32_t recent_at(space_t *space, vaddr_t va, unsigned level, bool make)
{
    struct pt_walk w;

    if (!find_above(space, va, level, &w) && !walk_above(space, va, level, &w))
        return 0;
    if (w.shadow & SHADOW_TABLE) {
        w.slot = w.shadow & ~SHADOW_TABLE;
    } else {
        int err = w.shadow || !make ? -ENOENT : pt_make_below(space, va, &w);

        // Making it may have let arenas grow or shrink.
        if (unlikely(mm.batch.pending))
            tlb_commit();
        if (unlikely(err))
            return 0;
    }
    remember(space, va, level, w.slot);
    return w.slot * PT_ENTRIES + level_index(va, level);
}

void recent_prune(space_t *space, vaddr_t va, unsigned level)
{
    uint32_t at = space_is_live(space) ? recent_at(space, va, level, false) : 0;

    if (at)
        pt_prune(at / PT_ENTRIES);
}
