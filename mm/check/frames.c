// SPDX-License-Identifier: BSD-2-Clause
// The self-check's part on frames: rings of the orders, descriptors, and their lists of mappings.
#include "mm/check/internal.h"

#include "arch/x86/memtype.h"
#include "mm/arena_internal.h"
#include "mm/frame_word.h"
#include "mm/table.h"

// The entry maps the frame's block, but not the page of it that belongs there.
static bool place_differs(const frame_t *f, unsigned level, pgentry_t have, pgentry_t want)
{
    uint64_t mfn = pgentry_mfn(have, level).v;

    return (have & PG_P) && mfn != pgentry_mfn(want, level).v && mfn >= f->mfn &&
           mfn < f->mfn + frame_pages(f);
}

// Every entry of the record, by following the page tables from the root of its space.
static void check_entries(struct check *c, const frame_t *f, uint32_t index)
{
    const mapping_t *m = mapping_at(index);
    const struct table *t = table_at(m->at / PT_ENTRIES);
    uint64_t va = mapping_va(m).v;
    uint64_t step = UINT64_C(1) << level_shift(m->level);
    uint64_t count = UINT64_C(1) << (m->order - level_order(m->level));
    pgentry_t want = pgentry_leaf(MFN(f->mfn + m->offset), m->level, m->attr);

    for (uint64_t i = 0; i < count; i++, want += step) {
        vaddr_t at = VADDR(va + i * step);
        uint32_t slot = raw_table(space_at(t->space), at.v, m->level);
        unsigned entry = level_index(at, m->level);
        pgentry_t have = slot ? table_entries(slot)[entry] & ~(pgentry_t)(PG_A | PG_D) : 0;

        EXPECT(c, place_differs(f, m->level, have, want) ? "P3" : "P5", have == want,
               "0x%lx: the record of frame 0x%lx says entry 0x%lx, it is 0x%lx", at.v,
               (uint64_t)f->mfn, want, have);
        EXPECT(c, "P5", !slot || table_shadow(slot)[entry] == index,
               "0x%lx: shadow 0x%x, its record is 0x%x", at.v, table_shadow(slot)[entry], index);
    }
    c->record_entries += count;
}

// What vmap() would have refused.
static void check_attr(struct check *c, const frame_t *f, const mapping_t *m)
{
    unsigned type = m->attr >> VATTR_TYPE_SHIFT;
    uint64_t mfn = f->mfn;

    EXPECT(c, "X2",
           !(m->attr & VATTR_U) ||
               table_at(m->at / PT_ENTRIES)->space != space_index(kernel_space()),
           "frame 0x%lx is mapped for ring 3 in the kernel's space", mfn);
    EXPECT(c, "P5", type < MEMTYPE_COUNT, "frame 0x%lx is mapped with memory type %u", mfn, type);
    EXPECT(c, "M2",
           memtype_holds(&mtrr, type, (mfn + m->offset) << PAGE_SHIFT,
                         (uint64_t)PAGE_SIZE << m->order),
           "frame 0x%lx is mapped with a type that the MTRRs change", mfn);
    EXPECT(c, "M1", f->kind != FRAME_DEVICE || type != MEMTYPE_WB,
           "device frame 0x%lx is mapped write-back", mfn);
    EXPECT(c, "M2", ((m->attr ^ mapping_at(f->maps)->attr) & VATTR_TYPE) == 0,
           "frame 0x%lx is mapped with two memory types", mfn);
}

// What a record says of its size and place agrees with itself and the block.
static bool record_fits(const frame_t *f, const mapping_t *m)
{
    uint64_t pages = UINT64_C(1) << m->order;

    return m->home_odd == (unsigned)__builtin_parity(m->home) &&
           m->home_1g == (m->home_level == 3) && m->order <= m->home && m->home <= f->order &&
           m->level <= m->home_level && m->offset + pages <= frame_pages(f) &&
           !(m->offset & (pages - 1));
}

