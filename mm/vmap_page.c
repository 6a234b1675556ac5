// SPDX-License-Identifier: BSD-2-Clause
// vmap_page() and vput_page(): one page of a block of whatever size, in the kernel's space.
#include "mm/journal.h"
#include "mm/mapping_internal.h"
#include "mm/vmap_fast.h"
#include "mm/vmap_internal.h"

enum {
    WORD_KIND = FRAME_KIND_COUNT - 1, // of a descriptor's first word
    WORD_ORDER = WORD_ORDER_MASK << WORD_ORDER_SHIFT,
    ORDER_BITS = 63, // with the lowest bit of level, which is 0 unless it is a table

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
           record_extent(mapping_at(index)) == extent_of(1, 0, offset);
}

/* --- mapping ---------------------------------------------------------------------------------- */

// Everything else, map_lock held; it is given back.
static cold_path int map_slow(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t attr,
                              const void *caller)
{
    struct part p = part_of(NULL, va, frame, offset, ORDER_4K);
    int err;

    p.attr = (unsigned)attr;
    err = part_map(&p);
    if (!err)
        journal_part(JOURNAL_MAP, caller, NULL, va, frame, offset, ORDER_4K);
    map_unlock();
    return err;
}

static cold_path int map_busy(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t attr,
                              const void *caller)
{
    map_lock();
    return map_slow(va, frame, offset, attr, caller);
}

// It is counted, but not as the fast path wants it: never was, or was put and taken meanwhile.
static cold_path int map_unpin(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t attr,
                               const void *caller)
{
    frame_unpin(frame, 1);
    return map_slow(va, frame, offset, attr, caller);
}

// A first mapping at an entry that is empty. Whose page it is counts from when the frame is
// counted: one that the caller does not hold may be put until then, and taken as another one.
static tail_path int map_new(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t at,
                             const void *caller, uint64_t attr)
{
    uint32_t index, next;
    uint64_t word;

    if (unlikely(!mm.records.head) || unlikely(!frame_pin_once(frame)))
        return map_slow(va, frame, offset, attr, caller);
    if (unlikely(!is_page(frame, offset, attr)) ||
        unlikely(!list_front(frame, mm.records.head, attr, &next)))
        return map_unpin(va, frame, offset, attr, caller);
    index = record_new(&mm.records.head, frame, next, at, tag_of(1, (unsigned)attr),
                       extent_of(1, 0, offset));
    mm.records.count--; // not beside the head: the two would be put together to be stored at once
    recent_table(kernel_space(), 1)->used++;
    word = page_word(frame, offset);
    entry_write(at, index, mm.leaf_bits[0][attr] + page_address(word));
    journal(JOURNAL_MAP, caller, va.v, word, frame_counts(frame), 1);
    spin_unlock(&mm.map_lock);
    return 0;
}

// The mapping that stands there, if it is this very one, counted up.
static tail_path int map_again(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t at,
                               const void *caller, uint64_t attr)
{
    uint64_t word = page_word(frame, offset);
    uint32_t index = *shadow_of(at), *tag = record_tag(mapping_at(index)), old = *tag;

    if (unlikely(!is_page(frame, offset, attr) || !same_page(at, index, word, offset) ||
                 (old & (TAG_REF - 1)) != attr + tag_of(1, 0) - TAG_REF ||
                 !refs_up(frame, tag, old)))
        return map_slow(va, frame, offset, attr, caller);
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
static tail_path int map_elsewhere(vaddr_t va, frame_t *frame, uint64_t offset, uint64_t attr,
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

static cold_path int unmap_slow(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller)
{
    struct part p = part_of(NULL, va, frame, offset, ORDER_4K);
    int err = part_put(&p);

    if (!err)
        journal_part(JOURNAL_UNMAP, caller, NULL, va, frame, offset, ORDER_4K);
    map_unlock();
    return err;
}

static cold_path int unmap_busy(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller)
{
    map_lock();
    return unmap_slow(va, frame, offset, caller);
}

static cold_path int unmap_word(vaddr_t va, frame_t *frame, uint64_t word, const void *caller)
{
    return unmap_slow(va, frame, (page_address(word) >> PAGE_SHIFT) - frame->mfn, caller);
}

// The mapping was the last of what kept the frame in use.
static cold_path int unmap_free(vaddr_t va, frame_t *frame, uint64_t word, const void *caller)
{
    journal(JOURNAL_UNMAP, caller, va.v, word,
            frame_counts(frame) - (UINT64_C(1) << COUNT_MAP_SHIFT), 0);
    frame_unpin(frame, 1);
    map_unlock();
    return 0;
}

// The mapping goes, if no other CPU is to be asked, the table stays, and there is room for the
// record. Others may have the frame only when no CPU can reach it.
static tail_path int unmap_last(vaddr_t va, frame_t *frame, uint64_t word, const void *caller,
                                uint64_t at, mapping_t *m)
{
    struct table *table = recent_table(kernel_space(), 1);
    uint32_t index;
    uint64_t counts;

    if (unlikely(table->used == 1) || unlikely(kernel_space()->cpus & cpu_others()) ||
        unlikely(mm.records.count == RECORD_CACHE_MAX))
        return unmap_word(va, frame, word, caller);
    entry_clear(at);
    tlb_flush_page(va);
    index = *shadow_of(at);
    shadow_clear(at);
    table->used--;
    frame->epoch = ++mm.epoch;
    record_unlist(frame, m->next, m->prev);
    record_put(m, index);
    counts = frame_unpin_shared(frame, 1);
    if (unlikely(!counts))
        return unmap_free(va, frame, word, caller);
    journal(JOURNAL_UNMAP, caller, va.v, word, counts, 0);
    spin_unlock(&mm.map_lock);
    return 0;
}

static always_inline int unmap_at(vaddr_t va, frame_t *frame, uint64_t offset, const void *caller,
                                  uint64_t at)
{
    uint64_t word = page_word(frame, offset);
    uint32_t index = *shadow_of(at), *tag, left;

    if (unlikely(!same_page(at, index, word, offset)))
        return unmap_slow(va, frame, offset, caller);
    tag = record_tag(mapping_at(index));
    if (likely(*tag < 2 * TAG_REF))
        return unmap_last(va, frame, word, caller, at, mapping_at(index));
    left = refs_down(frame, tag);
    journal(JOURNAL_UNMAP, caller, va.v, word, frame_counts(frame), left >> TAG_REFS_SHIFT);
    spin_unlock(&mm.map_lock);
    return 0;
}

static tail_path int unmap_elsewhere(vaddr_t va, frame_t *frame, uint64_t offset,
                                     const void *caller)
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
