// SPDX-License-Identifier: BSD-2-Clause
// The common case of vmap: a block that is one entry of a page table that stands, or is made.
#include "mm/vmap_fast.h"

// What a new record of a whole block says: offset 0, all else as the caller made it.
static always_inline uint32_t new_word(unsigned number, unsigned level)
{
    mapping_t whole = {.refs = 1,
                       .level = level,
                       .order = level_order(level),
                       .home = level_order(level),
                       .home_level = level};
    uint32_t word;

    __builtin_memcpy(&word, (const uint32_t *)&whole + number, sizeof(word));
    return word;
}

// The lock is held, and given back: what the fast path began and left, this one ends.
static slow int map_slow(space_t *space, vaddr_t va, frame_t *frame, unsigned level, unsigned attr,
                         const void *caller)
{
    int err = vmap_pages(space, va, frame, level, attr);

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
static slow int map_unpin(space_t *space, vaddr_t va, frame_t *frame, unsigned level, unsigned attr,
                          const void *caller)
{
    frame_unmapped(frame, 1);
    return map_slow(space, va, frame, level, attr, caller);
}

// A first mapping at an entry that is empty. Whose block it is counts from when it is counted: a
// frame that the caller does not hold may be put until then, and taken as another one.
static always_inline int map_new(space_t *space, vaddr_t va, frame_t *frame, unsigned attr,
                                 uint64_t at, pgentry_t bits, const void *caller, unsigned level)
{
    uint64_t counts = frame_counts(frame), more, address;
    uint32_t index, next;
    mapping_t *m;

    if (unlikely(!mm.records.head))
        return map_refill(space, va, frame, level, attr, CALLER_OF(caller));
    if (unlikely(!bits || !counts ||
                 __builtin_add_overflow(counts, UINT64_C(1) << COUNT_MAP_SHIFT, &more) ||
                 !__atomic_compare_exchange_n(frame_counts_at(frame), &counts, more, false,
                                              __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)))
        return map_slow(space, va, frame, level, attr, CALLER_OF(caller));
    address = block_address(frame, level);
    if (unlikely(address & WORD_BITS))
        return map_unpin(space, va, frame, level, attr, CALLER_OF(caller));
    bits += address;
    __asm__("" : "+r"(bits)); // from here on without the address
    next = frame->maps;
    if (next) {
        mapping_t *first = mapping_at(next);

        if (unlikely((first->attr ^ attr) & VATTR_TYPE))
            return map_unpin(space, va, frame, level, attr, CALLER_OF(caller));
        first->prev = mm.records.head;
    }
    index = mm.records.head; // not before: a register less is in use until here
    m = mapping_at(index);
    __asm__("" : "+r"(m)); // one register: else it may be worked out anew for each field
    // And prev. Before the next line, which may then do with next's register.
    *(words_t *)&m->next = next;
    mm.records.head = m->at;
    m->at = (uint32_t)at;
    *(word_t *)record_tag(m) = new_word(WORD_TAG, level) + attr;
    ((word_t *)m)[WORD_EXTENT] = new_word(WORD_EXTENT, level);
    frame->maps = index;
    mm.records.count--; // not beside the head: the two would be put together to be stored at once
    recent_table(space, level)->used++;
    *shadow_of(at) = index;
    *entry_of(at) = bits;
    journal(JOURNAL_MAP, CALLER_OF(caller), va.v, frame_word(frame), frame_counts(frame), 1);
    spin_unlock(&mm.map_lock);
    return 0;
}

// For the public functions themselves, which end in these.
static ending int map_new_4k(space_t *space, vaddr_t va, frame_t *frame, unsigned attr, uint64_t at,
                             pgentry_t bits)
{
    return map_new(space, va, frame, attr, at, bits, NULL, 1);
}

static ending int map_new_2m(space_t *space, vaddr_t va, frame_t *frame, unsigned attr, uint64_t at,
                             pgentry_t bits)
{
    return map_new(space, va, frame, attr, at, bits, NULL, 2);
}

// The mapping that stands there, if it is this very one, counted up.
static always_inline bool map_again(vaddr_t va, frame_t *frame, uint64_t at, uint32_t index,
                                    pgentry_t entry, const void *caller)
{
    uint32_t *tag = record_tag(mapping_at(index)), old = *tag;

    // The same entry is the same frame with the same attributes: its record says no other.
    if (unlikely(((*entry_of(at) ^ entry) & ~(pgentry_t)(PG_A | PG_D)) || old >= TAG_FULL ||
                 frame->mapcount == UINT32_MAX))
        return false;
    *tag = old + TAG_REF;
    __atomic_fetch_add(&frame->mapcount, 1, __ATOMIC_RELAXED);
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
static slow int map_busy(space_t *space, vaddr_t va, frame_t *frame, unsigned level, unsigned attr,
                         const void *caller)
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
