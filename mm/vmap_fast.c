// SPDX-License-Identifier: BSD-2-Clause
// The fast paths of vmap_4k, vmap_2m, vput and vunmap: a block that is one entry of a page table
// that stands, or is made.
#include "mm/vmap_fast.h"

#include "mm/vmap_internal.h"
#include "mm/journal.h"

/* --- mapping ---------------------------------------------------------------------------------- */

// The lock is held, and given back: what the fast path began and left, this one ends.
static cold_path int map_slow(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                              unsigned attr, const void *caller)
{
    struct part p = whole_block(space, va, frame);
    int err;

    p.level = level;
    p.attr = attr;
    err = part_map(&p);
    if (err)
        recent_prune(space, va, level); // if it was made for nothing
    else
        journal_mapped(JOURNAL_MAP, caller, space, va, frame);
    map_unlock();
    return err;
}

static __attribute__((noinline)) int map_refill(space_t *space, vaddr_t va, frame_t *frame,
                                                unsigned level, unsigned attr, const void *caller);

// It is counted, but no block for the fast path: never was, or was put and taken meanwhile.
static cold_path int map_unpin(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                               unsigned attr, const void *caller)
{
    frame_unpin(frame, 1);
    return map_slow(space, va, frame, level, attr, caller);
}

// A first mapping at an entry that is empty. Whose block it is counts from when it is counted: a
// frame that the caller does not hold may be put until then, and taken as another one.
static always_inline int map_new(space_t *space, vaddr_t va, frame_t *frame, unsigned attr,
                                 uint64_t at, pgentry_t bits, const void *caller, unsigned level)
{
    uint64_t address;
    uint32_t index, next;

    if (unlikely(!mm.records.head))
        return map_refill(space, va, frame, level, attr, CALLER_OF(caller));
    if (unlikely(!bits || !frame_pin_once(frame)))
        return map_slow(space, va, frame, level, attr, CALLER_OF(caller));
    address = block_address(frame, level);
    if (unlikely(address & WORD_BITS))
        return map_unpin(space, va, frame, level, attr, CALLER_OF(caller));
    bits += address;
    __asm__("" : "+r"(bits)); // from here on without the address
    if (unlikely(!list_front(frame, mm.records.head, attr, &next)))
        return map_unpin(space, va, frame, level, attr, CALLER_OF(caller));
    index = record_new(&mm.records.head, frame, next, at, tag_of(level, attr),
                       extent_of(level, level_order(level), 0));
    mm.records.count--; // not beside the head: the two would be put together to be stored at once
    recent_table(space, level)->used++;
    entry_write(at, index, bits);
    journal(JOURNAL_MAP, CALLER_OF(caller), va.v, frame_word(frame), frame_counts(frame), 1);
    spin_unlock(&mm.map_lock);
    return 0;
}

// For the public functions themselves, which end in these.
static tail_path int map_new_4k(space_t *space, vaddr_t va, frame_t *frame, unsigned attr,
                                uint64_t at, pgentry_t bits)
{
    return map_new(space, va, frame, attr, at, bits, NULL, 1);
}

static tail_path int map_new_2m(space_t *space, vaddr_t va, frame_t *frame, unsigned attr,
                                uint64_t at, pgentry_t bits)
{
    return map_new(space, va, frame, attr, at, bits, NULL, 2);
}

// The mapping that stands there, if it is this very one, counted up.
static always_inline bool map_again(vaddr_t va, frame_t *frame, uint64_t at, uint32_t index,
                                    pgentry_t entry, const void *caller)
{
    uint32_t *tag = record_tag(mapping_at(index)), old = *tag;

    // The same entry is the same frame with the same attributes: its record says no other.
    if (unlikely(((*entry_of(at) ^ entry) & ~(pgentry_t)(PG_A | PG_D)) ||
                 !refs_up(frame, tag, old)))
        return false;
    journal(JOURNAL_MAP, caller, va.v, frame_word(frame), frame_counts(frame),
            (old + TAG_REF) >> TAG_REFS_SHIFT);
    return true;
}

