// SPDX-License-Identifier: BSD-2-Clause
// The common case of vput and vunmap.
#include "mm/vmap_fast.h"

// Whether the entry maps that block. Then its record has all of it, as it was mapped: the block is
// no larger than the page.
static always_inline bool same_block(uint64_t at, uint64_t address, unsigned level)
{
    uint64_t differ = *entry_of(at) ^ address;

    return !(differ & (level == 1 ? PG_ADDR : PG_ADDR & ~(pgentry_t)PG_PAT_BIG));
}

// The lock is held, and given back: what the fast path began and left, this one ends.
static slow int unmap_slow(space_t *space, vaddr_t va, frame_t *frame, bool all, const void *caller)
{
    int err = vput_whole(space, va, frame, all);

    if (!err)
        journal_mapped(JOURNAL_UNMAP, caller, space, va, frame);
    map_unlock();
    return err;
}

// The mapping was the last of what kept the frame in use.
static slow int unmap_free(vaddr_t va, frame_t *frame, uint32_t refs, const void *caller)
{
    journal(JOURNAL_UNMAP, caller, va.v, frame_word(frame),
            frame_counts(frame) - ((uint64_t)refs << COUNT_MAP_SHIFT), 0);
    frame_unmapped(frame, refs);
    map_unlock();
    return 0;
}

// The mapping goes, if no other CPU is to be asked and the table stays. The frame may be had by
// others only when nothing can reach it any more.
static always_inline int unmap_last(space_t *space, vaddr_t va, frame_t *frame, uint64_t at,
                                    uint32_t index, const void *caller, unsigned level)
{
    struct table *table = recent_table(space, level);
    mapping_t *m = mapping_at(index);
    uint64_t counts, less, refs;

    if (unlikely(table->used == 1 || (space->cpus & cpu_others()) ||
                 mm.records.count == RECORD_CACHE_MAX))
        return unmap_slow(space, va, frame, true, caller);
    *entry_of(at) = 0;
    tlb_flush_page(va);
    *shadow_of(at) = 0;
    table->used--;
    frame->epoch = ++mm.epoch;
    list_remove(frame, m->next, m->prev);
    refs = *record_tag(m) >> TAG_REFS_SHIFT;
    record_put(m, index);
    counts = frame_counts(frame);
    do {
        less = counts - (refs << COUNT_MAP_SHIFT);
        if (unlikely(!less))
            return unmap_free(va, frame, (uint32_t)refs, caller);
    } while (unlikely(!__atomic_compare_exchange_n(frame_counts_at(frame), &counts, less, false,
                                                   __ATOMIC_RELEASE, __ATOMIC_RELAXED)));
    journal(JOURNAL_UNMAP, caller, va.v, frame_word(frame), less, 0);
    spin_unlock(&mm.map_lock);
    return 0;
}

static __attribute__((noinline)) int unmap_last_4k(space_t *space, vaddr_t va, frame_t *frame,
                                                   uint64_t at, uint32_t index, const void *caller)
{
    return unmap_last(space, va, frame, at, index, caller, 1);
}

static __attribute__((noinline)) int unmap_last_2m(space_t *space, vaddr_t va, frame_t *frame,
                                                   uint64_t at, uint32_t index, const void *caller)
{
    return unmap_last(space, va, frame, at, index, caller, 2);
}

static __attribute__((noinline)) int unmap_miss(space_t *space, vaddr_t va, frame_t *frame,
                                                bool all, const void *caller);

// The entry is known. The lock is held, and given back.
static always_inline int unmap_entry(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                     uint64_t at, bool all, const void *caller)
{
    uint32_t index = *shadow_of(at), *tag, left;

    if (unlikely((int32_t)index <= 0 || !same_block(at, block_address(frame, level), level)))
        return unmap_slow(space, va, frame, all, caller);
    tag = record_tag(mapping_at(index));
    if (all || *tag < 2 * TAG_REF)
        return level == 1 ? unmap_last_4k(space, va, frame, at, index, caller)
                          : unmap_last_2m(space, va, frame, at, index, caller);
    left = *tag - TAG_REF;
    *tag = left;
    __atomic_fetch_sub(&frame->mapcount, 1, __ATOMIC_RELAXED);
    journal(JOURNAL_UNMAP, caller, va.v, frame_word(frame), frame_counts(frame),
            left >> TAG_REFS_SHIFT);
    spin_unlock(&mm.map_lock);
    return 0;
}

static always_inline int unmap_locked(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                      bool all, const void *caller)
{
    uint64_t at;

    if (unlikely(!find_entry(space, va, level, &at)))
        return unmap_miss(space, va, frame, all, caller);
    return unmap_entry(space, va, frame, level, at, all, caller);
}

// A block that is one page.
static always_inline int unmap_block(space_t *space, vaddr_t va, frame_t *frame, bool all,
                                     const void *caller)
{
    if (unlikely(!known_frame(frame)))
        return unmap_slow(space, va, frame, all, caller);
    if (likely(!(block_address(frame, 1) & WORD_BITS)))
        return unmap_locked(space, va, frame, 1, all, caller);
    if (likely(!(block_address(frame, 2) & WORD_BITS)))
        return unmap_locked(space, va, frame, 2, all, caller);
    return unmap_slow(space, va, frame, all, caller);
}

static __attribute__((noinline)) int unmap_space(space_t *space, vaddr_t va, frame_t *frame,
                                                 bool all, const void *caller)
{
    if (unlikely(!space_is_live(space)))
        return unmap_slow(space, va, frame, all, caller);
    return all ? unmap_block(space, va, frame, true, caller)
               : unmap_block(space, va, frame, false, caller);
}

// Another table than the one used last.
static always_inline int unmap_elsewhere(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                         bool all, const void *caller)
{
    uint64_t at = find_elsewhere(space, va, level, false);

    if (unlikely(!at))
        return unmap_slow(space, va, frame, all, caller);
    return unmap_entry(space, va, frame, level, at, all, caller);
}

static int unmap_miss(space_t *space, vaddr_t va, frame_t *frame, bool all, const void *caller)
{
    if (likely(!(block_address(frame, 1) & WORD_BITS)))
        return unmap_elsewhere(space, va, frame, 1, all, caller);
    return unmap_elsewhere(space, va, frame, 2, all, caller);
}

static slow int unmap_busy(space_t *space, vaddr_t va, frame_t *frame, bool all, const void *caller)
{
    int err;

    map_lock();
    err = unmap_space(space ? space : kernel_space(), va, frame, all, caller);
    do_work();
    return err;
}

static always_inline int unmap_one(space_t *space, vaddr_t va, frame_t *frame, bool all,
                                   const void *caller)
{
    if (unlikely(!enter()))
        return unmap_busy(space, va, frame, all, caller);
    if (likely(!space))
        return unmap_block(kernel_space(), va, frame, all, caller);
    return unmap_space(space, va, frame, all, caller);
}

int vput(space_t *space, vaddr_t va, frame_t *frame)
{
    return unmap_one(space, va, frame, false, CALLER);
}

int vunmap(space_t *space, vaddr_t va, frame_t *frame)
{
    return unmap_one(space, va, frame, true, CALLER);
}
