// SPDX-License-Identifier: BSD-2-Clause
// Page tables that became empty: kept in stock, used again, given back.
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
    uint32_t slot;

    OK(vmap_4k(NULL, at_table(0), f, VATTR_W));
    slot = slot_at(at_table(0));
    OK(vunmap(NULL, at_table(0), f));
    SAME(slot_at(at_table(0)), 0);
    SAME(mm.stock_count, 1);
    SAME(mm_check(), 0);
    OK(vmap_4k(NULL, at_table(7), f, VATTR_R));
    SAME(slot_at(at_table(7)), slot);
    SAME(mm.stock_count, 0);
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

    for (unsigned i = 0; i < 40; i++)
        OK(vmap_4k(NULL, at_table(i), f, VATTR_W));
    for (unsigned i = 0; i < 40; i++) {
        OK(vunmap(NULL, at_table(i), f));
        SAME(mm.stock_count, MIN(i + 1, (unsigned)STOCK_TABLES));
    }
    SAME(mm_check(), 0);
}

// Whoever looks at a table, or holds it, does not see what becomes of it.
static void not_kept_for_others(void)
{
    frame_t *f = boot(), *table;

    OK(vmap_4k(NULL, at_table(0), f, VATTR_W));
    table = frame_at(table_at(slot_at(at_table(0)))->frame);
    OK(vmap_4k(NULL, at_table(1), table, VATTR_R));
    OK(vunmap(NULL, at_table(0), f));
    SAME(mm.stock_count, 0);
    SAME(table->kind, FRAME_AVAILABLE);
    SAME(mm_check(), 0);
    OK(vunmap(NULL, at_table(1), table));
    SAME(mm.stock_count, 1);
    OK(vmap_4k(NULL, at_table(0), f, VATTR_W));
    table = frame_at(table_at(slot_at(at_table(0)))->frame);
    OK(ref_frame(table));
    OK(vunmap(NULL, at_table(0), f));
    SAME(mm.stock_count, 0);
    OK(put_frame(table));
    SAME(mm_check(), 0);
}

// The last frame that there is comes out of the stock.
static void given_back_when_short(void)
{
    frame_t *f = boot(), *last;

    for (unsigned i = 0; i < STOCK_TABLES; i++)
        OK(vmap_4k(NULL, at_table(i), f, VATTR_W));
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

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"table_kept_and_used_again", kept_and_used_again},
        {"table_few_are_kept", few_are_kept},
        {"table_not_kept_for_others", not_kept_for_others},
        {"table_given_back_when_short", given_back_when_short},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
