// SPDX-License-Identifier: BSD-2-Clause
// mm_check() against a busy memory in which one word at a time is wrong: it names the rule, and
// finds nothing when the word is right again.
#include "mm/arena_internal.h"
#include "mm/frame_block.h"
#include "mm/frame_ring.h"
#include "mm/frame_tree.h"
#include "tests/host/broken.h"

/* --- page tables and spaces ------------------------------------------------------------------- */

static void entries(void)
{
    busy_boot();
    for (unsigned level = 2; level <= 4; level++) {
        pgentry_t *e = broken_entry(busy.user, 0x400000, level),
                  *k = broken_entry(kernel_space(), VA_VMAP, level);

        BREAK("P4", *e, PG_W);
        BREAK("P4", *e, PG_U);
        BREAK("P4", *e, PG_NX);
        BREAK("T5", *e, PG_PWT);
        BREAK("T5", *e, PG_PCD);
        BREAK("P4", *k, PG_W);
        BREAK("P4", *k, PG_U);
        BREAK("P4", *k, PG_NX);
        BREAK("T5", *k, PG_PCD);
    }
    BREAK("T5", *broken_entry(busy.user, 0x400000, 4), PG_PS);
    BREAK("P5", *broken_entry(busy.user, 0x400000, 1), PG_W); // the record is looked at first
    BREAK("P5", *broken_entry(busy.user, 0x800000, 2), PG_W);
}

static void shadows(void)
{
    uint32_t *shared;

    busy_boot();
    shared = table_shadow(busy.user->root);
    for (unsigned i = PT_ENTRIES / 2; i < PT_ENTRIES; i += 51)
        BREAK("T3", shared[i], 1);
    BREAK("T3", shared[PT_ENTRIES - 1], SHADOW_TABLE);
    BREAK("T3", *broken_shadow(busy.user, 0x400000, 3), 1);
    BREAK("P5", *broken_shadow(busy.user, 0x400000, 1), 1);
    BREAK("P5", *broken_shadow(busy.user, 0x600000, 2), 1);
}

// The window does not show a table: nothing else is looked at, for its entries can't be.
static void unseen(uint32_t slot)
{
    pgentry_t *e = broken_entry(kernel_space(), (uintptr_t)table_entries(slot), 1), was = *e;

    *e = 0;
    broken_named("T4", "the window");
    SAME(mm_check(), 1);
    *e = was;
    broken_whole("the window");
}

static void slots(void)
{
    uint32_t window;
    struct table *t;
    frame_t *f;

    busy_boot();
    window = broken_at(kernel_space(), VA_WINDOW, 1).slot;
    t = table_at(broken_at(busy.user, 0x400000, 1).slot);
    BREAK("T7", table_at(window)->pins, 1);
    BREAK("T7", t->pins, 1);
    BREAK("T7", t->stock, 1);
    BREAK("T7", t->zero, 4);
    BREAK("A4", t->used, 1);
    BREAK("T7", table_at(busy.user->root)->parent, 1);
    BREAK("T7", table_at(busy.user->root)->va, 1u << 12);
    BREAK("A4", kernel_space()->id, 1);
    f = frame_at(table_at(broken_at(kernel_space(), VA_VMAP, 3).slot)->frame);
    BREAK("T3", f->slot, f->slot ^ mm.free_slot);
    BREAK("T3", f->slot, f->slot ^ window);
    unseen(busy.user->root);
    unseen(mm.stock_slot);
    t = table_at(mm.stock_slot);
    BREAK("T7", t->stock, 2);
    BREAK("T7", t->pins, 1);
    BREAK("T7", t->va, 1u << 30);
    BREAK("T7", table_entries(mm.stock_slot)[7], 1);
    BREAK("T7", table_shadow(mm.stock_slot)[7], 1);
    BREAK("A4", mm.stock_count, 1);
    BREAK("A3", mm.stock_slot, mm.stock_slot);
    t = table_at(mm.free_slot);
    BREAK("T7", t->space, 1);
    BREAK("T7", t->used, 1);
    BREAK("A3", t->parent, 1);
    BREAK("T7", table_shadow(mm.free_slot)[511], 1);
    BREAK("A4", mm.free_slots, 1);
    BREAK("A3", mm.free_slot, mm.free_slot);
    BREAK("T7", table_at(0)->used, 1);
    BREAK("T7", table_shadow(0)[0], 1);
    BREAK("T7", table_at(0)->frame, 1);
    BREAK("T7", table_at(mm.slot_count)->frame, 1);
    BREAK("T7", table_at(mm.slot_count)->va, 1);
    BREAK("A3", mm.slot_count, 2);
}

