// SPDX-License-Identifier: BSD-2-Clause
// vmap_page() and vput_page(): one page of a block of whatever size, in the kernel's space.
#include "mm/vmap_fast.h"

enum {
    WORD_KIND = FRAME_KIND_COUNT - 1, // of a descriptor's first word
    WORD_ORDER = WORD_ORDER_MASK << WORD_ORDER_SHIFT,
    ORDER_BITS = 63, // with the lowest of level, which is 0 for what is no table

    TAG_4K = 1 << 6,     // of a record's fourth: level 1
    EXTENT_4K = 1 << 28, // of its fifth: home_level 1, offset and orders 0

    // Whose pages anyone may map, writable too, and as they are: page tables and the manager's own
    // memory have rules of their own, and devices no type unless they are asked for one.
    KINDS = ((1 << FRAME_KIND_COUNT) - 1) &
            ~(1 << FRAME_NONE | 1 << FRAME_TABLE | 1 << FRAME_METADATA | 1 << FRAME_DEVICE),
};

/* --- the page --------------------------------------------------------------------------------- */

// Memory that is write-back for sure, if no type is asked for, or anything uncached.
static always_inline bool is_simple_type(uint64_t block, uint64_t attr)
{
    unsigned kind = block & WORD_KIND;

    if (unlikely(attr & VATTR_TYPE))
        return attr_type((unsigned)attr) == MEMTYPE_UC && ((KINDS | 1 << FRAME_DEVICE) >> kind & 1);
    return (KINDS >> kind & 1) && (likely((block >> PAGE_SHIFT) - type_wb.first < type_wb.pages) ||
                                   (mm.wb_kinds >> kind & 1));
}

// Whether there is such a page, and it is for the fast path.
static always_inline bool is_page(const frame_t *frame, uint64_t offset, uint64_t attr)
{
    uint64_t block = frame_word(frame);

    return is_simple_type(block, attr) && !(offset >> (block >> WORD_ORDER_SHIFT & ORDER_BITS));
}

// What part_word() makes of it: the order is that of a page. Of a tail it is no address.
static always_inline uint64_t page_word(const frame_t *frame, uint64_t offset)
{
    return (frame_word(frame) & ~(uint64_t)WORD_ORDER) + (offset << PAGE_SHIFT);
}

static always_inline uint64_t page_address(uint64_t word)
{
    return word & ~(uint64_t)(PAGE_SIZE - 1);
}

// Whether the entry maps that page of the frame, by a record of its own: then there is that page.
static always_inline bool same_page(uint64_t at, uint32_t index, uint64_t word, uint64_t offset)
{
    return (int32_t)index > 0 && !((*entry_of(at) ^ word) & PG_ADDR) &&
           ((word_t *)mapping_at(index))[WORD_EXTENT] == EXTENT_4K + (uint32_t)offset;
}

/* --- mapping ---------------------------------------------------------------------------------- */

// Everything else, map_lock held; it is given back.
static slow int map_slow(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t attr,
                         const void *caller)
{
    int err = vmap_part_locked(NULL, va, frame, offset, ORDER_4K, (unsigned)attr);

    if (!err)
        journal_part(JOURNAL_MAP, caller, NULL, va, frame, offset, ORDER_4K);
    map_unlock();
    return err;
}

static slow int map_busy(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t attr,
                         const void *caller)
{
    map_lock();
    return map_slow(va, frame, offset, attr, caller);
}

// It is counted, but not as the fast path wants it: never was, or was put and taken meanwhile.
static slow int map_unpin(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t attr,
                          const void *caller)
{
    frame_unmapped(frame, 1);
    return map_slow(va, frame, offset, attr, caller);
}