static __attribute__((noinline)) int map_miss(space_t *space, vaddr_t va, frame_t *frame,
                                              unsigned level, unsigned attr, const void *caller);

// The entry is known. The lock is held, and given back.
static always_inline int map_entry(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                   unsigned attr, uint64_t at, const void *caller)
{
    pgentry_t bits = mm.leaf_bits[level - 1][attr];
    uint32_t index = *shadow_of(at);
    uint64_t address;

    if (likely(!index) && caller)
        return map_new(space, va, frame, attr, at, bits, caller, level);
    if (likely(!index))
        return level == 1 ? map_new_4k(space, va, frame, attr, at, bits)
                          : map_new_2m(space, va, frame, attr, at, bits);
    address = block_address(frame, level);
    if (unlikely((index & SHADOW_TABLE) || (address & WORD_BITS) ||
                 !map_again(va, frame, at, index, bits + address, CALLER_OF(caller))))
        return map_slow(space, va, frame, level, attr, CALLER_OF(caller));
    spin_unlock(&mm.map_lock);
    return 0;
}

// `attrs`: those that the space allows.
static always_inline int map_locked(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                    unsigned attr, unsigned attrs, const void *caller)
{
    uint64_t at;

    if (unlikely((attr & ~attrs) || !known_frame(frame)))
        return map_slow(space, va, frame, level, attr, CALLER_OF(caller));
    if (unlikely(!find_entry(space, va, level, &at)))
        return map_miss(space, va, frame, level, attr, CALLER_OF(caller));
    return map_entry(space, va, frame, level, attr, at, caller);
}

static always_inline int map_space(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                   unsigned attr, const void *caller)
{
    if (unlikely(!space_is_live(space)))
        return map_slow(space, va, frame, level, attr, caller);
    return map_locked(space, va, frame, level, attr, space->id ? VATTR_ALL : ATTRS_KERNEL, caller);
}

static __attribute__((noinline)) int map_space_4k(space_t *space, vaddr_t va, frame_t *frame,
                                                  unsigned attr, const void *caller)
{
    return map_space(space, va, frame, 1, attr, caller);
}

static __attribute__((noinline)) int map_space_2m(space_t *space, vaddr_t va, frame_t *frame,
                                                  unsigned attr, const void *caller)
{
    return map_space(space, va, frame, 2, attr, caller);
}

// Whether a new mapping would hardly be refused, as far as frame and attributes go: a frame that is
// put meanwhile may say anything.
static always_inline bool is_welcome(const frame_t *frame, unsigned level, unsigned attr)
{
    uint32_t first = frame->maps;

    return mm.leaf_bits[level - 1][attr] && frame_counts(frame) &&
           !(block_address(frame, level) & WORD_BITS) &&
           (!first || (first < mm.arena[ARENA_MAPPINGS].pages * (PAGE_SIZE / sizeof(uint32_t)) &&
                       !((mapping_at(first)->attr ^ attr) & VATTR_TYPE)));
}

// Another table than the one used last, which may have to be made. All else is as the fast path
// wants it.
static always_inline int map_elsewhere(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                       unsigned attr, const void *caller)
{
    uint64_t at = find_elsewhere(space, va, level, is_welcome(frame, level, attr));

    if (unlikely(!at))
        return map_slow(space, va, frame, level, attr, caller);
    return map_entry(space, va, frame, level, attr, at, caller);
}

static int map_miss(space_t *space, vaddr_t va, frame_t *frame, unsigned level, unsigned attr,
                    const void *caller)
{
    return level == 1 ? map_elsewhere(space, va, frame, 1, attr, caller)
                      : map_elsewhere(space, va, frame, 2, attr, caller);
}

