// SPDX-License-Identifier: BSD-2-Clause
// vmap_part() and vput_part(), and their common case: one page of a block, of whatever size, in the
// kernel's space.
#include "arch/x86/tlb.h"
#include "mm/internal.h"
#include "mm/journal.h"
#include "mm/vmap.h"

// As in single.h: what is not simple is for functions that the fast ones end in, and descriptors
// and records are looked at by whole words.
#define slow   __attribute__((noinline, cold))
#define ending __attribute__((noinline))

enum {
    WORD_KIND = FRAME_KIND_COUNT - 1, // of a descriptor's first word
    WORD_ORDER_SHIFT = 4,
    WORD_ORDER = 31,

    TAG_LEVEL_4K = 1 << 6, // of a record's fourth
    TAG_REFS_SHIFT = 8,
    TAG_REF = 1 << TAG_REFS_SHIFT,
    TAG_EXTENT_4K = 1 << 28, // of its fifth: home_level 1, offset and orders 0

    // Whose pages anyone may map, writable too, and as they are: page tables and the manager's own
    // memory have rules of their own, and devices no type unless they are asked for one.
    KINDS = ((1 << FRAME_KIND_COUNT) - 1) &
            ~(1 << FRAME_NONE | 1 << FRAME_TABLE | 1 << FRAME_METADATA | 1 << FRAME_DEVICE),
};

// A record by its words.
struct record {
    uint32_t next, prev, at, tag, extent;
} __attribute__((may_alias));

static always_inline struct record *record_at(uint32_t index)
{
    return (struct record *)mapping_at(index);
}

/* --- the page and its entry
 * ---------------------------------------------------------------------------- */

static always_inline bool known_frame(const frame_t *frame)
{
    return frame_number(frame) < mm.frame_limit;
}

// Whether there is such a page, and it is for the fast path: memory that is write-back for sure, if
// no type is asked for, or anything uncached.
static always_inline bool is_page(const frame_t *frame, uint64_t offset, unsigned attr)
{
    uint64_t block = frame_word(frame);
    unsigned kind = block & WORD_KIND;

    if (unlikely(!(KINDS >> kind & 1)) && (kind != FRAME_DEVICE || !(attr & VATTR_TYPE)))
        return false;
    if (unlikely(attr & VATTR_TYPE ? (attr & VATTR_TYPE) != VATTR_UC
                                   : (block >> PAGE_SHIFT) - type_wb.first >= type_wb.pages &&
                                         !(mm.wb_kinds >> kind & 1)))
        return false;
    return !(offset >> (block >> WORD_ORDER_SHIFT & WORD_ORDER));
}

// What part_word() makes of it: the order is that of a page. Of a tail it is no address.
static always_inline uint64_t page_word(const frame_t *frame, uint64_t offset)
{
    return (frame_word(frame) & ~(uint64_t)(WORD_ORDER << WORD_ORDER_SHIFT)) +
           (offset << PAGE_SHIFT);
}

static always_inline uint64_t page_address(uint64_t word)
{
    return word & ~(uint64_t)(PAGE_SIZE - 1);
}

static always_inline uint32_t page_extent(uint64_t offset)
{
    return TAG_EXTENT_4K + (uint32_t)offset;
}

static always_inline struct recent_table *recent(void)
{
    return &kernel_space()->recent[0];
}

static always_inline struct table *table_of_recent(void)
{
    return (struct table *)(uintptr_t)recent()->table;
}

// The number of va's entry among those of all slots; false if its table is not the recent one, or
// va not aligned: then odd bytes make the distance huge.
static always_inline bool find_entry(vaddr_t va, uint32_t *at)
{
    uint64_t bytes = va.v - recent()->va;
    uint64_t pages = bytes >> PAGE_SHIFT | bytes << (64 - PAGE_SHIFT);

    *at = recent()->at + (uint32_t)pages;
    return pages < recent()->count;
}

static always_inline uint32_t *shadow_of(uint32_t at)
{
    return (uint32_t *)(uintptr_t)VA_SHADOWS + at;
}

static always_inline pgentry_t *entry_of(uint32_t at)
{
    return (pgentry_t *)(uintptr_t)VA_WINDOW + at;
}

// Where va's entry is, in whatever table; 0 if there is none yet.
static always_inline uint32_t find_elsewhere(vaddr_t va)
{
    return IS_ALIGNED(va.v, PAGE_SIZE) ? recent_at(kernel_space(), va, 1, false) : 0;
}

// Whether the entry maps that page of the frame, by a record of its own: then there is that page.
static always_inline bool same_page(uint32_t at, uint32_t index, uint64_t word, uint64_t offset)
{
    return (int32_t)index > 0 && (*entry_of(at) & PG_ADDR) == page_address(word) &&
           record_at(index)->extent == page_extent(offset);
}

