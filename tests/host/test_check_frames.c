// SPDX-License-Identifier: BSD-2-Clause
// The same as test_check.c of frames, records, leaves, and how tables hang together.
#include "mm/frame_block.h"
#include "mm/frame_ring.h"
#include "tests/host/broken.h"

static mapping_t *record(const frame_t *frame)
{
    return mapping_at(frame->maps);
}

static void frames(void)
{
    frame_t *f;

    busy_boot();
    f = busy.page;
    BREAK("A2", f->kind, FRAME_AVAILABLE);
    BREAK("A6", f->kind, FRAME_AVAILABLE ^ FRAME_ACPI);
    BREAK("T2", f->level, 1);
    BREAK("A2", f->order, 1);
    BREAK("A2", f->mfn, 1);
    BREAK("A2", f->zero, 1);
    BREAK("A2", busy.large->tail, 1);
    BREAK("A3", f->prev, 1);
    BREAK("A4", f->refcount, 2);
    BREAK("P6", f->mapcount, 1);
    BREAK("A4", find_kern_va_frame((void *)VA_FRAMES)->refcount, 2);
    f = frame_at(mm.order[block_free_order(4)].last_free);
    BREAK("A4", f->maps, 4);
    BREAK("A4", f->kind, FRAME_AVAILABLE ^ FRAME_RESERVED);
    BREAK("A2", f->zero, 2);
}

static void rings(void)
{
    struct order_list *list;
    frame_t *head;

    busy_boot();
    list = &mm.order[0];
    head = frame_at(list->head);
    BREAK("A4", list->used, 1);
    BREAK("A4", list->free, 1);
    BREAK("A4", list->refs, 1);
    BREAK("A3", list->last_free, 1);
    BREAK("A3", head->prev, 1);
    BREAK("A3", head->order, 1);
    BREAK("A3", head->maps, 1);
    BREAK("A3", head->epoch, 1);
}

// Of a used frame of order 0, which then hangs behind that descriptor, and counts there.
static void hang(frame_t *f, uint32_t behind, unsigned from, unsigned to)
{
    ring_remove(f);
    mm.order[from].used--;
    mm.order[from].refs -= f->refcount;
    ring_insert_after(behind, f);
    mm.order[to].used++;
    mm.order[to].refs += f->refcount;
}

// All links and counts are right, but the place is not.
static void places(void)
{
    struct order_list *list = mm.order;
    frame_t *f, *metadata;

    busy_boot();
    f = busy.page;
    metadata = find_kern_va_frame((void *)VA_FRAMES);
    hang(f, frame_at(list[1].head)->prev, 0, 1);
    broken_named("A2", "a frame in the ring of order 1");
    hang(f, list[0].head, 1, 0);
    broken_named("A4", "a used frame before free ones");
    hang(f, frame_at(list[0].head)->prev, 0, 0);
    broken_whole("its place");
    metadata->refcount++;
    list[0].refs++;
    broken_named("A4", "the manager's frame has another owner");
    metadata->refcount--;
    list[0].refs--;
    broken_whole("the manager's frame");
}

// Put by a hand that does not look for the buddy.
static void buddies(void)
{
    frame_t *f, *buddy;

    busy_boot();
    do {
        OK(get_frame(0, &f));
        buddy = find_mfn_frame(MFN(f->mfn ^ 1));
    } while (!frame_is_free(buddy) || buddy->order);
    ring_remove(f);
    mm.order[0].used--;
    mm.order[0].refs--;
    f->refcount = 0;
    ring_add_free(f);
    broken_named("A5", "a buddy is free, too");
    ring_remove_free(f);
    f->refcount = 1;
    mm.order[0].refs++;
    ring_add_used(f);
    broken_whole("the buddies");
}

static void records(void)
{
    mapping_t *m;

    busy_boot();
    m = record(busy.page);
    CHECK(m->next);
    BREAK("P6", m->refs, 1);
    BREAK("P3", m->home_odd, 1);
    BREAK("P3", m->home_1g, 1);
    BREAK("P3", m->home, 3);
    BREAK("P3", m->home_level, 1);
    BREAK("P3", m->order, 1);
    BREAK("P3", m->order, m->order ^ 31); // with as many entries it would take minutes
    BREAK("P3", m->offset, 1);
    BREAK("P3", m->level, 1);
    BREAK("P7", m->at, UINT32_C(1) << 30);
    BREAK("P5", m->at, 1);
    BREAK("P5", m->attr, VATTR_W);
    BREAK("M2", m->attr, VATTR_UC);
    BREAK("A3", m->prev, 4);
    BREAK("A3", mapping_at(m->next)->prev, 4);
    BREAK("A3", m->next, UINT32_C(1) << 30);
    m->refs--;
    busy.page->mapcount--;
    broken_named("P6", "m->refs");
    m->refs++;
    busy.page->mapcount++;
    m = record(busy.small);
    BREAK("P3", m->order, 4 ^ 3);
    BREAK("P3", record(busy.large)->home, 12); // below its order, and of the same parity
    BREAK("M1", record(busy.low)->attr, VATTR_UC);
}

