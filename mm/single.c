// SPDX-License-Identifier: BSD-2-Clause
// The common case of vmap, vput and vunmap: a block that is one entry of a page table that stands.
#include "arch/x86/tlb.h"
#include "mm/internal.h"
#include "mm/journal.h"
#include "mm/vmap.h"

// Descriptors and records are looked at by whole words here: a compiler handles bit-fields one by
// one.
static always_inline uint32_t record_word(const mapping_t *m, unsigned number)
{
    uint32_t word;

    __builtin_memcpy(&word, (const uint32_t *)m + number, sizeof(word));
    return word;
}

enum {
    WORD_TAG = 3,    // refs, attr, level
    WORD_EXTENT = 4, // offset, order, home, home_level
};

// A new record of a whole block: offset 0, all else as the caller made it.
static always_inline mapping_t whole_block(unsigned level, unsigned attr)
{
    return (mapping_t){.refs = 1,
                       .attr = attr,
                       .level = level,
                       .order = level_order(level),
                       .home = level_order(level),
                       .home_level = level};
}

static always_inline bool same_extent(const mapping_t *m, unsigned level)
{
    mapping_t whole = whole_block(level, 0);

    return record_word(m, WORD_EXTENT) == record_word(&whole, WORD_EXTENT);
}

// Whether an entry of that level, large or not, maps the frame.
static always_inline bool maps_frame(pgentry_t entry, const frame_t *frame, unsigned level)
{
    uint64_t differ = entry ^ frame_word(frame);

    return level == 1 ? !(differ & PG_ADDR) : pgentry_mfn(entry, level).v == frame->mfn;
}

static always_inline bool known_frame(const frame_t *frame)
{
    uint64_t byte = (uintptr_t)frame - VA_FRAMES;

    return byte < (uint64_t)mm.arena[ARENA_FRAMES].pages << PAGE_SHIFT &&
           byte % sizeof(*frame) == 0;
}

// In use, of that order, and of a kind without restrictions.
static always_inline bool plain_frame(const frame_t *frame, unsigned level)
{
    uint64_t word;

    if (!known_frame(frame))
        return false;
    word = frame_word(frame);
    return (word >> 4 & 255) == level_order(level) && (mm.fast_kinds >> (word & 15) & 1) &&
           frame_counts(frame);
}

// Finds the table by a walk, for the next time as well.
static __attribute__((noinline)) uint32_t walk_to_table(space_t *space, vaddr_t va, unsigned level)
{
    struct pt_walk w;

    if (!pt_canonical(va, 1, space->levels) || !space_has(space, va))
        return 0;
    pt_walk(space, va, level, &w);
    if (w.level != level)
        return 0;
    space->recent[level - 1] = w.slot;
    return w.slot;
}

// The table whose entry maps va; the space remembers the one used last. 0 if there is none.
static always_inline uint32_t table_for(space_t *space, vaddr_t va, unsigned level)
{
    uint32_t slot = space->recent[level - 1];
    const struct table *t = table_at(slot);

    if (likely(t->va == ROUND_DOWN(va.v, UINT64_C(1) << level_shift(level + 1)) &&
               t->level == level))
        return slot;
    return walk_to_table(space, va, level);
}

static always_inline bool own_window(vaddr_t va)
{
    return va.v - LAYOUT_BASE < VA_STACKS - LAYOUT_BASE;
}

static always_inline bool known_space(space_t **space)
{
    if (likely(!*space)) {
        *space = space_at(mm.space_list);
        return true;
    }
    return space_is_live(*space);
}

static always_inline bool common(space_t **space, vaddr_t va, const frame_t *frame, unsigned level)
{
    return known_space(space) && IS_ALIGNED(va.v, UINT64_C(1) << level_shift(level)) &&
           !own_window(va) && plain_frame(frame, level);
}

static always_inline pgentry_t place_bits(const frame_t *frame)
{
    return (pgentry_t)frame->mfn << PAGE_SHIFT;
}

// The mapping that stands there is this very one: count it up.
static always_inline bool again(const frame_t *frame, unsigned level, unsigned attr,
                                pgentry_t entry, mapping_t *m)
{
    mapping_t whole = whole_block(level, attr);
    uint32_t refs = record_word(m, WORD_TAG) - record_word(&whole, WORD_TAG);

    // The rest of the tag is equal exactly if the difference is no more than that of refs.
    if (refs >= MAPPING_REFS_MAX - 1 || !same_extent(m, level) || !maps_frame(entry, frame, level))
        return false;
    m->refs++;
    return true;
}

static always_inline struct arena_page *record_page(uint32_t index)
{
    return (void *)(uintptr_t)ROUND_DOWN((uintptr_t)mapping_at(index), PAGE_SIZE);
}

// The record to be taken next; 0 if that is not as simple as that.
static always_inline uint32_t record_next(void)
{
    const struct arena *a = &mm.arena[ARENA_MAPPINGS];
    uint32_t index;

    if (unlikely(!a->partial || a->free <= a->low))
        return 0;
    index = ((const struct arena_page *)(uintptr_t)(VA_MAPPINGS - PAGE_SIZE +
                                                    ((uint64_t)a->partial << PAGE_SHIFT)))
                ->free;
    return likely(mapping_at(index)->at) ? index : 0; // 0: the page becomes full
}

static always_inline void record_take(uint32_t index)
{
    struct arena_page *page = record_page(index);

    page->free = mapping_at(index)->at;
    page->used++;
    mm.arena[ARENA_MAPPINGS].free--;
}