/* --- mapping
 * -------------------------------------------------------------------------------------- */

// Order and attributes in one argument, so that all of them are in registers.
static always_inline uint64_t how_to(unsigned order, unsigned attr)
{
    return (uint64_t)order << 32 | attr;
}

// Everything else, map_lock held; it is given back.
static slow int map_slow(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, uint64_t how,
                         const void *caller)
{
    unsigned order = (unsigned)(how >> 32);
    int err = vmap_part_locked(space, va, frame, offset, order, (unsigned)how);

    if (!err)
        journal_part(JOURNAL_MAP, caller, space, va, frame, offset, order);
    map_unlock();
    return err;
}

static slow int map_busy(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, uint64_t how,
                         const void *caller)
{
    map_lock();
    return map_slow(space, va, frame, offset, how, caller);
}

static slow int map_page_slow(vaddr_t va, frame_t *frame, uint64_t offset, unsigned attr,
                              const void *caller)
{
    return map_slow(NULL, va, frame, offset, how_to(ORDER_4K, attr), caller);
}

// A first mapping at an entry that is empty.
static ending int map_new(vaddr_t va, frame_t *frame, uint64_t offset, unsigned attr, uint32_t at,
                          const void *caller)
{
    uint64_t word = page_word(frame, offset), counts = frame_counts(frame), more;
    uint32_t index = mm.records.head, next = frame->maps;
    pgentry_t bits = mm.leaf_bits[0][attr];
    struct record *m = record_at(index);

    if (unlikely(!index || !bits || !counts ||
                 __builtin_add_overflow(counts, UINT64_C(1) << COUNT_MAP_SHIFT, &more) ||
                 (next && ((record_at(next)->tag ^ attr) & VATTR_TYPE))))
        return map_page_slow(va, frame, offset, attr, caller);
    if (unlikely(!__atomic_compare_exchange_n(frame_counts_at(frame), &counts, more, false,
                                              __ATOMIC_RELAXED, __ATOMIC_RELAXED)))
        return map_page_slow(va, frame, offset, attr, caller);
    mm.records.head = m->at;
    mm.records.count--;
    *m = (struct record){next, 0, at, TAG_REF + TAG_LEVEL_4K + attr, page_extent(offset)};
    if (next)
        record_at(next)->prev = index;
    frame->maps = index;
    table_of_recent()->used++;
    *shadow_of(at) = index;
    *entry_of(at) = bits + page_address(word);
    journal(JOURNAL_MAP, caller, va.v, word, more, 1);
    spin_unlock(&mm.map_lock);
    return 0;
}

// The mapping that stands there, if it is this very one, counted up.
static ending int map_again(vaddr_t va, frame_t *frame, uint64_t offset, unsigned attr, uint32_t at,
                            const void *caller)
{
    uint64_t word = page_word(frame, offset);
    uint32_t index = *shadow_of(at), *tag = &record_at(index)->tag, more;

    if (unlikely(!same_page(at, index, word, offset) ||
                 (*tag & (TAG_REF - 1)) != attr + TAG_LEVEL_4K ||
                 __builtin_add_overflow(*tag, 2 * TAG_REF, &more) || frame->mapcount == UINT32_MAX))
        return map_page_slow(va, frame, offset, attr, caller);
    *tag += TAG_REF;
    __atomic_fetch_add(&frame->mapcount, 1, __ATOMIC_RELAXED);
    journal(JOURNAL_MAP, caller, va.v, word, frame_counts(frame), *tag >> TAG_REFS_SHIFT);
    spin_unlock(&mm.map_lock);
    return 0;
}

static always_inline int map_at(vaddr_t va, frame_t *frame, uint64_t offset, unsigned attr,
                                uint32_t at, const void *caller)
{
    return likely(!*shadow_of(at)) ? map_new(va, frame, offset, attr, at, caller)
                                   : map_again(va, frame, offset, attr, at, caller);
}

// Another table than the one used last.
static ending int map_elsewhere(vaddr_t va, frame_t *frame, uint64_t offset, unsigned attr,
                                const void *caller)
{
    uint32_t at = find_elsewhere(va);

    return likely(at) ? map_at(va, frame, offset, attr, at, caller)
                      : map_page_slow(va, frame, offset, attr, caller);
}

int vmap_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
              unsigned attr)
{
    uint32_t at;

    if (unlikely(space || order || mm.work || !spin_trylock(&mm.map_lock)))
        return map_busy(space, va, frame, offset, how_to(order, attr), CALLER);
    if (unlikely((attr & ~(unsigned)(VATTR_ALL & ~VATTR_U)) || !known_frame(frame) ||
                 !is_page(frame, offset, attr)))
        return map_page_slow(va, frame, offset, attr, CALLER);
    if (unlikely(!find_entry(va, &at)))
        return map_elsewhere(va, frame, offset, attr, CALLER);
    return map_at(va, frame, offset, attr, at, CALLER);
}