static void spaces(void)
{
    busy_boot();
    for (unsigned i = 0; i < 2; i++) {
        struct recent_table *r = &busy.user->recent[i];

        CHECK(r->count == PT_ENTRIES);
        BREAK("T7", r->va, 1u << 21);
        BREAK("T7", r->table, 32);
        BREAK("T7", r->count, 1);
        BREAK("T7", r->at, PT_ENTRIES);
        BREAK("A3", r->zero, 1);
    }
    BREAK("C1", busy.user->cpus, 1);
    BREAK("C1", busy.user->cpus, UINT64_C(1) << 63);
    BREAK("C1", kernel_space()->cpus, 2);
    BREAK("C1", kernel_space()->cpus, 4);
    BREAK("C1", busy.user->cr3, 0x1000);
    BREAK("A4", busy.user->id, 64);
    BREAK("A4", busy.user->tables, 1);
    BREAK("A3", busy.user->name[9], 'x');
    BREAK("T7", busy.user->levels, 1);
    BREAK("T7", busy.user->root, busy.user->root ^ mm.free_slot);
    BREAK("T7", busy.user->root, busy.user->root);
    BREAK("T7", kernel_space()->root, kernel_space()->root ^ mm.free_slot);
    BREAK("T7", kernel_space()->root, 1u << 30);
}

/* --- frames ----------------------------------------------------------------------------------- */

static void descriptors(void)
{
    frame_t *head;

    busy_boot();
    head = frame_at(mm.order[4].head);
    BREAK("A2", busy.small[1].refcount, 1);
    BREAK("A2", busy.small[2].mapcount, 1);
    BREAK("A2", busy.small[7].maps, 1);
    BREAK("A2", busy.small[3].epoch, 1);
    BREAK("A2", busy.small[4].tail, 1);
    BREAK("A2", busy.small[4].next, 1);
    BREAK("A2", busy.high[1].refcount, 1); // of no frame
    BREAK("A3", head->refcount, 1);
    BREAK("A3", mm.order[4].head, 1);
    BREAK("B1", busy.page->epoch, UINT32_C(1) << 30);
    BREAK("B1", busy.freed->epoch, busy.freed->epoch ^ (mm.epoch + 1));
    BREAK("B1", busy.large->epoch, UINT32_C(1) << 31);
    OK(put_frame(busy.freed));
    busy.freed = frame_at(mm.order[block_free_order(0)].last_free);
    BREAK("B1", busy.freed->epoch, UINT32_C(1) << 30);
}

static void nodes(void)
{
    struct arena *a = &mm.arena[ARENA_NODES];
    uint64_t *entries, lower;

    busy_boot();
    lower = busy.page->mfn >> FRAME_PAGE_ORDER;
    entries = (uint64_t *)(uintptr_t)(node_at(0)->entry[0] & ~NODE_BELOW);
    BREAK("A3", node_at(0)->entry[0], 8);
    BREAK("A3", node_at(0)->entry[0], NODE_BELOW);
    BREAK("A3", entries[lower], sizeof(frame_t));
    BREAK("A3", entries[lower], NODE_BELOW);
    BREAK("A2", entries[busy.large->mfn >> FRAME_PAGE_ORDER], 1);
    BREAK("A2", entries[NODE_ENTRIES - 1], ORDER_COUNT + 1);
    BREAK("A2", entries[NODE_ENTRIES - 1], frame_index(busy.large));
    lower = (busy.large->mfn >> FRAME_PAGE_ORDER) + 1; // none of the first, the last, the middle
    BREAK("A2", entries[lower], entries[lower]);
    BREAK("A3", mm.high_node[0], mm.high_node[0]);
    BREAK("A3", mm.high_node[7], 1);
    BREAK("A3", mm.high_node[0], 64);
    BREAK("A3", a->empty, a->empty);
    BREAK("A3", a->empty, 1);
    BREAK("A4", a->free, 1);
    BREAK("A4", a->partial, 1);
    BREAK("A3", node_at(a->empty)->entry[1], 1);
    BREAK("A3", node_at(a->empty)->entry[NODE_ENTRIES - 1], 1);
}

/* --- arenas ----------------------------------------------------------------------------------- */