static bool check_record(struct check *c, const frame_t *f, uint32_t index)
{
    const mapping_t *m = mapping_at(index);
    uint32_t slot = m->at / PT_ENTRIES;
    const struct table *t;
    uint64_t mfn = f->mfn;

    EXPECT(c, "P6", m->refs, "a mapping of frame 0x%lx has no references", mfn);
    if (!record_fits(f, m)) { // nor may its entries be counted: of order 31 there are too many
        check_fail(c, "P3", "a mapping of frame 0x%lx does not fit the block", mfn);
        return false;
    }
    if (!m->level || m->order < level_order(m->level)) {
        check_fail(c, "P3", "a mapping of frame 0x%lx is smaller than its entries", mfn);
        return false;
    }
    if (!slot || slot >= mm.slot_count || table_at(slot)->level != m->level) {
        check_fail(c, "P7", "a mapping of frame 0x%lx stands in slot %u, no table of level %u", mfn,
                   slot, m->level);
        return false;
    }
    t = table_at(slot);
    if (!index_in(ARENA_SPACES, t->space) || space_at(t->space)->live != SPACE_LIVE) {
        check_fail(c, "P7", "a mapping of frame 0x%lx belongs to no address space", mfn);
        return false;
    }
    check_attr(c, f, m);
    return true;
}

static void check_mappings(struct check *c, const frame_t *f)
{
    uint64_t sum = 0;
    uint32_t before = 0;

    for (uint32_t i = f->maps; i; i = mapping_at(i)->next) {
        if (!index_in(ARENA_MAPPINGS, i) || sum > f->mapcount) {
            check_fail(c, "A3", "the mappings of frame 0x%lx leave the arena or loop",
                       (uint64_t)f->mfn);
            return;
        }
        EXPECT(c, "A3", mapping_at(i)->prev == before,
               "mapping 0x%x of frame 0x%lx is linked badly", i, (uint64_t)f->mfn);
        if (!check_record(c, f, i))
            return;
        check_entries(c, f, i);
        sum += mapping_at(i)->refs;
        before = i;
        c->mappings++;
    }
    EXPECT(c, "P6", sum == f->mapcount,
           "frame 0x%lx: mapcount %u, its mappings have %lu references", (uint64_t)f->mfn,
           f->mapcount, sum);
}

static void check_place(struct check *c, const frame_t *f)
{
    uint64_t mfn = f->mfn, pages = frame_pages(f);
    uint64_t buddy = mfn ^ pages;
    const frame_t *b = find_mfn_frame(MFN(buddy));

    EXPECT(c, "A2", !(mfn & (pages - 1)), "frame 0x%lx is not aligned to order %u", mfn, f->order);
    EXPECT(c, "A2",
           find_mfn_frame(MFN(mfn)) == f && find_mfn_frame(MFN(mfn + pages - 1)) == f &&
               find_mfn_frame(MFN(mfn + pages / 2)) == f,
           "the tree does not lead to frame 0x%lx", mfn);
    EXPECT(c, "A5",
           f->order == ORDER_MAX || f->kind != FRAME_AVAILABLE || !frame_is_free(f) || !b ||
               b->mfn != buddy || b->order != f->order || b->kind != FRAME_AVAILABLE ||
               !frame_is_free(b),
           "free buddies 0x%lx and 0x%lx of order %u did not merge", mfn, buddy, f->order);
}

static bool in_stock(const frame_t *f)
{
    return f->slot < mm.slot_count && table_at(f->slot)->stock;
}

// What it has in the tree.
static void count_frame(struct check *c, const frame_t *f)
{
    c->frames++;
    c->device_frames += f->kind == FRAME_DEVICE;
    c->table_frames += f->kind == FRAME_TABLE;
    if (f->order < FRAME_PAGE_ORDER) {
        c->small_frames++;
        return;
    }
    c->large_frames++;
    if (f->order < NODE_ORDER)
        c->lower_entries += frame_pages(f) >> FRAME_PAGE_ORDER;
}

