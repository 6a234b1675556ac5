// SPDX-License-Identifier: BSD-2-Clause
// Pages of the manager's own, several at once: their frames, their places in its windows, all zero.
#include "arch/x86/boot_window.h"
#include "arch/x86/zero.h"
#include "mm/arena_internal.h"
#include "mm/internal.h"
#include "mm/journal.h"

static frame_t *take_pages(unsigned order, enum frame_kind kind)
{
    frame_t *frame;

    if (inject_failure())
        return NULL;
    frame_lock();
    frame = block_take(order, kind, 0);
    if (frame && order)
        block_shatter(frame);
    frame_unlock();
    return frame;
}

// The frame's only mapping: one page, writable, its first entry at number `at` of all slots.
static always_inline uint32_t record_own(frame_t *frame, uint32_t at)
{
    uint32_t index = record_take();

    *mapping_at(index) =
        (mapping_t){.at = at, .attr = VATTR_W, .level = 1, .refs = 1, .home_level = 1};
    frame->maps = index;
    // Others may have found it by its number.
    __atomic_fetch_add(&frame->mapcount, 1, __ATOMIC_RELAXED);
    return index;
}

frame_t *own_pages(vaddr_t va, unsigned order, enum frame_kind kind)
{
    uint32_t count = 1u << order;
    struct pt_walk w;
    frame_t *frame;
    pgentry_t entry;

    pt_walk(kernel_space(), va, 1, &w);
    if (w.level != 1 || w.index + count > PT_ENTRIES || inject_failure() || !records_fill(count))
        return NULL;
    frame = take_pages(order, kind);
    if (!frame)
        return NULL;
    entry = pgentry_leaf(frame_mfn(frame), 1, VATTR_W);
    table_at(w.slot)->used += count;
    for (uint32_t i = 0; i < count; i++, va.v += PAGE_SIZE) {
        assert(!table_shadow(w.slot)[w.index + i]);
        table_shadow(w.slot)[w.index + i] =
            record_own(frame + i, w.slot * PT_ENTRIES + w.index + i);
        table_entries(w.slot)[w.index + i] = entry + ((uint64_t)i << PAGE_SHIFT);
        arch_meta_map(va, frame_mfn(frame + i));
        page_zero(vaddr_ptr(va));
    }
    return frame;
}