// A first mapping at an entry that is empty. Whose page it is counts from when the frame is
// counted: one that the caller does not hold may be put until then, and taken as another one.
static ending int map_new(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t at,
                          const void *caller, uint64_t attr)
{
    uint64_t counts = frame_counts(frame), word, more;
    uint32_t index, next;
    mapping_t *m;

    if (unlikely(!mm.records.head) || unlikely(!counts) ||
        unlikely(__builtin_add_overflow(counts, UINT64_C(1) << COUNT_MAP_SHIFT, &more)) ||
        unlikely(!__atomic_compare_exchange_n(frame_counts_at(frame), &counts, more, false,
                                              __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)))
        return map_slow(va, frame, offset, attr, caller);
    next = frame->maps;
    if (unlikely(!is_page(frame, offset, attr)) ||
        (next && unlikely((*record_tag(mapping_at(next)) ^ attr) & VATTR_TYPE)))
        return map_unpin(va, frame, offset, attr, caller);
    index = mm.records.head;
    m = mapping_at(index);
    mm.records.head = m->at;
    *(words_t *)&m->next = next; // and prev
    if (next)
        mapping_at(next)->prev = index;
    m->at = (uint32_t)at;
    *(word_t *)record_tag(m) = TAG_REF + TAG_4K + attr;
    ((word_t *)m)[WORD_EXTENT] = EXTENT_4K + (uint32_t)offset;
    frame->maps = index;
    mm.records.count--; // not beside the head: the two would be put together to be stored at once
    recent_table(kernel_space(), 1)->used++;
    *shadow_of(at) = index;
    word = page_word(frame, offset);
    *entry_of(at) = mm.leaf_bits[0][attr] + page_address(word);
    journal(JOURNAL_MAP, caller, va.v, word, frame_counts(frame), 1);
    spin_unlock(&mm.map_lock);
    return 0;
}

// The mapping that stands there, if it is this very one, counted up.
static ending int map_again(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t at,
                            const void *caller, uint64_t attr)
{
    uint64_t word = page_word(frame, offset);
    uint32_t index = *shadow_of(at), *tag = record_tag(mapping_at(index)), old = *tag;

    if (unlikely(!is_page(frame, offset, attr) || !same_page(at, index, word, offset) ||
                 (old & (TAG_REF - 1)) != attr + TAG_4K || old >= TAG_FULL ||
                 frame->mapcount == UINT32_MAX))
        return map_slow(va, frame, offset, attr, caller);
    *tag = old + TAG_REF;
    __atomic_fetch_add(&frame->mapcount, 1, __ATOMIC_RELAXED);
    journal(JOURNAL_MAP, caller, va.v, word, frame_counts(frame),
            (old + TAG_REF) >> TAG_REFS_SHIFT);
    spin_unlock(&mm.map_lock);
    return 0;
}

static always_inline int map_at(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t attr,
                                const void *caller, uint64_t at)
{
    return likely(!*shadow_of(at)) ? map_new(va, frame, offset, at, caller, attr)
                                   : map_again(va, frame, offset, at, caller, attr);
}

// Another table than the one used last.
static ending int map_elsewhere(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t attr,
                                const void *caller)
{
    uint64_t at = find_elsewhere(kernel_space(), va, 1, false);

    return likely(at) ? map_at(va, frame, offset, attr, caller, at)
                      : map_slow(va, frame, offset, attr, caller);
}

int vmap_page(vaddr_t va, frame_t *frame, uint64_t offset, unsigned attrs, const void *caller)
{
    uint64_t attr = attrs, at;

    if (unlikely(!enter()))
        return map_busy(va, frame, offset, attr, caller);
    if (unlikely((attr & ~(uint64_t)ATTRS_KERNEL) || !mm.leaf_bits[0][attr] || !known_frame(frame)))
        return map_slow(va, frame, offset, attr, caller);
    if (unlikely(!find_entry(kernel_space(), va, 1, &at)))
        return map_elsewhere(va, frame, offset, attr, caller);
    return map_at(va, frame, offset, attr, caller, at);
}

/* --- unmapping -------------------------------------------------------------------------------- */

