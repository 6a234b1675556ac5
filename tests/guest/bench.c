// SPDX-License-Identifier: BSD-2-Clause
// The benchmark (the word `bench`): instructions of the vmap family, and what the boot has cost.
#include "tests/guest/bench.h"

#include "arch/x86/exit.h"
#include "lib/panic.h"
#include "mm/arena_internal.h"
#include "mm/frame_word.h"
#include "mm/mm.h"
#include "mm/table.h"
#include "mm/vmap.h"
#include "tests/guest/test.h"

enum {
    TABLES = 8, // that hold the pages of the benchmark's loops
    PAGES = TABLES * PT_ENTRIES,
    BIG = 16, // 2M frames
    BIG_VAS = 256,
    RANGES = 16, // of 512 pages each
};

static frame_t *page[PAGES];
static frame_t *big[BIG];

static uint64_t empty_loop; // ticks of BENCH_MIN rounds

void bench_calibrate(void)
{
    empty_loop = 0;
    BENCH_LOOP(empty_loop, i, BENCH_MIN, __asm__ volatile("" : : "r"(page[i])));
}

void bench_say_plain(const char *key, uint64_t ticks, uint64_t ops)
{
    printk("bench %s ticks %lu ops %lu\n", key, ticks, ops);
}

void bench_say(const char *key, uint64_t ticks, uint64_t ops)
{
    bench_say_plain(key, ticks - empty_loop * ops / BENCH_MIN, ops);
}

void bench_check(int err, const char *what)
{
    if (err)
        panic("bench: %s: %s", what, error_name(err));
}

frame_t *bench_get(unsigned order)
{
    frame_t *frame;

    bench_check(get_frame(order, &frame), "get_frame");
    return frame;
}

// What reading the clock twice costs by itself: subtracted where each operation is measured alone.
static uint64_t clock_ticks(void)
{
    uint64_t ticks = 0;

    for (unsigned i = 0; i < BENCH_MIN; i++)
        BENCH_LOOP(ticks, j, 1, __asm__ volatile("" : : : "memory"));
    return ticks;
}

static vaddr_t page_va(uint64_t i)
{
    return VADDR(BENCH_VA + (i << PAGE_SHIFT));
}

static vaddr_t big_va(uint64_t i)
{
    return VADDR(BENCH_VA + (i << (PAGE_SHIFT + ORDER_2M)));
}

/* --- single pages ----------------------------------------------------------------------------- */

// The first page of each table stays mapped, so that the tables stand.
static int keep_tables(void)
{
    int err = 0;

    for (unsigned i = 0; i < PAGES; i += PT_ENTRIES)
        err |= vmap_4k(NULL, page_va(i), page[i], VATTR_W);
    return err;
}

static int drop_tables(void)
{
    int err = 0;

    for (unsigned i = 0; i < PAGES; i += PT_ENTRIES)
        err |= vunmap(NULL, page_va(i), page[i]);
    return err;
}

static void bench_4k(void)
{
    uint64_t map = 0, again = 0, put = 0, unmap = 0, ops = PAGES - TABLES;
    int err = keep_tables();

    for (unsigned t = 1; t < PAGES; t += PT_ENTRIES)
        BENCH_LOOP(map, i, PT_ENTRIES - 1,
                   err |= vmap_4k(NULL, page_va(t + i), page[t + i], VATTR_W));
    BENCH_LOOP(again, i, PAGES, err |= vmap_4k(NULL, page_va(i), page[i], VATTR_W));
    BENCH_LOOP(put, i, PAGES, err |= vput(NULL, page_va(i), page[i]));
    for (unsigned t = 1; t < PAGES; t += PT_ENTRIES)
        BENCH_LOOP(unmap, i, PT_ENTRIES - 1, err |= vunmap(NULL, page_va(t + i), page[t + i]));
    bench_check(err | drop_tables(), "4K pages");
    bench_say("vmap_4k", map, ops);
    bench_say("vunmap_4k", unmap, ops);
    bench_say("vmap_again", again, PAGES);
    bench_say("vput", put, PAGES);
}

// Another table each time, not the one used last: not in the contract, but said.
static void bench_4k_apart(void)
{
    uint64_t map = 0, unmap = 0;
    int err = keep_tables();

    for (uint64_t n = 1; n < PT_ENTRIES; n++)
        BENCH_LOOP(map, i, TABLES,
                   err |= vmap_4k(NULL, page_va(i * PT_ENTRIES + n), page[n], VATTR_W));
    for (uint64_t n = 1; n < PT_ENTRIES; n++)
        BENCH_LOOP(unmap, i, TABLES, err |= vunmap(NULL, page_va(i * PT_ENTRIES + n), page[n]));
    bench_check(err | drop_tables(), "4K pages, another table each time");
    bench_say("vmap_4k_apart", map, PAGES - TABLES);
    bench_say("vunmap_4k_apart", unmap, PAGES - TABLES);
}