// True if the record's page stays on the list that it is on.
static always_inline bool record_can_go(uint32_t index)
{
    const struct arena_page *page = record_page(index);

    return page->free && page->used > 1;
}

static always_inline void record_drop(uint32_t index)
{
    struct arena_page *page =
        (void *)(uintptr_t)ROUND_DOWN((uintptr_t)mapping_at(index), PAGE_SIZE);

    *mapping_at(index) = (mapping_t){.at = page->free};
    page->free = index;
    page->used--;
    mm.arena[ARENA_MAPPINGS].free++;
}

// True if done; else nothing has changed.
static always_inline bool map(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                              unsigned attr)
{
    pgentry_t bits = attr <= VATTR_ALL ? mm.leaf_bits[level - 1][attr] : 0;
    uint32_t slot, index, *shadow;
    mapping_t *m, new;
    unsigned i;

    if (unlikely(!bits || !common(&space, va, frame, level) || ((attr & VATTR_U) && !space->id) ||
                 frame->mapcount == UINT32_MAX))
        return false;
    slot = table_for(space, va, level);
    if (unlikely(!slot))
        return false;
    i = level_index(va, level);
    shadow = &table_shadow(slot)[i];
    if (*shadow) {
        if ((*shadow & SHADOW_TABLE) ||
            !again(frame, level, attr, table_entries(slot)[i], mapping_at(*shadow)))
            return false;
        return frame_mapped(frame, 1); // it is: this very mapping holds it
    }
    if (frame->maps && ((mapping_at(frame->maps)->attr ^ attr) & VATTR_TYPE))
        return false;
    index = record_next();
    if (unlikely(!table_at(slot)->used || !index || !frame_mapped(frame, 1)))
        return false;
    record_take(index);
    m = mapping_at(index);
    new = whole_block(level, attr);
    new.at = slot *PT_ENTRIES + i;
    new.next = frame->maps;
    *m = new;
    if (new.next)
        mapping_at(new.next)->prev = index;
    frame->maps = index;
    space->mappings++;
    table_at(slot)->used++;
    *shadow = index;
    table_entries(slot)[i] = bits | place_bits(frame);
    return true;
}

// No CPU reaches the page any more.
static always_inline void flush(const space_t *space, vaddr_t va, frame_t *frame)
{
    uint64_t others = space->cpus & cpu_others();

    tlb_flush_page(va);
    frame->epoch = ++mm.epoch;
    if (unlikely(others))
        tlb_ask_page(others, va, mm.epoch);
}

static always_inline bool unmap(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                bool all)
{
    uint32_t slot, index, refs;
    mapping_t *m;
    unsigned i;

    if (unlikely(!common(&space, va, frame, level)))
        return false;
    slot = table_for(space, va, level);
    if (unlikely(!slot))
        return false;
    i = level_index(va, level);
    index = table_shadow(slot)[i];
    if (unlikely(!index || (index & SHADOW_TABLE)))
        return false;
    m = mapping_at(index);
    if (unlikely(!same_extent(m, level) || !maps_frame(table_entries(slot)[i], frame, level)))
        return false;
    if (!all && m->refs > 1) {
        m->refs--;
        return frame_unmapped_not_last(frame, 1); // true: other refs are left
    }
    // The last entry of its table, or a frame that nobody else holds: more is to be done.
    if (unlikely(table_at(slot)->used == 1 || !frame->refcount || !record_can_go(index)))
        return false;
    table_entries(slot)[i] = 0;
    flush(space, va, frame);
    table_shadow(slot)[i] = 0;
    table_at(slot)->used--;
    space->mappings--;
    refs = m->refs;
    if (m->prev)
        mapping_at(m->prev)->next = m->next;
    else
        frame->maps = m->next;
    if (m->next)
        mapping_at(m->next)->prev = m->prev;
    record_drop(index);
    frame_unmapped(frame, refs);
    return true;
}

// map_unlock() where mostly nothing is left to do.
static always_inline void done(void)
{
    if (unlikely(mm.batch.pending | mm.work))
        map_unlock();
    else
        spin_unlock(&mm.map_lock);
}

static always_inline int map_or(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                unsigned attr)
{
    int err = 0;

    map_lock();
    if (unlikely(!map(space, va, frame, level, attr)))
        err = vmap_pages(space, va, frame, level, attr);
    done();
    return err;
}

int vmap_4k(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_or(space, va, frame, 1, attr);
}

int vmap_2m(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_or(space, va, frame, 2, attr);
}

static always_inline bool unmap_any(space_t *space, vaddr_t va, frame_t *frame, bool all)
{
    if (unlikely(!known_frame(frame)))
        return false;
    if (frame->order == ORDER_4K)
        return unmap(space, va, frame, 1, all);
    return frame->order == ORDER_2M && unmap(space, va, frame, 2, all);
}

static always_inline int unmap_or(space_t *space, vaddr_t va, frame_t *frame, bool all)
{
    int err = 0;

    map_lock();
    if (unlikely(!unmap_any(space, va, frame, all)))
        err = vput_whole(space, va, frame, all);
    done();
    return err;
}

int vput(space_t *space, vaddr_t va, frame_t *frame)
{
    return unmap_or(space, va, frame, false);
}

int vunmap(space_t *space, vaddr_t va, frame_t *frame)
{
    return unmap_or(space, va, frame, true);
}
