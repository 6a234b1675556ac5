// SPDX-License-Identifier: BSD-2-Clause
// The common case of vmap, vput and vunmap: a block that is one entry of a page table that stands.
#include "arch/x86/tlb.h"
#include "mm/internal.h"
#include "mm/journal.h"
#include "mm/vmap.h"

// What is not as simple as that is for functions that the fast ones end in, so that these need no
// stack. Descriptors and records are looked at by whole words here: a compiler handles bit-fields
// one by one.
#define TAG_FULL ((uint32_t)-2 * TAG_REF) // from here on there may be no room for one more

#define slow __attribute__((noinline, cold))

// A function that the public ones end in, so that it has their return address.
#ifdef KTF_HOST
#define ending always_inline
#else
#define ending __attribute__((noinline))
#endif

// Inlined in a public function, `caller` is NULL: its return address is read when it is needed, for
// a register kept for it all the way would have to be saved.
#define CALLER_OF(caller) ((caller) ? (caller) : CALLER)
#define given_caller      __attribute__((nonnull))

enum {
    // A descriptor's first word, in whose place the address of the block's first page remains when
    // these are taken off: available memory of that order, no table, no tail.
    WORD_AVAILABLE = FRAME_AVAILABLE,
    WORD_ORDER_SHIFT = 4,
    WORD_BITS = PAGE_SIZE - 1,

    TAG_LEVEL_SHIFT = 6, // of a record's fourth
    TAG_REFS_SHIFT = 8,
    TAG_REF = 1 << TAG_REFS_SHIFT,
    WORD_TAG = 3,    // attr, level, refs
    WORD_EXTENT = 4, // offset, order, home, home_level
};

typedef uint32_t __attribute__((may_alias)) word_t;
typedef uint64_t __attribute__((may_alias, aligned(4))) words_t;

static always_inline uint32_t *record_tag(mapping_t *m)
{
    return (uint32_t *)m + WORD_TAG;
}

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

// Takes the lock, unless there is work to do or another CPU has it.
static always_inline bool enter(void)
{
    return !(mm.work & MM_WORK) && spin_trylock(&mm.map_lock);
}

/* --- where it is
 * ---------------------------------------------------------------------------------- */

// The physical address of the block's first page; with any of WORD_BITS set it is no available
// block of one page of that level.
static always_inline uint64_t block_address(const frame_t *frame, unsigned level)
{
    return frame_word(frame) - (WORD_AVAILABLE + (level_order(level) << WORD_ORDER_SHIFT));
}

// The number of va's entry among those of all slots; false if its table is not the recent one, or
// va not aligned.
static always_inline bool find_entry(const space_t *space, vaddr_t va, unsigned level, uint32_t *at)
{
    const struct recent_table *recent = &space->recent[level - 1];
    uint64_t index = va.v - recent->va;

    index = index >> level_shift(level) | index << (64 - level_shift(level)); // odd bytes: huge
    *at = recent->at + (uint32_t)index;
    return index < recent->count;
}

static always_inline struct table *recent_table(const space_t *space, unsigned level)
{
    return (struct table *)(uintptr_t)space->recent[level - 1].table;
}

static always_inline uint32_t *shadow_of(uint32_t at)
{
    return (uint32_t *)(uintptr_t)VA_SHADOWS + at;
}

static always_inline pgentry_t *entry_of(uint32_t at)
{
    return (pgentry_t *)(uintptr_t)VA_WINDOW + at;
}

// Whether the entry maps that block. Then its record has all of it, as it was mapped: the block is
// no larger than the page.
static always_inline bool same_block(uint32_t at, uint64_t address, unsigned level)
{
    uint64_t differ = *entry_of(at) ^ address;

    return !(differ & (level == 1 ? PG_ADDR : PG_ADDR & ~(pgentry_t)PG_PAT_BIG));
}

static always_inline bool known_frame(const frame_t *frame)
{
    return frame_number(frame) < mm.frame_limit;
}

/* --- mapping
 * -------------------------------------------------------------------------------------- */

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

// A first mapping at an entry that is empty.
static always_inline int map_new(space_t *space, vaddr_t va, frame_t *frame, unsigned attr,
                                 uint32_t at, pgentry_t entry, const void *caller, unsigned level)
{
    uint32_t index = mm.records.head, next;
    uint64_t counts = frame_counts(frame), more;
    mapping_t *m;

    if (unlikely(!index))
        return map_refill(space, va, frame, level, attr, CALLER_OF(caller));
    if (unlikely(!(entry & PG_P) || !counts ||
                 __builtin_add_overflow(counts, UINT64_C(1) << COUNT_MAP_SHIFT, &more) ||
                 (frame->maps && ((mapping_at(frame->maps)->attr ^ attr) & VATTR_TYPE)) ||
                 !__atomic_compare_exchange_n(frame_counts_at(frame), &counts, more, false,
                                              __ATOMIC_RELAXED, __ATOMIC_RELAXED)))
        return map_slow(space, va, frame, level, attr, CALLER_OF(caller));
    m = mapping_at(index);
    mm.records.head = m->at;
    next = frame->maps;
    *(words_t *)&m->next = next; // and prev
    if (next)
        mapping_at(next)->prev = index;
    m->at = at;
    *(word_t *)record_tag(m) = new_word(WORD_TAG, level) + attr;
    ((word_t *)m)[WORD_EXTENT] = new_word(WORD_EXTENT, level);
    frame->maps = index;
    mm.records.count--; // not beside the head: the two would be put together to be stored at once
    recent_table(space, level)->used++;
    *shadow_of(at) = index;
    *entry_of(at) = entry;
    journal(JOURNAL_MAP, CALLER_OF(caller), va.v, frame_word(frame), frame_counts(frame), 1);
    spin_unlock(&mm.map_lock);
    return 0;
}

