// SPDX-License-Identifier: BSD-2-Clause
// Pages of the manager's own, several at once: their frames, their places in its windows, all zero.
#include "arch/x86/boot_window.h"
#include "arch/x86/zero.h"
#include "mm/arena_internal.h"
#include "mm/frame_block.h"
#include "mm/lock.h"
#include "mm/step.h"

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

// Maps a page of the manager's own at entry number `at` of all slots: its only mapping.
static always_inline void map_own(frame_t *frame, uint64_t at, pgentry_t entry)
{
    uint32_t index;

    assert(!*shadow_of(at) && !frame->maps);
    frame_pin(frame, 1); // it is in use: this CPU has just taken it
    index =
        record_new(&mm.records.head, frame, 0, at, tag_of(1, VATTR_W), extent_of(1, ORDER_4K, 0));
    mm.records.count--;
    entry_write(at, index, entry);
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
        map_own(frame + i, w.slot * PT_ENTRIES + w.index + i, entry + ((uint64_t)i << PAGE_SHIFT));
        arch_meta_map(va, frame_mfn(frame + i));
        page_zero(vaddr_ptr(va));
    }
    return frame;
}
