// SPDX-License-Identifier: BSD-2-Clause
// Splitting a mapping, so that a part of it can be treated on its own, and merging the parts again.
#include "mm/arena_internal.h"
#include "mm/mapping_internal.h"
#include "mm/mm.h"
#include "mm/table.h"

// The record's only entry is a large page: it becomes a table of 512 smaller ones.
static int split_page(space_t *space, mapping_t *m)
{
    vaddr_t va = mapping_va(m);
    struct pt_walk w;
    int err;

    pt_walk(space, va, m->level, &w);
    err = pt_split_large(space, va, &w);
    if (err)
        return err;
    m->at = w.slot * PT_ENTRIES;
    m->level--;
    return 0;
}

// The upper half of the record becomes a record of its own, which is returned; 0 if there is none
// left.
static uint32_t split_record(space_t *space, frame_t *frame, uint32_t index)
{
    uint32_t upper = arena_alloc(ARENA_MAPPINGS);
    mapping_t *m = mapping_at(index);
    mapping_t *u = mapping_at(upper);
    unsigned half = m->order - 1;
    vaddr_t va = VADDR(mapping_va(m).v + ((uint64_t)PAGE_SIZE << half));
    struct pt_walk w;

    if (!upper)
        return 0;
    pt_walk(space, va, m->level, &w);
    m->order = half;
    *u = *m;
    u->offset += 1u << half;
    u->at = w.slot * PT_ENTRIES + w.index;
    mapping_set_shadow(space, va, u->level, half, upper);
    mapping_link(frame, upper);
    return upper;
}

int mapping_split(space_t *space, frame_t *frame, uint32_t index, uint64_t offset, unsigned order,
                  uint32_t *out)
{
    mapping_t *m = mapping_at(index);

    while (m->order > order) {
        uint32_t upper;

        if (m->order == level_order(m->level)) {
            if (split_page(space, m))
                goto undo;
            continue;
        }
        upper = split_record(space, frame, index);
        if (!upper)
            goto undo;
        if (offset >= mapping_at(upper)->offset) {
            index = upper;
            m = mapping_at(index);
        }
    }
    *out = index;
    return 0;
undo:
    mapping_merge(space, frame, index);
    return -ENOMEM;
}

// The record fills a table below a place where the caller had a large page: that page comes back.
static void merge_page(space_t *space, frame_t *frame, mapping_t *m)
{
    unsigned level = m->level + 1;
    pgentry_t entry = pgentry_leaf(MFN(frame->mfn + m->offset), level, m->attr);
    struct pt_walk w;

    (void)space;
    pt_merge_large(m->at / PT_ENTRIES, entry, &w);
    m->at = w.slot * PT_ENTRIES + w.index;
    m->level = level;
}

// The record next to m that it was split from, if the two are alike; else 0.
static uint32_t find_twin(space_t *space, const mapping_t *m)
{
    uint64_t bytes = (uint64_t)PAGE_SIZE << m->order;
    bool upper = m->offset & (1u << m->order);
    vaddr_t va = VADDR(upper ? mapping_va(m).v - bytes : mapping_va(m).v + bytes);
    const mapping_t *twin;
    struct pt_walk w;

    if (m->order >= m->home)
        return 0;
    pt_walk(space, va, m->level, &w);
    if (w.level != m->level || !w.shadow || (w.shadow & SHADOW_TABLE))
        return 0;
    twin = mapping_at(w.shadow);
    if (twin->offset != (m->offset ^ (1u << m->order)) || twin->order != m->order ||
        twin->level != m->level || twin->home != m->home || twin->home_level != m->home_level ||
        twin->attr != m->attr || twin->refs != m->refs || mapping_va(twin).v != va.v)
        return 0;
    return w.shadow;
}

static bool same_block(space_t *space, frame_t *frame, const mapping_t *twin)
{
    struct pt_walk w;

    pt_walk(space, mapping_va(twin), twin->level, &w);
    return pgentry_mfn(table_entries(w.slot)[w.index], w.level).v == frame->mfn + twin->offset;
}

void mapping_merge(space_t *space, frame_t *frame, uint32_t index)
{
    for (;;) {
        mapping_t *m = mapping_at(index);
        uint32_t twin, upper;

        if (m->level < m->home_level && m->order == level_order(m->level + 1)) {
            merge_page(space, frame, m);
            continue;
        }
        twin = find_twin(space, m);
        if (!twin || !same_block(space, frame, mapping_at(twin)))
            return;
        upper = mapping_at(twin)->offset > m->offset ? twin : index;
        index = upper == twin ? index : twin;
        mapping_set_shadow(space, mapping_va(mapping_at(upper)), m->level, m->order, index);
        mapping_unlink(frame, upper);
        arena_free(ARENA_MAPPINGS, upper);
        mapping_at(index)->order++;
    }
}