// One new L1 table for each page; the L2 tables above it stand, by the last entry of each.
static void bench_new_table(void)
{
    uint64_t map = 0, unmap = 0, ops = 0;
    int err = 0;

    for (uint64_t g = 0; ops < BENCH_MIN; g++, ops += PT_ENTRIES - 1) {
        vaddr_t keep = big_va((g + 1) * PT_ENTRIES - 1);

        err |= vmap_4k(NULL, keep, page[PAGES - 1], VATTR_W);
        BENCH_LOOP(map, i, PT_ENTRIES - 1,
                   err |= vmap_4k(NULL, big_va(g * PT_ENTRIES + i), page[i], VATTR_W));
        BENCH_LOOP(unmap, i, PT_ENTRIES - 1,
                   err |= vunmap(NULL, big_va(g * PT_ENTRIES + i), page[i]));
        err |= vunmap(NULL, keep, page[PAGES - 1]);
    }
    bench_check(err, "a new table each");
    bench_say("vmap_4k_new_table", map, ops);
    bench_say("vunmap_4k_last_of_table", unmap, ops);
}

// The table that the last unmapping has emptied is in stock.
static void bench_stock_table(void)
{
    uint64_t map = 0, unmap = 0, clock = clock_ticks();
    int err = vmap_4k(NULL, big_va(PT_ENTRIES - 1), page[PAGES - 1], VATTR_W);

    for (uint64_t i = 0; i < BENCH_MIN; i++) {
        vaddr_t va = big_va(i % (PT_ENTRIES - 1));

        BENCH_LOOP(map, j, 1, err |= vmap_4k(NULL, va, page[i], VATTR_W));
        BENCH_LOOP(unmap, j, 1, err |= vunmap(NULL, va, page[i]));
    }
    bench_check(err | vunmap(NULL, big_va(PT_ENTRIES - 1), page[PAGES - 1]), "a table in stock");
    bench_say_plain("vmap_4k_stock_table", map - clock, BENCH_MIN);
    bench_say_plain("vunmap_4k_stock_table", unmap - clock, BENCH_MIN);
}

static void bench_2m(void)
{
    uint64_t map = 0, unmap = 0, ops = 0;
    int err = vmap_2m(NULL, big_va(BIG_VAS), big[0], VATTR_W);

    for (; ops < BENCH_MIN; ops += BIG_VAS) {
        BENCH_LOOP(map, i, BIG_VAS, err |= vmap_2m(NULL, big_va(i), big[i % BIG], VATTR_W));
        BENCH_LOOP(unmap, i, BIG_VAS, err |= vunmap(NULL, big_va(i), big[i % BIG]));
    }
    err |= vunmap(NULL, big_va(BIG_VAS), big[0]);
    bench_check(err, "2M pages");
    bench_say("vmap_2m", map, ops);
    bench_say("vunmap_2m", unmap, ops);
}

/* --- ranges ----------------------------------------------------------------------------------- */

// 512 frames of order 0, one after the other in physical memory, out of page[].
static frame_t *consecutive(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t mfn = page[i]->mfn;
        unsigned n = 0;

        while (n < PT_ENTRIES) {
            const frame_t *f = find_mfn_frame(MFN(mfn + n));

            if (!f || f->order || f->kind != FRAME_AVAILABLE || frame_is_free(f))
                break;
            n++;
        }
        if (n == PT_ENTRIES)
            return page[i];
    }
    panic("bench: no 512 consecutive frames");
}

// Across two tables, which are made by mapping and freed by unmapping.
static void bench_range_4k(void)
{
    frame_t *first = consecutive();
    vaddr_t va = page_va(PT_ENTRIES / 2);
    uint64_t map = 0, unmap = 0;
    int err = 0;

    for (unsigned i = 0; i < RANGES; i++) {
        BENCH_LOOP(map, j, 1, err |= vmap_range(NULL, va, first, 0, PT_ENTRIES, VATTR_W));
        BENCH_LOOP(unmap, j, 1, err |= vunmap_range(NULL, va, first, 0, PT_ENTRIES));
    }
    bench_check(err, "range of 4K pages");
    bench_say_plain("range_map_4k", map, RANGES * PT_ENTRIES);
    bench_say_plain("range_unmap_4k", unmap, RANGES * PT_ENTRIES);
    map = unmap = 0;
    for (unsigned i = 0; i < RANGES; i++) {
        BENCH_LOOP(map, j, 1, err |= vmap_frames(NULL, va, page, PT_ENTRIES, VATTR_W));
        BENCH_LOOP(unmap, j, 1, err |= vput_frames(NULL, va, page, PT_ENTRIES));
    }
    bench_check(err, "frames from anywhere");
    bench_say_plain("frames_map_4k", map, RANGES * PT_ENTRIES);
    bench_say_plain("frames_put_4k", unmap, RANGES * PT_ENTRIES);
}

