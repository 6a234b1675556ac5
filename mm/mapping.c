// SPDX-License-Identifier: BSD-2-Clause
// Mapping records and their entries: made together, taken away together.
#include "mm/mapping.h"

#include "lib/panic.h"
#include "mm/lock.h"
#include "mm/mapping_internal.h"
#include "mm/step.h"
#include "mm/table_flush.h"

// A run of entries in one table.
struct span {
    uint32_t slot;
    unsigned index;
    uint64_t count;
};

static uint64_t entry_count(unsigned order, unsigned level)
{
    return UINT64_C(1) << (order - level_order(level));
}

static vaddr_t entry_va(vaddr_t va, unsigned level, uint64_t entry)
{
    return VADDR(va.v + (entry << level_shift(level)));
}

// Entries of an existing mapping from entry `done` of `count` on, as far as they stand in one
// table.
static struct span span_at(const space_t *space, vaddr_t va, unsigned level, uint64_t done,
                           uint64_t count)
{
    struct pt_walk w;

    pt_walk(space, entry_va(va, level, done), level, &w);
    return (struct span){w.slot, w.index, MIN(count - done, (uint64_t)(PT_ENTRIES - w.index))};
}

vaddr_t mapping_va(const mapping_t *m)
{
    const struct table *t = table_at(m->at / PT_ENTRIES);

    return VADDR(t->va + ((uint64_t)(m->at % PT_ENTRIES) << level_shift(t->level)));
}

space_t *mapping_space(const mapping_t *m)
{
    return space_at(table_at(m->at / PT_ENTRIES)->space);
}

int frame_each_mapping(frame_t *frame, int (*fn)(frame_t *frame, const mapping_t *m, void *arg),
                       void *arg)
{
    int stop = 0;

    map_lock();
    for (uint32_t i = frame->maps; i && !stop; i = mapping_at(i)->next)
        stop = fn(frame, mapping_at(i), arg);
    map_unlock();
    return stop;
}

void mapping_link(frame_t *frame, uint32_t index)
{
    mapping_t *m = mapping_at(index);

    m->prev = 0;
    m->next = frame->maps;
    if (m->next)
        mapping_at(m->next)->prev = index;
    frame->maps = index;
    if (!frame_pin(frame, m->refs))
        panic("frame 0x%lx is free, and gets a mapping", (uint64_t)frame->mfn);
}

void mapping_unlink(frame_t *frame, uint32_t index)
{
    mapping_t *m = mapping_at(index);

    record_unlist(frame, m->next, m->prev);
    frame_unpin(frame, m->refs);
}

// 0 if none of these entries is in use, nor a large page over them.
static int check_vacant(const space_t *space, vaddr_t va, unsigned level, uint64_t count)
{
    uint64_t done = 0;

    while (done < count) {
        vaddr_t at = entry_va(va, level, done);
        struct pt_walk w;

        pt_walk(space, at, level, &w);
        if (w.level > level) {
            uint64_t skip = UINT64_C(1) << level_shift(w.level);

            if (w.shadow)
                return -ELARGE;
            done = (ROUND_DOWN(at.v, skip) + skip - va.v) >> level_shift(level);
            continue;
        }
        for (unsigned i = w.index; i < PT_ENTRIES && done < count; i++, done++)
            if (table_shadow(w.slot)[i])
                return table_shadow(w.slot)[i] & SHADOW_TABLE ? -ETABLE : -EEXIST;
    }
    return 0;
}

// Frees the tables that make_tables() made for the first `count` entries.
static void drop_tables(space_t *space, vaddr_t va, unsigned level, uint64_t count)
{
    for (uint64_t done = 0; done < count;) {
        struct pt_walk w;

        pt_walk(space, entry_va(va, level, done), level, &w);
        done += PT_ENTRIES - w.index;
        pt_prune(w.slot);
    }
}

static int make_tables(space_t *space, vaddr_t va, unsigned level, uint64_t count, uint32_t *at)
{
    for (uint64_t done = 0; done < count;) {
        struct pt_walk w;
        int err = pt_walk_create(space, entry_va(va, level, done), level, &w);

        if (err) {
            drop_tables(space, va, level, done);
            return err;
        }
        if (!done)
            *at = w.slot * PT_ENTRIES + w.index;
        done += PT_ENTRIES - w.index;
        upkeep(); // a large block may need more tables than are in stock
    }
    return 0;
}

static void write_entries(space_t *space, vaddr_t va, unsigned level, uint64_t count,
                          pgentry_t entry, uint32_t index)
{
    uint64_t step = UINT64_C(1) << level_shift(level);

    for (uint64_t done = 0; done < count;) {
        struct span s = span_at(space, va, level, done, count);
        uint64_t at = s.slot * PT_ENTRIES + s.index;

        table_at(s.slot)->used += s.count;
        for (uint64_t i = 0; i < s.count; i++, entry += step)
            entry_write(at + i, index, entry);
        done += s.count;
    }
}