// There is no record in the cache.
static int map_refill(space_t *space, vaddr_t va, frame_t *frame, unsigned level, unsigned attr,
                      const void *caller)
{
    if (!records_refill())
        return map_slow(space, va, frame, level, attr, caller);
    return level == 1 ? map_space_4k(space, va, frame, attr, caller)
                      : map_space_2m(space, va, frame, attr, caller);
}

// There is work to do, or another CPU has the lock.
static cold_path int map_busy(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                              unsigned attr, const void *caller)
{
    int err;

    if (!space)
        space = kernel_space();
    map_lock();
    err = level == 1 ? map_space_4k(space, va, frame, attr, caller)
                     : map_space_2m(space, va, frame, attr, caller);
    do_work();
    return err;
}

static always_inline int map_one(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                 unsigned attr)
{
    if (unlikely(!enter()))
        return map_busy(space, va, frame, level, attr, CALLER);
    if (likely(!space))
        return map_locked(kernel_space(), va, frame, level, attr, ATTRS_KERNEL, NULL);
    return level == 1 ? map_space_4k(space, va, frame, attr, CALLER)
                      : map_space_2m(space, va, frame, attr, CALLER);
}

int vmap_4k(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_one(space, va, frame, 1, attr);
}

int vmap_2m(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_one(space, va, frame, 2, attr);
}

/* --- unmapping -------------------------------------------------------------------------------- */

// Whether the entry maps that block. Then its record has all of it, as it was mapped: the block is
// no larger than the page.
static always_inline bool same_block(uint64_t at, uint64_t address, unsigned level)
{
    uint64_t differ = *entry_of(at) ^ address;

    return !(differ & (level == 1 ? PG_ADDR : PG_ADDR & ~(pgentry_t)PG_PAT_BIG));
}

// The lock is held, and given back: what the fast path began and left, this one ends.
static cold_path int unmap_slow(space_t *space, vaddr_t va, frame_t *frame, bool all,
                                const void *caller)
{
    struct part p = whole_block(space, va, frame);
    int err = all ? part_unmap(&p) : part_put(&p);

    if (!err)
        journal_mapped(JOURNAL_UNMAP, caller, space, va, frame);
    map_unlock();
    return err;
}

// The mapping was the last of what kept the frame in use.
static cold_path int unmap_free(vaddr_t va, frame_t *frame, uint32_t refs, const void *caller)
{
    journal(JOURNAL_UNMAP, caller, va.v, frame_word(frame),
            frame_counts(frame) - ((uint64_t)refs << COUNT_MAP_SHIFT), 0);
    frame_unpin(frame, refs);
    map_unlock();
    return 0;
}

// The mapping goes, if no other CPU is to be asked and the table stays. The frame may be had by
// others only when no CPU can reach it.
static always_inline int unmap_last(space_t *space, vaddr_t va, frame_t *frame, uint64_t at,
                                    uint32_t index, const void *caller, unsigned level)
{
    struct table *table = recent_table(space, level);
    mapping_t *m = mapping_at(index);
    uint64_t counts, refs;

    if (unlikely(table->used == 1 || (space->cpus & cpu_others()) ||
                 mm.records.count == RECORD_CACHE_MAX))
        return unmap_slow(space, va, frame, true, caller);
    entry_clear(at);
    tlb_flush_page(va);
    shadow_clear(at);
    table->used--;
    frame->epoch = ++mm.epoch;
    record_unlist(frame, m->next, m->prev);
    refs = *record_tag(m) >> TAG_REFS_SHIFT;
    record_put(m, index);
    counts = frame_unpin_shared(frame, refs);
    if (unlikely(!counts))
        return unmap_free(va, frame, (uint32_t)refs, caller);
    journal(JOURNAL_UNMAP, caller, va.v, frame_word(frame), counts, 0);
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
    left = refs_down(frame, tag);
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

static cold_path int unmap_busy(space_t *space, vaddr_t va, frame_t *frame, bool all,
                                const void *caller)
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