// One block of 1 GiB where 1G pages do not fit; two tables are made and freed.
static void bench_range_2m(void)
{
    vaddr_t va = big_va(PT_ENTRIES / 2);
    uint64_t map = 0, unmap = 0;
    frame_t *gib;
    int err = 0;

    if (get_frame(ORDER_1G, &gib))
        return;
    for (unsigned i = 0; i < RANGES; i++) {
        BENCH_LOOP(map, j, 1,
                   err |= vmap_range(NULL, va, gib, 0, UINT64_C(1) << ORDER_1G, VATTR_W));
        BENCH_LOOP(unmap, j, 1, err |= vunmap_range(NULL, va, gib, 0, UINT64_C(1) << ORDER_1G));
    }
    bench_check(err | put_frame(gib), "range of 2M pages");
    bench_say_plain("range_map_2m", map, RANGES * PT_ENTRIES);
    bench_say_plain("range_unmap_2m", unmap, RANGES * PT_ENTRIES);
}

/* --- aliases ---------------------------------------------------------------------------------- */

// `others` more mappings of page[0], from the benchmark's second TiB on.
static vaddr_t other_va(uint64_t i)
{
    return VADDR(BENCH_VA + (UINT64_C(1) << 40) + (i << PAGE_SHIFT));
}

static void bench_aliased_by(uint64_t others)
{
    uint64_t map = 0, unmap = 0, clock = clock_ticks();
    char key[40];
    int err = 0;

    for (unsigned i = 0; i < BENCH_MIN; i++) {
        vaddr_t va = page_va(1 + i % (PT_ENTRIES - 1));

        BENCH_LOOP(map, j, 1, err |= vmap_4k(NULL, va, page[0], VATTR_W));
        BENCH_LOOP(unmap, j, 1, err |= vunmap(NULL, va, page[0]));
    }
    bench_check(err, "aliases");
    snprintk(key, sizeof(key), "vmap_aliased[%lu]", others);
    bench_say_plain(key, map - clock, BENCH_MIN);
    snprintk(key, sizeof(key), "vunmap_aliased[%lu]", others);
    bench_say_plain(key, unmap - clock, BENCH_MIN);
}

static void bench_aliased(void)
{
    static const uint64_t counts[] = {0, 100, 100000};
    uint64_t others = 0;
    int err = vmap_4k(NULL, page_va(0), page[1], VATTR_W); // keeps the table

    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        for (; others < counts[i]; others++)
            err |= vmap_4k(NULL, other_va(others), page[0], VATTR_W);
        bench_check(err, "aliases");
        bench_aliased_by(others);
    }
    while (others--)
        err |= vunmap(NULL, other_va(others), page[0]);
    bench_check(err | vunmap(NULL, page_va(0), page[1]), "aliases");
}

/* --- all of it -------------------------------------------------------------------------------- */

static void bench_boot(void)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < ARENA_COUNT; i++) {
        printk("bench: arena %u has %u pages\n", i, mm.arena[i].pages);
        pages += mm.arena[i].pages;
    }
    // The kernel's tables for the windows, the root's share of them included.
    for (uint32_t slot = 1; slot < mm.slot_count; slot++) {
        const struct table *t = table_at(slot);
        bool window = t->va >= LAYOUT_BASE && t->va < VA_STACKS;

        if (t->level && (window || t->level == mm.levels))
            pages++;
    }
    bench_say_plain("boot_frames", mm.boot_ticks, 1);
    bench_say_plain("metadata_boot_bytes", pages * PAGE_SIZE, 1);
}

static void bench_maps(void)
{
    // Room for their descriptors first: else the pages that these take lie between the frames.
    for (unsigned i = 0; i < PAGES / FRAME_PAGE_COUNT + 4; i++)
        bench_check(arena_grow(ARENA_FRAMES), "descriptors");
    for (unsigned i = 0; i < PAGES; i++)
        page[i] = bench_get(ORDER_4K);
    for (unsigned i = 0; i < BIG; i++)
        big[i] = bench_get(ORDER_2M);
    bench_4k();
    bench_4k_apart();
    bench_new_table();
    bench_stock_table();
    bench_2m();
    bench_range_4k();
    bench_range_2m();
    bench_aliased();
    for (unsigned i = 0; i < PAGES; i++)
        put_frame(page[i]);
    for (unsigned i = 0; i < BIG; i++)
        put_frame(big[i]);
}

__attribute__((weak)) void bench_acpi(void)
{
    printk("bench: ACPI is not built in\n");
}

static void with_and_without_journal(void (*measure)(void))
{
    printk("bench: results\n");
    measure();
    mm.journal_on = 0;
    printk("bench: results_no_journal\n");
    measure();
    mm.journal_on = 1;
}

void bench_run(void)
{
    bench_calibrate();
    bench_boot();
    with_and_without_journal(bench_maps); // first, while memory is in few pieces
    with_and_without_journal(bench_acpi);
    with_and_without_journal(bench_frames);
    with_and_without_journal(bench_metadata);
    printk("bench: done\n");
}