// The page that an arena's list begins with, and its first free object.
static void objects(enum arena_id id)
{
    struct arena *a = &mm.arena[id];
    struct arena_page *p = page_header(a, a->partial);
    uint32_t *free = (uint32_t *)(uintptr_t)(a->base + (uint64_t)p->free * a->unit);

    BREAK("A3", p->magic, 1);
    BREAK("A4", p->used, 1);
    BREAK("A3", p->free, 1u << 20);
    BREAK("A3", p->prev, 1);
    BREAK("A3", p->zero, 1);
    BREAK("A3", p->zero2, 1);
    BREAK("A3", free[0], 1);
    BREAK("A3", free[a->size / 4 - 1], 1);
    BREAK("A3", a->partial, a->partial);
    BREAK("A4", a->free, 1);
}

// The first page without free objects.
static struct arena_page *full_page(enum arena_id id)
{
    for (uint32_t number = 1; number <= mm.arena[id].pages; number++)
        if (!page_header(&mm.arena[id], number)->free)
            return page_header(&mm.arena[id], number);
    test_fail(__FILE__, __LINE__, "arena %u has no full page", id);
}

// In pages of objects: around these, in the head, and what only a head says of a full page.
static void heads(void)
{
    struct arena_page *p = full_page(ARENA_MAPPINGS);
    uint32_t *words = (uint32_t *)page_header(&mm.arena[ARENA_SPACES], 1);

    BREAK("A3", words[sizeof(*p) / 4], 1);
    BREAK("A3", words[sizeof(space_t) / 4 - 1], 1);
    BREAK("A3", ((uint32_t *)p)[PAGE_SIZE / 4 - 1], 1);
    BREAK("A3", p->magic, 1);
    BREAK("A3", p->prev, 1);
    BREAK("A3", p->next, 1);
    BREAK("A3", p->zero, 1);
    BREAK("A4", p->used, 1);
    p = page_header(mm.arena, mm.arena[ARENA_FRAMES].empty);
    BREAK("A3", p->magic, 1);
    BREAK("A3", p->prev, 1);
    BREAK("A3", p->zero, 1);
    BREAK("A3", p->zero2, 1);
    BREAK("A3", p->used, 1);
    BREAK("A3", p->free, 1);
    BREAK("A3", p[1].magic, 1);
    BREAK("A3", p[127].free, 1);
}

