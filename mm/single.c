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
    WORD_KIND = 15, // the fields of a descriptor's first word
    WORD_ORDER_SHIFT = 4,
    WORD_ORDER_LEVEL = 255,

    TAG_LEVEL_SHIFT = 6, // of a record's fourth
    TAG_REFS_SHIFT = 8,
    WORD_TAG = 3,    // attr, level, refs
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

// All words of a record that is the first on its frame's list.
static always_inline void record_fill(mapping_t *m, uint32_t next, uint32_t at, unsigned level,
                                      unsigned attr)
{
    typedef uint32_t __attribute__((may_alias)) word_t;
    mapping_t whole = whole_block(level, 0);

    m->next = next;
    m->prev = 0;
    m->at = at;
    ((word_t *)m)[WORD_TAG] = record_word(&whole, WORD_TAG) + attr;
    ((word_t *)m)[WORD_EXTENT] = record_word(&whole, WORD_EXTENT);
}

static always_inline bool same_extent(const mapping_t *m, unsigned level)
{
    mapping_t whole = whole_block(level, 0);

    return record_word(m, WORD_EXTENT) == record_word(&whole, WORD_EXTENT);
}

// What the fast path knows of its operands: all of it holds.
struct place {
    space_t *space;
    frame_t *frame;
    uint64_t word; // the first of the frame's descriptor
    uint32_t slot;
    uint32_t at; // the entry's number among those of all slots
    uint32_t *shadow;
    pgentry_t *entry;
};

static always_inline bool known_space(space_t **space)
{
    if (likely(!*space)) {
        *space = space_at(mm.space_list);
        return true;
    }
    return space_is_live(*space);
}

// Finds the table for va by a walk, for the next time. Tables of the manager's own windows are not
// remembered, so that the fast path never changes those.
static void remember_table(space_t *space, vaddr_t va, unsigned level)
{
    uint64_t bytes = UINT64_C(1) << level_shift(level + 1);
    uint64_t base = ROUND_DOWN(va.v, bytes);
    struct pt_walk w;

    if (!known_space(&space) || !pt_canonical(va, 1, space->levels) || !space_has(space, va) ||
        (base < VA_STACKS && base + bytes - 1 >= LAYOUT_BASE))
        return;
    pt_walk(space, va, level, &w);
    if (w.level == level)
        space->recent[level - 1] = (struct recent_table){.va = base, .slot = w.slot};
}

// False if the frame is none, is not one entry of that level, or the table is not the recent one.
static always_inline bool find_place(struct place *p, space_t *space, vaddr_t va, frame_t *frame,
                                     unsigned level)
{
    const struct recent_table *recent;

    if (unlikely(!known_space(&space) || frame_number(frame) >= mm.frame_limit ||
                 !IS_ALIGNED(va.v, UINT64_C(1) << level_shift(level))))
        return false;
    recent = &space->recent[level - 1];
    p->word = frame_word(frame);
    if (unlikely(!recent->slot || (va.v ^ recent->va) >= UINT64_C(1) << level_shift(level + 1) ||
                 (p->word >> WORD_ORDER_SHIFT & WORD_ORDER_LEVEL) != level_order(level)))
        return false;
    p->space = space;
    p->frame = frame;
    p->slot = recent->slot;
    p->at = p->slot * PT_ENTRIES + level_index(va, level);
    p->shadow = (uint32_t *)(uintptr_t)VA_SHADOWS + p->at;
    p->entry = (pgentry_t *)(uintptr_t)VA_WINDOW + p->at;
    return true;
}

// Whether the entry, which record m has, maps all of the frame.
static always_inline bool same_block(const struct place *p, const mapping_t *m, unsigned level)
{
    uint64_t differ = *p->entry ^ p->word;

    return same_extent(m, level) &&
           !(differ & (level == 1 ? PG_ADDR : PG_ADDR & ~(pgentry_t)PG_PAT_BIG));
}

// mapcount of a frame that keeps other mappings.
static always_inline void count(const struct place *p, unsigned level, int64_t delta)
{
    __atomic_fetch_add(frame_counts_at(p->frame), (uint64_t)delta << COUNT_MAP_SHIFT,
                       __ATOMIC_RELAXED);
    mm.order[level_order(level)].maps += (uint64_t)delta;
}

static always_inline void note(enum journal_op op, const void *caller, const struct place *p,
                               vaddr_t va, uint32_t refs)
{
    journal(op, caller, va.v, p->word, frame_counts(p->frame), refs);
}

