// SPDX-License-Identifier: BSD-2-Clause
// Page tables that became empty: kept in stock, used again, given back.
#include "mm/arena_internal.h"
#include "mm/table.h"
#include "tests/host/support.h"

static vaddr_t at_table(uint64_t table)
{
    return VADDR(VA_VMAP + (table + 1) * PT_ENTRIES * PAGE_SIZE);
}

// The table of level 1 there; 0 if there is none.
static uint32_t slot_at(vaddr_t va)
{
    struct pt_walk w;

    pt_walk(kernel_space(), va, 1, &w);
    return w.level == 1 ? w.slot : 0;
}

static frame_t *boot(void)
{
    frame_t *f;

    machine_boot(32 * MIB);
    OK(get_frame(0, &f));
    OK(vmap_4k(NULL, VADDR(VA_VMAP), f, VATTR_W)); // the tables above stand
    mm_trim();
    SAME(mm.stock_count, 0);
    return f;
}

static void kept_and_used_again(void)
{
    frame_t *f = boot();
    uint64_t seen = digest_seen();
    uint32_t slot, stock;

    OK(vmap_4k(NULL, at_table(0), f, VATTR_W));
    slot = slot_at(at_table(0));
    stock = mm.stock_count;
    OK(vunmap(NULL, at_table(0), f));
    SAME(slot_at(at_table(0)), 0);
    SAME(mm.stock_count, stock + 1);
    SAME(mm_check(), 0);
    OK(vmap_4k(NULL, at_table(7), f, VATTR_R));
    SAME(slot_at(at_table(7)), slot);
    SAME(mm.stock_count, stock);
    SAME(mm_check(), 0);
    OK(vunmap(NULL, at_table(7), f));
    mm_trim();
    SAME(mm.stock_count, 0);
    SAME(digest_seen(), seen);
}

// However many become empty, few are kept.
static void few_are_kept(void)
{
    frame_t *f = boot();
    uint32_t stock;

    for (unsigned i = 0; i < 40; i++)
        OK(vmap_4k(NULL, at_table(i), f, VATTR_W));
    stock = mm.stock_count;
    for (unsigned i = 0; i < 40; i++) {
        OK(vunmap(NULL, at_table(i), f));
        SAME(mm.stock_count, MIN(stock + i + 1, (unsigned)STOCK_TABLES));
    }
    SAME(mm_check(), 0);
}

// A table that is missing is made with others, which are handed out next; all of them go again.
static void made_at_once(void)
{
    frame_t *f = boot();
    uint64_t seen = digest_seen();
    uint32_t made, from;

    OK(vmap_4k(NULL, at_table(0), f, VATTR_W));
    made = mm.stock_count;
    from = mm.stock_slot;
    CHECK(made > 0 && made < STOCK_TABLES);
    SAME(mm_check(), 0);
    OK(vmap_4k(NULL, at_table(1), f, VATTR_W));
    SAME(slot_at(at_table(1)), from);
    SAME(mm.stock_count, made - 1);
    for (unsigned i = 2; i < 300; i++) {
        OK(vmap_4k(NULL, at_table(i), f, VATTR_W));
        CHECK(mm.stock_count < STOCK_TABLES);
    }
    SAME(mm_check(), 0);
    for (unsigned i = 0; i < 300; i++)
        OK(vunmap(NULL, at_table(i), f));
    mm_trim();
    SAME(mm.stock_count, 0);
    SAME(digest_seen(), seen);
}

// With memory in pieces of a page tables are made one by one.
static void made_one_by_one(void)
{
    frame_t *f = boot(), *held[2 * PT_ENTRIES];
    uint64_t pages = mm_free_pages();
    unsigned count = 0;

    while (get_frame(0, &held[count]) == 0)
        if (++count == ARRAY_SIZE(held))
            break;
    CHECK(count < pages);
    for (unsigned order = ORDER_MAX; order > 0; order--)
        while (get_frame(order, &f) == 0)
            ;
    for (unsigned i = 0; i < count; i += 2)
        OK(put_frame(held[i]));
    SAME(mm_free_blocks(0) > 8, true);
    for (unsigned i = 0; i < 8; i++) {
        OK(vmap_4k(NULL, at_table(i), held[1], VATTR_W));
        SAME(mm.stock_count, 0);
    }
    SAME(mm_check(), 0);
}

// An empty table whose frame others map or hold does not go to the stock: they would see the next
// one that is made of it.
static void not_kept_for_others(void)
{
    frame_t *f = boot(), *table;
    uint32_t stock;

    OK(vmap_4k(NULL, at_table(0), f, VATTR_W));
    table = frame_at(table_at(slot_at(at_table(0)))->frame);
    OK(vmap_4k(NULL, at_table(1), table, VATTR_R));
    stock = mm.stock_count;
    OK(vunmap(NULL, at_table(0), f));
    SAME(mm.stock_count, stock);
    SAME(table->kind, FRAME_AVAILABLE);
    SAME(mm_check(), 0);
    OK(vunmap(NULL, at_table(1), table));
    SAME(mm.stock_count, stock + 1);
    OK(vmap_4k(NULL, at_table(0), f, VATTR_W));
    table = frame_at(table_at(slot_at(at_table(0)))->frame);
    OK(ref_frame(table));
    OK(vunmap(NULL, at_table(0), f));
    SAME(mm.stock_count, stock);
    OK(put_frame(table));
    SAME(mm_check(), 0);
}

// The last frame that there is comes out of the stock.
static void given_back_when_short(void)
{
    frame_t *f = boot(), *last;

    for (unsigned i = 0; i < STOCK_TABLES; i++)
        OK(vmap_4k(NULL, at_table(i), f, VATTR_W));
    mm_trim();
    while (mm_free_pages())
        if (get_frame(0, &last))
            break;
    for (unsigned i = 0; i < STOCK_TABLES; i++)
        OK(vunmap(NULL, at_table(i), f));
    SAME(mm.stock_count, STOCK_TABLES);
    OK(get_frame(0, &last));
    SAME(mm.stock_count, 0);
    SAME(mm_check(), 0);
}

// Ranges: both ends may be canonical, and what lies between not.
static void canonical(void)
{
    const uint64_t low_end = UINT64_C(1) << 47, high = 0 - (UINT64_C(1) << 47);

    CHECK(pt_canonical(VADDR(low_end - PAGE_SIZE), PAGE_SIZE, 4));
    CHECK(!pt_canonical(VADDR(low_end - PAGE_SIZE), 2 * PAGE_SIZE, 4));
    CHECK(pt_canonical(VADDR(low_end - PAGE_SIZE), 2 * PAGE_SIZE, 5));
    CHECK(!pt_canonical(VADDR(low_end - PAGE_SIZE), high - low_end + 2 * PAGE_SIZE, 4));
    CHECK(pt_canonical(VADDR(high), PAGE_SIZE, 4));
    CHECK(!pt_canonical(VADDR(high - PAGE_SIZE), PAGE_SIZE, 4));
    CHECK(pt_canonical(VADDR(0 - UINT64_C(0x1000)), PAGE_SIZE, 4));
    CHECK(!pt_canonical(VADDR(0 - UINT64_C(0x1000)), 2 * PAGE_SIZE, 4));
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"tables_canonical", canonical},
        {"table_kept_and_used_again", kept_and_used_again},
        {"table_few_are_kept", few_are_kept},
        {"table_made_at_once", made_at_once},
        {"table_made_one_by_one", made_one_by_one},
        {"table_not_kept_for_others", not_kept_for_others},
        {"table_given_back_when_short", given_back_when_short},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