// What is neither free nor used by anybody.
#define LOSE(rule, take, give)                                                                     \
    do {                                                                                           \
        uint32_t lost_ = (take);                                                                   \
                                                                                                   \
        CHECK(lost_);                                                                              \
        broken_named(rule, #take);                                                                 \
        give(lost_);                                                                               \
        broken_whole(#give);                                                                       \
    } while (0)

static void give_space(uint32_t index)
{
    arena_free(ARENA_SPACES, index);
}

static void give_node(uint32_t index)
{
    arena_free(ARENA_NODES, index);
}

static void give_descriptor(uint32_t index)
{
    arena_free(ARENA_FRAMES, index);
}

// On no ring.
static void lose_frame(void)
{
    ring_remove(busy.page);
    mm.order[0].used--;
    mm.order[0].refs -= busy.page->refcount;
    broken_named("A2", "the ring of order 0");
    mm.order[0].refs += busy.page->refcount;
    ring_add_used(busy.page);
    broken_whole("the ring of order 0");
}

static void lost(void)
{
    busy_boot();
    lose_frame();
    LOSE("A4", arena_alloc(ARENA_MAPPINGS), record_free);
    LOSE("A4", arena_alloc(ARENA_SPACES), give_space);
    LOSE("A3", arena_alloc(ARENA_NODES), give_node);
    LOSE("A4", arena_alloc(ARENA_FRAMES), give_descriptor);
    LOSE("A3", frame_page_alloc(), frame_page_free);
}

static void arenas(void)
{
    struct arena *a = mm.arena;

    busy_boot();
    objects(ARENA_MAPPINGS);
    objects(ARENA_SPACES);
    heads();
    for (unsigned id = 0; id < ARENA_COUNT; id++) {
        BREAK("A3", a[id].base, PAGE_SIZE);
        BREAK("A3", a[id].limit, PAGE_SIZE);
        BREAK("A3", a[id].unit, 1);
        BREAK("A3", a[id].size, 4);
        BREAK("A4", a[id].low, 128);
        BREAK("A4", a[id].boot, 1);
        BREAK("A3", a[id].boot, 1u << 20);
    }
    BREAK("A3", a[ARENA_MAPPINGS].pages, 256);
    BREAK("A4", a[ARENA_TABLES].free, 1);
    BREAK("A4", a[ARENA_SHADOWS].empty, 1);
    BREAK("A4", a[ARENA_SPACES].empty, 1);
    BREAK("A4", a[ARENA_MAPPINGS].empty, 1);
    BREAK("A4", a[ARENA_FRAMES].free, 1);
    BREAK("A3", a[ARENA_FRAMES].empty, a[ARENA_FRAMES].empty);
    BREAK("A4", mm.records.count, 1);
    BREAK("A3", mapping_at(mm.records.head)->refs, 1);
}

/* --- struct mm -------------------------------------------------------------------------------- */

static void state(void)
{
    busy_boot();
    BREAK("A4", mm.frame_limit, 1u << 7);
    BREAK("A4", mm.boot_pages, 1);
    BREAK("A4", mm.live, 1);
    BREAK("A4", mm.root_ready, 1);
    BREAK("A4", mm.checking, 2);
    BREAK("A4", mm.map_lock.waiting, 2);
    BREAK("A4", mm.frame_lock.waiting, 2);
    BREAK("A4", mm.magic, 1);
    BREAK("A4", mm.busy, 1);
    BREAK("A4", mm.zero2, 1);
    BREAK("A4", mm.journal_on, 2);
    BREAK("A4", mm.journal_seq, 1);
    BREAK("A4", mm.check_every, 1u << 30);
    BREAK("A4", mm.levels, 1);
    BREAK("A4", mm.page_1g, 1);
    BREAK("A4", mm.window, 1u << 12);
    BREAK("A4", mm.next_space, mm.next_space);
    BREAK("A1", mm.phys_limit, mm.phys_limit / 2);
    BREAK("A1", mm.region_count, 1u << 20);
    BREAK("A1", mm.region[0].zero, 1);
    BREAK("A1", mm.region[mm.region_count].kind, 1);
    BREAK("A1", mm.region[0].end, UINT64_C(1) << 45);
    BREAK("A4", mm.order[3].zero, 1);
    BREAK("A4", mm.map_lock.rank, 1);
    BREAK("A4", mm.map_lock.rank, UINT32_C(1) << 30);
    BREAK("A4", mm.frame_lock.rank, 1);
    BREAK("A4", mm.batch.zero, 1);
    BREAK("A4", mm.batch.runs, 1);
    BREAK("A3", mm.space_list, mm.space_list);
    mm.work = 8; // which is done, and 0, after the check
    broken_named("A4", "mm.work");
    broken_whole("mm.work");
}

static void types(void)
{
    busy_boot();
    for (unsigned level = 0; level < 2; level++)
        for (unsigned attr = 0; attr < 64; attr++)
            BREAK("P5", mm.leaf_bits[level][attr], PG_NX);
    for (unsigned kind = 0; kind < 32; kind++)
        BREAK("M2", mm.wb_kinds, UINT32_C(1) << kind);
}

static void cpus(void)
{
    busy_boot();
    BREAK("C1", mm.cpu[1].space, 1);
    BREAK("C1", mm.cpu[1].online, 2);
    BREAK("C1", mm.cpu[1].online, 1);
    BREAK("C1", mm.cpu[2].space, mm.space_list);
    BREAK("B1", mm.cpu[2].asked, 1);
    BREAK("B1", mm.cpu[2].flushed, 1);
    BREAK("B1", mm.cpu[1].asked, 1);
    BREAK("B1", mm.cpu[1].flushed, 1);
    for (uint32_t cpu = 1; cpu <= 2;
         cpu++) { // both alike, but it has not come to that, or is not there
        mm.cpu[cpu].asked += UINT32_C(1) << 20;
        mm.cpu[cpu].flushed += UINT32_C(1) << 20;
        broken_named("B1", "asked and flushed");
        mm.cpu[cpu].asked -= UINT32_C(1) << 20;
        mm.cpu[cpu].flushed -= UINT32_C(1) << 20;
    }
    BREAK("C1", kernel_cr3, 0x1000);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"check_entries", entries},
        {"check_shadows", shadows},
        {"check_slots", slots},
        {"check_spaces", spaces},
        {"check_descriptors", descriptors},
        {"check_nodes", nodes},
        {"check_arenas", arenas},
        {"check_lost", lost},
        {"check_state", state},
        {"check_types", types},
        {"check_cpus", cpus},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