/* --- unmapping
 * ------------------------------------------------------------------------------------ */

static slow int unmap_slow(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                           unsigned order, const void *caller)
{
    int err = vput_part_locked(space, va, frame, offset, order);

    if (!err)
        journal_part(JOURNAL_UNMAP, caller, space, va, frame, offset, order);
    map_unlock();
    return err;
}

static slow int unmap_busy(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                           unsigned order, const void *caller)
{
    map_lock();
    return unmap_slow(space, va, frame, offset, order, caller);
}

static slow int unmap_page_slow(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller)
{
    return unmap_slow(NULL, va, frame, offset, ORDER_4K, caller);
}

// The mapping was the last of what kept the frame in use.
static slow int unmap_free(vaddr_t va, frame_t *frame, uint64_t refs, uint64_t word,
                           const void *caller)
{
    journal(JOURNAL_UNMAP, caller, va.v, word, frame_counts(frame) - (refs << COUNT_MAP_SHIFT), 0);
    frame_unmapped(frame, (uint32_t)refs);
    map_unlock();
    return 0;
}

static always_inline void list_remove(frame_t *frame, uint32_t next, uint32_t prev)
{
    if (likely(!prev))
        frame->maps = next;
    else
        record_at(prev)->next = next;
    if (next)
        record_at(next)->prev = prev;
}

// The mapping goes, if no other CPU is to be asked, the table stays, and there is room for the
// record. The frame may be had by others only when nothing can reach it any more.
static ending int unmap_last(vaddr_t va, frame_t *frame, uint64_t offset, uint32_t at,
                             uint32_t index, const void *caller)
{
    uint64_t counts, less, refs;

    if (unlikely(table_of_recent()->used == 1 || (kernel_space()->cpus & cpu_others()) ||
                 mm.records.count == RECORD_CACHE_MAX))
        return unmap_page_slow(va, frame, offset, caller);
    *entry_of(at) = 0;
    tlb_flush_page(va);
    *shadow_of(at) = 0;
    table_of_recent()->used--;
    frame->epoch = ++mm.epoch;
    list_remove(frame, record_at(index)->next, record_at(index)->prev);
    refs = record_at(index)->tag >> TAG_REFS_SHIFT;
    record_put(index);
    counts = frame_counts(frame);
    do {
        less = counts - (refs << COUNT_MAP_SHIFT);
        if (unlikely(!less))
            return unmap_free(va, frame, refs, page_word(frame, offset), caller);
    } while (unlikely(!__atomic_compare_exchange_n(frame_counts_at(frame), &counts, less, false,
                                                   __ATOMIC_RELEASE, __ATOMIC_RELAXED)));
    journal(JOURNAL_UNMAP, caller, va.v, page_word(frame, offset), less, 0);
    spin_unlock(&mm.map_lock);
    return 0;
}

static always_inline int unmap_at(vaddr_t va, frame_t *frame, uint64_t offset, uint32_t at,
                                  const void *caller)
{
    uint64_t word = page_word(frame, offset);
    uint32_t index = *shadow_of(at), *tag;

    if (unlikely(!same_page(at, index, word, offset)))
        return unmap_page_slow(va, frame, offset, caller);
    tag = &record_at(index)->tag;
    if (*tag < 2 * TAG_REF)
        return unmap_last(va, frame, offset, at, index, caller);
    *tag -= TAG_REF;
    __atomic_fetch_sub(&frame->mapcount, 1, __ATOMIC_RELAXED);
    journal(JOURNAL_UNMAP, caller, va.v, word, frame_counts(frame), *tag >> TAG_REFS_SHIFT);
    spin_unlock(&mm.map_lock);
    return 0;
}

static ending int unmap_elsewhere(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller)
{
    uint32_t at = find_elsewhere(va);

    return likely(at) ? unmap_at(va, frame, offset, at, caller)
                      : unmap_page_slow(va, frame, offset, caller);
}

int vput_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order)
{
    uint32_t at;

    if (unlikely(space || order || mm.work || !spin_trylock(&mm.map_lock)))
        return unmap_busy(space, va, frame, offset, order, CALLER);
    if (unlikely(!known_frame(frame) || !(frame_word(frame) & WORD_KIND)))
        return unmap_page_slow(va, frame, offset, CALLER);
    if (unlikely(!find_entry(va, &at)))
        return unmap_elsewhere(va, frame, offset, CALLER);
    return unmap_at(va, frame, offset, at, CALLER);
}