int mapping_create(const struct part *p)
{
    uint64_t count = entry_count(p->order, p->level);
    int err = check_vacant(p->space, p->va, p->level, count);
    frame_t *frame = p->frame;
    uint32_t free, index, next, at = 0;

    if (err)
        return err;
    // The record first: making tables may use up the stock, but refills it.
    free = arena_alloc(ARENA_MAPPINGS);
    if (!free)
        return -ENOMEM;
    err = frame_pin(frame, 1) ? make_tables(p->space, p->va, p->level, count, &at) : -EFREE;
    if (err) {
        if (err != -EFREE)
            frame_unpin(frame, 1);
        arena_free(ARENA_MAPPINGS, free);
        return err;
    }
    if (!list_front(frame, free, p->attr, &next))
        panic("frame 0x%lx gets a mapping of a second memory type", (uint64_t)frame->mfn);
    index = record_new(&free, frame, next, at, tag_of(p->level, p->attr),
                       extent_of(p->level, p->order, p->offset));
    write_entries(p->space, p->va, p->level, count,
                  pgentry_leaf(MFN(frame->mfn + p->offset), p->level, p->attr), index);
    return 0;
}

int mapping_create_own(vaddr_t va, frame_t *frame)
{
    const struct part p = {
        .space = kernel_space(), .va = va, .frame = frame, .level = 1, .attr = VATTR_W};

    return mapping_create(&p);
}

// Entries are only cleared or changed if they still are what their record says: the first is
// `want`.
static void check_entries(vaddr_t va, unsigned level, const pgentry_t *entries, uint64_t count,
                          pgentry_t want)
{
    uint64_t step = UINT64_C(1) << level_shift(level);
    pgentry_t next = want, differ = 0;
    uint64_t i = 0;

#pragma GCC unroll 8
    for (uint64_t k = 0; k < count; k++, next += step)
        differ |= entries[k] ^ next;
    if (likely(!(differ & ~(pgentry_t)(PG_A | PG_D))))
        return;
    while (!((entries[i] ^ want) & ~(pgentry_t)(PG_A | PG_D))) {
        want += step;
        i++;
    }
    panic("entry of 0x%lx is 0x%lx: its record says 0x%lx", va.v + i * step, entries[i], want);
}

void mapping_destroy(space_t *space, frame_t *frame, uint32_t index)
{
    mapping_t *m = mapping_at(index);
    vaddr_t va = mapping_va(m);
    unsigned level = m->level;
    uint64_t count = entry_count(m->order, level);
    pgentry_t want = pgentry_leaf(MFN(frame->mfn + m->offset), level, m->attr);

    for (uint64_t done = 0; done < count;) {
        struct span s = span_at(space, va, level, done, count);
        uint64_t at = s.slot * PT_ENTRIES + s.index;

        check_entries(entry_va(va, level, done), level, entry_of(at), s.count, want);
        want += s.count << level_shift(level);
#pragma GCC unroll 8
        for (uint64_t i = 0; i < s.count; i++)
            entry_clear(at + i);
#pragma GCC unroll 8
        for (uint64_t i = 0; i < s.count; i++)
            shadow_clear(at + i);
        table_at(s.slot)->used -= s.count;
        done += s.count;
    }
    tlb_gone(space, va, level, count);
    for (uint64_t done = 0; done < count;) {
        struct span s = span_at(space, va, level, done, count);

        done += PT_ENTRIES - s.index;
        pt_prune(s.slot);
    }
    record_unlist(frame, m->next, m->prev);
    tlb_release(frame, index);
}

void mapping_set_attr(space_t *space, frame_t *frame, uint32_t index, unsigned attr)
{
    mapping_t *m = mapping_at(index);
    vaddr_t va = mapping_va(m);
    uint64_t count = entry_count(m->order, m->level);
    pgentry_t want = pgentry_leaf(MFN(frame->mfn + m->offset), m->level, m->attr);
    pgentry_t change = want ^ pgentry_leaf(MFN(frame->mfn + m->offset), m->level, attr);

    for (uint64_t done = 0; done < count;) {
        struct span s = span_at(space, va, m->level, done, count);
        pgentry_t *entries = table_entries(s.slot) + s.index;

        check_entries(entry_va(va, m->level, done), m->level, entries, s.count, want);
        for (uint64_t i = 0; i < s.count; i++, want += UINT64_C(1) << level_shift(m->level))
            entries[i] = want ^ change;
        done += s.count;
    }
    m->attr = attr;
    tlb_gone(space, va, m->level, count);
}

void mapping_set_shadow(space_t *space, vaddr_t va, unsigned level, unsigned order, uint32_t index)
{
    uint64_t count = entry_count(order, level);

    for (uint64_t done = 0; done < count;) {
        struct span s = span_at(space, va, level, done, count);
        uint32_t *shadows = table_shadow(s.slot) + s.index;

        for (uint64_t i = 0; i < s.count; i++)
            shadows[i] = index;
        done += s.count;
    }
}