// For the public functions themselves, which end in these.
static ending int map_new_4k(space_t *space, vaddr_t va, frame_t *frame, unsigned attr, uint32_t at,
                             pgentry_t entry)
{
    return map_new(space, va, frame, attr, at, entry, NULL, 1);
}

static ending int map_new_2m(space_t *space, vaddr_t va, frame_t *frame, unsigned attr, uint32_t at,
                             pgentry_t entry)
{
    return map_new(space, va, frame, attr, at, entry, NULL, 2);
}

// The mapping that stands there, if it is this very one, counted up.
static always_inline bool map_again(vaddr_t va, frame_t *frame, uint32_t at, uint32_t index,
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
                                   unsigned attr, uint32_t at, const void *caller)
{
    pgentry_t entry = mm.leaf_bits[level - 1][attr] + block_address(frame, level);
    uint32_t index = *shadow_of(at);

    if (likely(!index) && caller)
        return map_new(space, va, frame, attr, at, entry, caller, level);
    if (likely(!index))
        return level == 1 ? map_new_4k(space, va, frame, attr, at, entry)
                          : map_new_2m(space, va, frame, attr, at, entry);
    if (unlikely((index & SHADOW_TABLE) ||
                 !map_again(va, frame, at, index, entry, CALLER_OF(caller))))
        return map_slow(space, va, frame, level, attr, CALLER_OF(caller));
    spin_unlock(&mm.map_lock);
    return 0;
}

// `attrs`: those that the space allows.
static always_inline int map_locked(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                    unsigned attr, unsigned attrs, const void *caller)
{
    uint32_t at;

    if (unlikely((attr & ~attrs) || !known_frame(frame) ||
                 (block_address(frame, level) & WORD_BITS)))
        return map_slow(space, va, frame, level, attr, CALLER_OF(caller));
    if (unlikely(!find_entry(space, va, level, &at)))
        return map_miss(space, va, frame, level, attr, CALLER_OF(caller));
    return map_entry(space, va, frame, level, attr, at, caller);
}

enum {
    ATTRS_KERNEL = VATTR_ALL & ~VATTR_U,
};

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

// Whether a new mapping would not be refused, as far as frame and attributes go.
static always_inline bool is_welcome(const frame_t *frame, unsigned level, unsigned attr)
{
    return mm.leaf_bits[level - 1][attr] && frame_counts(frame) &&
           (!frame->maps || !((mapping_at(frame->maps)->attr ^ attr) & VATTR_TYPE));
}

// Another table than the one used last, which may have to be made. All else is as the fast path
// wants it.
static always_inline int map_elsewhere(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                       unsigned attr, const void *caller)
{
    uint32_t at = 0;

    if (likely(IS_ALIGNED(va.v, UINT64_C(1) << level_shift(level))))
        at = recent_at(space, va, level, is_welcome(frame, level, attr));
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
    if (mm.work) {
        map_lock();
        map_unlock();
    }
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

/* --- unmapping
 * ------------------------------------------------------------------------------------ */

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

static always_inline void list_remove(frame_t *frame, const mapping_t *m)
{
    if (likely(!m->prev))
        frame->maps = m->next;
    else
        mapping_at(m->prev)->next = m->next;
    if (m->next)
        mapping_at(m->next)->prev = m->prev;
}

// The mapping goes, if no other CPU is to be asked and the table stays. The frame may be had by
// others only when nothing can reach it any more.
static always_inline int unmap_last(space_t *space, vaddr_t va, frame_t *frame, uint32_t at,
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
    list_remove(frame, m);
    refs = *record_tag(m) >> TAG_REFS_SHIFT;
    record_put(index);
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
                                                   uint32_t at, uint32_t index, const void *caller)
{
    return unmap_last(space, va, frame, at, index, caller, 1);
}

static __attribute__((noinline)) int unmap_last_2m(space_t *space, vaddr_t va, frame_t *frame,
                                                   uint32_t at, uint32_t index, const void *caller)
{
    return unmap_last(space, va, frame, at, index, caller, 2);
}

static __attribute__((noinline)) int unmap_miss(space_t *space, vaddr_t va, frame_t *frame,
                                                bool all, const void *caller);

// The entry is known. The lock is held, and given back.
static always_inline int unmap_entry(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                     uint32_t at, bool all, const void *caller)
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
    uint32_t at;

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
    uint32_t at = 0;

    if (likely(IS_ALIGNED(va.v, UINT64_C(1) << level_shift(level))))
        at = recent_at(space, va, level, false);
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
    if (mm.work) {
        map_lock();
        map_unlock();
    }
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