// The mapping that stands there is this very one: count it up.
static always_inline bool again(const struct place *p, vaddr_t va, unsigned level, unsigned attr,
                                const void *caller)
{
    mapping_t *m = mapping_at(*p->shadow);
    uint32_t tag = record_word(m, WORD_TAG);

    // By addition: an attribute too large looks like another level's.
    if (unlikely((tag & 255) != attr + (level << TAG_LEVEL_SHIFT) ||
                 tag >> TAG_REFS_SHIFT >= MAPPING_REFS_MAX - 1 || !same_block(p, m, level) ||
                 p->frame->mapcount == UINT32_MAX))
        return false;
    m->refs = (tag >> TAG_REFS_SHIFT) + 1;
    count(p, level, 1);
    note(JOURNAL_MAP, caller, p, va, (tag >> TAG_REFS_SHIFT) + 1);
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

// The first mapping of the frame there. True if done; else nothing has changed.
static always_inline bool map_new(const struct place *p, vaddr_t va, unsigned level, unsigned attr,
                                  const void *caller)
{
    pgentry_t bits = attr <= VATTR_ALL ? mm.leaf_bits[level - 1][attr] : 0;
    frame_t *frame = p->frame;
    uint32_t index, next = frame->maps;

    if (unlikely(!bits || !(mm.fast_kinds >> (p->word & WORD_KIND) & 1) ||
                 ((attr & VATTR_U) && !p->space->id) || frame->mapcount == UINT32_MAX))
        return false;
    if (next && ((mapping_at(next)->attr ^ attr) & VATTR_TYPE))
        return false;
    index = record_next();
    if (unlikely(!index || !frame_mapped(frame, 1)))
        return false;
    record_take(index);
    record_fill(mapping_at(index), next, p->at, level, attr);
    if (next)
        mapping_at(next)->prev = index;
    frame->maps = index;
    p->space->mappings++;
    table_at(p->slot)->used++;
    *p->shadow = index;
    *p->entry = bits | (p->word & PG_ADDR);
    note(JOURNAL_MAP, caller, p, va, 1);
    return true;
}

static always_inline bool map(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                              unsigned attr, const void *caller)
{
    struct place p;

    if (unlikely(!find_place(&p, space, va, frame, level)))
        return false;
    if (!*p.shadow)
        return map_new(&p, va, level, attr, caller);
    return !(*p.shadow & SHADOW_TABLE) && again(&p, va, level, attr, caller);
}

// The mapping goes. False: other CPUs are to be asked, the table or the frame goes with it, or its
// record's page changes lists; then nothing has changed.
static always_inline bool unmap_last(const struct place *p, vaddr_t va, uint32_t index,
                                     const void *caller)
{
    mapping_t *m = mapping_at(index);
    struct table *table = table_at(p->slot);
    frame_t *frame = p->frame;
    uint32_t refs = m->refs;

    if (unlikely((p->space->cpus & cpu_others()) || table->used == 1 || !frame->refcount ||
                 !record_can_go(index) || !frame_unmapped_not_last(frame, refs)))
        return false;
    *p->entry = 0;
    tlb_flush_page(va);
    frame->epoch = ++mm.epoch;
    *p->shadow = 0;
    table->used--;
    p->space->mappings--;
    if (m->prev)
        mapping_at(m->prev)->next = m->next;
    else
        frame->maps = m->next;
    if (m->next)
        mapping_at(m->next)->prev = m->prev;
    record_drop(index);
    note(JOURNAL_UNMAP, caller, p, va, 0);
    return true;
}

static always_inline bool unmap(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                bool all, const void *caller)
{
    struct place p;
    uint32_t index;
    mapping_t *m;

    if (unlikely(!find_place(&p, space, va, frame, level)))
        return false;
    index = *p.shadow;
    if (unlikely(!index || (index & SHADOW_TABLE)))
        return false;
    m = mapping_at(index);
    if (unlikely(!same_block(&p, m, level)))
        return false;
    if (all || m->refs == 1)
        return unmap_last(&p, va, index, caller);
    m->refs--;
    count(&p, level, -1);
    note(JOURNAL_UNMAP, caller, &p, va, m->refs);
    return true;
}

/* --- with the lock; what is not as simple is for functions that these end in, so that they need
 * no stack
 * --------------------------------------------------------------------------------------- */

static __attribute__((noinline)) int map_slow(space_t *space, vaddr_t va, frame_t *frame,
                                              unsigned level, unsigned attr, const void *caller)
{
    int err;

    map_lock();
    remember_table(space, va, level);
    if (map(space, va, frame, level, attr, caller)) {
        map_unlock();
        return 0;
    }
    err = vmap_pages(space, va, frame, level, attr);
    if (!err)
        journal_mapped(JOURNAL_MAP, caller, space, va, frame);
    map_unlock();
    return err;
}

static always_inline int map_or(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                unsigned attr, const void *caller)
{
    bool done;

    if (unlikely(mm.work || !spin_trylock(&mm.map_lock)))
        return map_slow(space, va, frame, level, attr, caller);
    done = map(space, va, frame, level, attr, caller);
    spin_unlock(&mm.map_lock);
    return likely(done) ? 0 : map_slow(space, va, frame, level, attr, caller);
}

int vmap_4k(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_or(space, va, frame, 1, attr, CALLER);
}

int vmap_2m(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_or(space, va, frame, 2, attr, CALLER);
}

static __attribute__((noinline)) int unmap_slow(space_t *space, vaddr_t va, frame_t *frame,
                                                bool all, const void *caller)
{
    int err;

    map_lock();
    if (frame_number(frame) < mm.frame_limit)
        remember_table(space, va, frame->order == ORDER_2M ? 2 : 1);
    if (unmap(space, va, frame, 1, all, caller) || unmap(space, va, frame, 2, all, caller)) {
        map_unlock();
        return 0;
    }
    err = vput_whole(space, va, frame, all);
    if (!err)
        journal_mapped(JOURNAL_UNMAP, caller, space, va, frame);
    map_unlock();
    return err;
}

static always_inline int unmap_or(space_t *space, vaddr_t va, frame_t *frame, bool all,
                                  const void *caller)
{
    bool done;

    if (unlikely(mm.work || !spin_trylock(&mm.map_lock)))
        return unmap_slow(space, va, frame, all, caller);
    done = unmap(space, va, frame, 1, all, caller) || unmap(space, va, frame, 2, all, caller);
    spin_unlock(&mm.map_lock);
    return likely(done) ? 0 : unmap_slow(space, va, frame, all, caller);
}

int vput(space_t *space, vaddr_t va, frame_t *frame)
{
    return unmap_or(space, va, frame, false, CALLER);
}

int vunmap(space_t *space, vaddr_t va, frame_t *frame)
{
    return unmap_or(space, va, frame, true, CALLER);
}