static slow int unmap_slow(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller)
{
    int err = vput_part_locked(NULL, va, frame, offset, ORDER_4K);

    if (!err)
        journal_part(JOURNAL_UNMAP, caller, NULL, va, frame, offset, ORDER_4K);
    map_unlock();
    return err;
}

static slow int unmap_busy(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller)
{
    map_lock();
    return unmap_slow(va, frame, offset, caller);
}

static slow int unmap_word(vaddr_t va, frame_t *frame, uint64_t word, const void *caller)
{
    return unmap_slow(va, frame, (page_address(word) >> PAGE_SHIFT) - frame->mfn, caller);
}

// The mapping was the last of what kept the frame in use.
static slow int unmap_free(vaddr_t va, frame_t *frame, uint64_t word, const void *caller)
{
    journal(JOURNAL_UNMAP, caller, va.v, word,
            frame_counts(frame) - (UINT64_C(1) << COUNT_MAP_SHIFT), 0);
    frame_unmapped(frame, 1);
    map_unlock();
    return 0;
}

// The mapping goes, if no other CPU is to be asked, the table stays, and there is room for the
// record. The frame may be had by others only when nothing can reach it any more.
static ending int unmap_last(vaddr_t va, frame_t *frame, uint64_t word, const void *caller,
                             uint64_t at, mapping_t *m)
{
    struct table *table = recent_table(kernel_space(), 1);
    uint32_t index, next, prev;
    uint64_t counts, less;

    if (unlikely(table->used == 1) || unlikely(kernel_space()->cpus & cpu_others()) ||
        unlikely(mm.records.count == RECORD_CACHE_MAX))
        return unmap_word(va, frame, word, caller);
    *entry_of(at) = 0;
    tlb_flush_page(va);
    index = *shadow_of(at);
    *shadow_of(at) = 0;
    table->used--;
    frame->epoch = ++mm.epoch;
    next = m->next;
    prev = m->prev;
    record_put(m, index);
    list_remove(frame, next, prev);
    counts = frame_counts(frame);
    do {
        less = counts - (UINT64_C(1) << COUNT_MAP_SHIFT);
        if (unlikely(!less))
            return unmap_free(va, frame, word, caller);
    } while (unlikely(!__atomic_compare_exchange_n(frame_counts_at(frame), &counts, less, false,
                                                   __ATOMIC_RELEASE, __ATOMIC_RELAXED)));
    journal(JOURNAL_UNMAP, caller, va.v, word, less, 0);
    spin_unlock(&mm.map_lock);
    return 0;
}

static always_inline int unmap_at(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller,
                                  uint64_t at)
{
    uint64_t word = page_word(frame, offset);
    uint32_t index = *shadow_of(at), *tag;

    if (unlikely(!same_page(at, index, word, offset)))
        return unmap_slow(va, frame, offset, caller);
    tag = record_tag(mapping_at(index));
    if (likely(*tag < 2 * TAG_REF))
        return unmap_last(va, frame, word, caller, at, mapping_at(index));
    *tag -= TAG_REF;
    __atomic_fetch_sub(&frame->mapcount, 1, __ATOMIC_RELAXED);
    journal(JOURNAL_UNMAP, caller, va.v, word, frame_counts(frame), *tag >> TAG_REFS_SHIFT);
    spin_unlock(&mm.map_lock);
    return 0;
}

static ending int unmap_elsewhere(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller)
{
    uint64_t at = find_elsewhere(kernel_space(), va, 1, false);

    return likely(at) ? unmap_at(va, frame, offset, caller, at)
                      : unmap_slow(va, frame, offset, caller);
}

int vput_page(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller)
{
    uint64_t at;

    if (unlikely(!enter()))
        return unmap_busy(va, frame, offset, caller);
    if (unlikely(!known_frame(frame) || !(frame_word(frame) & WORD_KIND)))
        return unmap_slow(va, frame, offset, caller);
    if (unlikely(!find_entry(kernel_space(), va, 1, &at)))
        return unmap_elsewhere(va, frame, offset, caller);
    return unmap_at(va, frame, offset, caller, at);
}