static void check_frame(struct check *c, const frame_t *f, unsigned order)
{
    uint64_t mfn = f->mfn;

    EXPECT(c, "A2", f->order == order, "frame 0x%lx of order %u hangs in the ring of order %u", mfn,
           f->order, order);
    EXPECT(c, "A2", f->kind && !f->tail && !f->zero, "frame 0x%lx: bad kind or tail", mfn);
    EXPECT(c, "A4", !frame_is_free(f) || (!f->maps && f->kind == FRAME_AVAILABLE),
           "free frame 0x%lx has mappings or is %s", mfn, frame_kind_name(f->kind));
    EXPECT(c, "T2", f->level ? f->kind == FRAME_TABLE : f->kind != FRAME_TABLE || in_stock(f),
           "frame 0x%lx: %s of level %u", mfn, frame_kind_name(f->kind), f->level);
    EXPECT(c, "A4", f->kind != FRAME_METADATA || f->refcount == 1,
           "metadata frame 0x%lx has %u references", mfn, f->refcount);
    EXPECT(c, "B1", f->kind == FRAME_TABLE || !epoch_is_future(f->epoch),
           "frame 0x%lx was unmapped in epoch %u, now is %u", mfn, f->epoch, mm.epoch);
    check_place(c, f);
    check_mappings(c, f);
    count_frame(c, f);
}

// The head of a ring has a descriptor's place, and nothing but links in it.
static bool check_head(struct check *c, unsigned order)
{
    uint32_t index = mm.order[order].head;
    const frame_t *head = frame_at(order + 1);

    if (index != order + 1) {
        check_fail(c, "A3", "order %u: head is 0x%x, should be 0x%x", order, index, order + 1);
        return false;
    }
    EXPECT(c, "A3", !frame_word(head) && !frame_counts(head) && !head->maps && !head->epoch,
           "the head of the ring of order %u holds more than links", order);
    return true;
}

static void check_ring(struct check *c, unsigned order)
{
    const struct order_list *list = &mm.order[order];
    uint64_t free = 0, used = 0, refs = 0;
    uint64_t limit = mm.arena[ARENA_FRAMES].pages * (uint64_t)FRAME_PAGE_COUNT;
    uint32_t before = list->head, last_free = list->head;

    if (!check_head(c, order))
        return;
    for (uint32_t i = frame_at(list->head)->next; i != list->head; i = frame_at(i)->next) {
        const frame_t *f = frame_at(i);

        if (!index_in(ARENA_FRAMES, i) || free + used > limit) {
            check_fail(c, "A3", "the ring of order %u leaves the arena or loops at index 0x%x",
                       order, i);
            return;
        }
        EXPECT(c, "A3", f->prev == before, "frame 0x%lx is linked badly in the ring of order %u",
               (uint64_t)f->mfn, order);
        check_frame(c, f, order);
        EXPECT(c, "A4", !frame_is_free(f) || !used, "free frame 0x%lx stands behind used ones",
               (uint64_t)f->mfn);
        free += frame_is_free(f);
        used += !frame_is_free(f);
        refs += f->refcount;
        if (frame_is_free(f))
            last_free = i;
        before = i;
    }
    EXPECT(c, "A3", frame_at(list->head)->prev == before, "the ring of order %u does not close",
           order);
    EXPECT(c, "A3", list->last_free == last_free, "order %u: last_free is 0x%x, should be 0x%x",
           order, list->last_free, last_free);
    EXPECT(c, "A4", free == list->free && used == list->used && refs == list->refs && !list->zero,
           "order %u: %lu free, %lu used, %lu refs; the counts say %u, %u, %lu", order, free, used,
           refs, list->free, list->used, list->refs);
}

void check_rings(struct check *c)
{
    for (unsigned order = 0; order <= ORDER_MAX; order++)
        check_ring(c, order);
}
