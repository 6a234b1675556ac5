// SPDX-License-Identifier: BSD-2-Clause
// The tables that a space used last, for the next time; and the one that is missing for a page.
#include "mm/internal.h"

// Tables of the manager's own windows are not remembered, so that the fast path never changes
// those.
static bool is_for_callers(space_t *space, vaddr_t va, unsigned level)
{
    uint64_t bytes = UINT64_C(1) << level_shift(level + 1);
    uint64_t base = ROUND_DOWN(va.v, bytes);

    return space_is_live(space) && pt_canonical(va, 1, space->levels) && space_has(space, va) &&
           (base >= VA_STACKS || base + bytes - 1 < LAYOUT_BASE);
}

static void remember(space_t *space, vaddr_t va, const struct pt_walk *w)
{
    space->recent[w->level - 1] =
        (struct recent_table){.va = ROUND_DOWN(va.v, UINT64_C(1) << level_shift(w->level + 1)),
                              .table = (uintptr_t)table_at(w->slot),
                              .at = w->slot * PT_ENTRIES,
                              .count = PT_ENTRIES};
}

bool recent_find(space_t *space, vaddr_t va, unsigned level, struct pt_walk *w)
{
    if (!space)
        space = kernel_space();
    *w = (struct pt_walk){0};
    if (!is_for_callers(space, va, level))
        return false;
    pt_walk(space, va, level, w);
    if (w->level != level)
        return false;
    remember(space, va, w);
    return true;
}

void recent_make(space_t *space, vaddr_t va, struct pt_walk *w)
{
    int err = pt_make_below(space, va, w);

    // Making it may have let arenas grow or shrink.
    if (unlikely(mm.batch.pending))
        tlb_commit();
    if (likely(!err))
        remember(space, va, w);
}

void recent_prune(space_t *space, vaddr_t va, unsigned level)
{
    struct pt_walk w;

    if (recent_find(space, va, level, &w))
        pt_prune(w.slot);
}