// What else an entry could map: exclusive or of the two frame numbers.
static pgentry_t other_frame(const frame_t *one, const frame_t *other)
{
    return (pgentry_t)(one->mfn ^ other->mfn) << PAGE_SHIFT;
}

static const frame_t *table_frame(uint32_t slot)
{
    return frame_at(table_at(slot)->frame);
}

static void leaves(void)
{
    const frame_t *root, *free;
    pgentry_t *e, *none;

    busy_boot();
    e = broken_entry(kernel_space(), VA_VMAP, 1);
    none = e + 7;
    root = table_frame(kernel_space()->root);
    free = frame_at(mm.order[block_free_order(0)].last_free);
    BREAK("X1", *e, PG_NX);
    BREAK("P5", *e, PG_P);
    BREAK("P5", *e, PG_PCD);
    BREAK("P5", *none, 1 << 9);
    BREAK("P4", *none, pgentry_leaf(frame_mfn(busy.page), 1, VATTR_R));
    BREAK("P1", *none, pgentry_leaf(MFN(0x345678), 1, VATTR_R));
    BREAK("P2", *none, pgentry_leaf(frame_mfn(free), 1, VATTR_R));
    BREAK("T4", *e, other_frame(busy.page, root));
    BREAK("T4", *e, other_frame(busy.page, find_kern_va_frame((void *)VA_FRAMES)));
    BREAK("T5", *e, UINT64_C(1) << 51);
    BREAK("P3", *broken_entry(busy.user, 0x401000, 1), 3 << PAGE_SHIFT);
    BREAK("P3", *broken_entry(busy.user, 0x40000000, 2), 1 << 13);
    e = broken_entry(kernel_space(), VA_SPACES, 1);
    BREAK("A3", *e, other_frame(find_kern_va_frame((void *)VA_SPACES), busy.page));
    e = broken_entry(kernel_space(), (uintptr_t)table_entries(busy.user->root), 1);
    BREAK("T4", *e, other_frame(table_frame(busy.user->root), root));
}

// All levels must allow it for a page to be in ring 3's reach.
static void reach(void)
{
    space_t *kernel = kernel_space();

    busy_boot();
    for (unsigned level = 1; level <= 4; level++)
        *broken_entry(kernel, VA_VMAP, level) |= PG_U;
    broken_named("X2", "the user bit");
    for (unsigned level = 1; level <= 4; level++)
        *broken_entry(kernel, VA_VMAP, level) &= ~(pgentry_t)PG_U;
    broken_whole("the user bit");
}

static void tables(void)
{
    struct table *t, *root;
    pgentry_t *e;

    busy_boot();
    root = table_at(busy.user->root);
    t = table_at(broken_at(busy.user, 0x400000, 1).slot);
    BREAK("T3", t->parent, 1);
    BREAK("T3", t->index, 1);
    BREAK("T3", t->va, UINT64_C(1) << 21);
    BREAK("T3", t->space, 3);
    BREAK("T3", t->frame, 1);
    BREAK("T2", t->level, 3);
    BREAK("T7", root->index, 1);
    BREAK("T7", root->space, 3);
    BREAK("T7", root->level, 1);
    BREAK("C1", root->frame, UINT32_C(1) << 30);
    e = broken_entry(busy.user, 0x400000, 2);
    BREAK("T1", *e, other_frame(table_frame(broken_at(busy.user, 0x400000, 1).slot), busy.page));
    BREAK("T3", e[1], *e ^ e[1]);
    e = broken_entry(busy.user, 0x400000, 3);
    BREAK("T6", e[8], pgentry_table(frame_mfn(table_frame(busy.user->root)), true));
    BREAK("T3", table_entries(busy.user->root)[PT_ENTRIES - 1], 1 << PAGE_SHIFT);
    BREAK("P5", *broken_entry(busy.user, 0x400000, 2), PG_P);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"check_frames", frames}, {"check_places", places},      {"check_buddies", buddies},
        {"check_rings", rings},   {"check_records", records},    {"check_leaves", leaves},
        {"check_reach", reach},   {"check_page_tables", tables},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
