// SPDX-License-Identifier: BSD-2-Clause
// Parts of blocks and ranges: large pages split and merged back, all or nothing.
#include "tests/host/support.h"

#define AT VADDR(VA_VMAP)

static vaddr_t at_page(uint64_t page)
{
    return VADDR(VA_VMAP + page * PAGE_SIZE);
}

static unsigned level_at(uint64_t page)
{
    struct leaf leaf;

    return walk_va(kernel_space(), at_page(page).v, &leaf) ? leaf.level : 0;
}

static unsigned attr_at(uint64_t page)
{
    struct vlookup at;

    return vmap_lookup(NULL, at_page(page), &at) ? UINT32_MAX : at.attr;
}

static uint32_t records(void)
{
    uint32_t count = 0;

    for (unsigned order = 0; order <= ORDER_MAX; order++)
        for (uint32_t i = frame_at(mm.order[order].head)->next; i != mm.order[order].head;
             i = frame_at(i)->next)
            for (uint32_t m = frame_at(i)->maps; m; m = mapping_at(m)->next)
                count++;
    return count - (uint32_t)machine.visible_pages;
}

static frame_t *block_of(unsigned order)
{
    frame_t *f;

    machine_boot(order == ORDER_1G ? 3 * GIB : 32 * MIB);
    OK(get_frame(order, &f));
    return f;
}

// One page of a large one is changed and changed back: all is as it was.
static void protect_and_back(unsigned order, unsigned level, unsigned stride)
{
    frame_t *f = block_of(order);
    uint64_t tables, free, seen, pages = UINT64_C(1) << order;
    uint32_t before;

    OK(vmap(NULL, AT, f, VATTR_W));
    SAME(level_at(0), level);
    before = records();
    tables = kernel_space()->tables;
    free = digest_free();
    seen = digest_seen();
    for (uint64_t page = 0; page < pages; page += stride) {
        OK(vprotect_part(NULL, at_page(page), f, page, 0, VATTR_R));
        SAME(level_at(page), 1);
        SAME(attr_at(page), VATTR_R);
        SAME(attr_at(page ^ 1), VATTR_W);
        SAME(attr_at(page ^ (pages / 2)), VATTR_W);
        if (order > level_order(level)) // the other half is as large as ever
            SAME(level_at(page ^ (pages / 2)), level);
        SAME(records(), before + order);
        SAME(mm_check(), 0);
        OK(vprotect_part(NULL, at_page(page), f, page, 0, VATTR_W));
        SAME(level_at(page), level);
        SAME(records(), before);
        SAME(kernel_space()->tables, tables);
        SAME(mm_check(), 0);
    }
    SAME(digest_seen(), seen);
    SAME(digest_free(), free);
}

static void protect_2m(void)
{
    protect_and_back(9, 2, 37);
}

static void protect_4m(void)
{
    protect_and_back(10, 2, 111);
}

static void protect_1g(void)
{
    protect_and_back(18, 3, 65537);
}

// Pages change in one order and back in another; only at the last are they one again.
static void protect_scattered(void)
{
    static const unsigned page[] = {0, 511, 256, 255, 3, 128, 64, 509};
    frame_t *f = block_of(9);

    OK(vmap(NULL, AT, f, VATTR_W));
    for (unsigned i = 0; i < ARRAY_SIZE(page); i++)
        OK(vprotect_part(NULL, at_page(page[i]), f, page[i], 0, i & 1 ? VATTR_R : VATTR_X));
    SAME(mm_check(), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(page); i++) {
        SAME(level_at(0), 1);
        OK(vprotect_part(NULL, at_page(page[i * 3 % 8]), f, page[i * 3 % 8], 0, VATTR_W));
    }
    SAME(level_at(0), 2);
    SAME(f->mapcount, 1);
    SAME(mm_check(), 0);
}

static void puts_and_counts(void)
{
    frame_t *f = block_of(9);
    struct vlookup at;

    OK(vmap_4k(NULL, AT, f, VATTR_W));
    OK(vmap_part(NULL, at_page(100), f, 100, 2, VATTR_W)); // counts these up
    OK(vmap_lookup(NULL, at_page(103), &at));
    SAME(at.refs, 2);
    OK(vmap_lookup(NULL, at_page(104), &at));
    SAME(at.refs, 1);
    REFUSES(-ETABLE, vmap(NULL, AT, f, VATTR_W));
    OK(vput_part(NULL, at_page(100), f, 100, 2));
    SAME(f->mapcount, 1); // one mapping again
    SAME(mm_check(), 0);
    // A part with a count of 1 goes, those with more stay, and merge as far as they are alike.
    OK(vmap_part(NULL, at_page(2), f, 2, 1, VATTR_W));
    OK(vmap_part(NULL, at_page(4), f, 4, 2, VATTR_W));
    OK(vput_part(NULL, at_page(0), f, 0, 3));
    SAME(level_at(0), 0);
    SAME(level_at(1), 0);
    SAME(level_at(2), 1);
    SAME(level_at(7), 1);
    SAME(mm_check(), 0);
    OK(vunmap_part(NULL, at_page(256), f, 256, 8));
    OK(vput_part(NULL, at_page(255), f, 255, 0));
    REFUSES(-ENOENT, vput_part(NULL, at_page(255), f, 255, 0));
    SAME(mm_check(), 0);
}

// The pieces of what was mapped three times are each mapped three times.
static void split_keeps_counts(void)
{
    frame_t *f = block_of(9);
    struct vlookup at;

    for (unsigned i = 0; i < 3; i++)
        OK(vmap(NULL, AT, f, VATTR_W));
    OK(vprotect_part(NULL, at_page(3), f, 3, 0, VATTR_R));
    SAME(f->mapcount, 3 * 10); // 1 and its 9 neighbours at each order
    for (uint64_t page = 0; page < 512; page++) {
        OK(vmap_lookup(NULL, at_page(page), &at));
        SAME(at.refs, 3);
    }
    OK(vprotect_part(NULL, at_page(3), f, 3, 0, VATTR_W));
    SAME(f->mapcount, 3);
}

static void unmap_middle_of(unsigned order, uint64_t page, unsigned part)
{
    uint64_t pages = UINT64_C(1) << order, free;
    frame_t *f = block_of(order);

    OK(put_frame(f));
    free = digest_free();
    OK(get_frame(order, &f));
    OK(vmap(NULL, AT, f, VATTR_W));
    OK(put_frame(f)); // only its mappings hold it
    OK(vunmap_part(NULL, at_page(page), f, page, part));
    SAME(level_at(page), 0);
    SAME(level_at(page + (UINT64_C(1) << part) - 1), 0);
    SAME(level_at(page ^ (UINT64_C(1) << part)) != 0, 1);
    SAME(mm_check(), 0);
    REFUSES(-ENOENT, vunmap(NULL, AT, f));
    REFUSES(-ENOENT, vput_part(NULL, at_page(page), f, page, part));
    OK(page ? vunmap_range(NULL, AT, f, 0, page) : 0);
    page += UINT64_C(1) << part;
    OK(page < pages ? vunmap_range(NULL, at_page(page), f, page, pages - page) : 0);
    SAME(mm_check(), 0);
    SAME(digest_free(), free);
}

static void unmap_middle(void)
{
    unmap_middle_of(9, 5, 0);
    unmap_middle_of(9, 0, 0);
    unmap_middle_of(9, 511, 0);
    unmap_middle_of(10, 512, 3);
    unmap_middle_of(18, 0x12345, 0);
    unmap_middle_of(18, 0x20000, 9);
}

// A range counts part of a mapping up and down again: one mapping before, one after, also when it
// fails.
static void range_splits_and_merges(void)
{
    frame_t *f = block_of(10), *g;

    OK(get_frame(0, &g));
    OK(vmap(NULL, at_page(1), f, VATTR_W)); // by 4K pages, whatever is mapped of it
    OK(vmap_range(NULL, at_page(102), f, 101, 800, VATTR_W));
    CHECK(f->mapcount > 2);
    OK(vput_range(NULL, at_page(102), f, 101, 800));
    SAME(f->mapcount, 1);
    OK(vmap_range(NULL, at_page(1), f, 0, 1023, VATTR_W));
    OK(vmap_range(NULL, at_page(1024), f, 1023, 1, VATTR_W)); // the rest: all of it has 2 now
    SAME(f->mapcount, 2);
    OK(vput_range(NULL, at_page(1), f, 0, 1024));
    SAME(f->mapcount, 1);
    OK(vunmap_part(NULL, at_page(1001), f, 1000, 0));
    OK(vmap(NULL, at_page(1001), g, VATTR_W));
    SAME(f->mapcount, 10);
    RETURNS(-EEXIST, vmap_range(NULL, at_page(4), f, 3, 1020, VATTR_W));
    SAME(f->mapcount, 10);
    SAME(mm_check(), 0);
}

// A piece that was taken out and mapped anew is a mapping of its own, and the whole can still be
// put.
static void replaced_part(void)
{
    frame_t *f = block_of(9);

    OK(vmap_4k(NULL, AT, f, VATTR_W));
    OK(vunmap_part(NULL, at_page(8), f, 8, 2));
    OK(vmap_part(NULL, at_page(8), f, 8, 2, VATTR_R));
    OK(vprotect_part(NULL, at_page(8), f, 8, 2, VATTR_W));
    SAME(mm_check(), 0);
    OK(vput(NULL, AT, f));
    SAME(f->mapcount, 0);
    SAME(mm_check(), 0);
}

/* --- ranges ----------------------------------------------------------------------------------- */

// Of odd places and lengths.
static void ranges(void)
{
    frame_t *f = block_of(10);
    uint64_t seen;

    for (uint64_t offset = 0; offset < 1024; offset += 73)
        for (uint64_t pages = 1; pages <= 1024 - offset; pages += 119) {
            seen = digest_seen();
            OK(vmap_range(NULL, at_page(offset + 3), f, offset, pages, VATTR_W));
            OK(vmap_range(NULL, at_page(offset + 3), f, offset, pages, VATTR_W));
            CHECK(level_at(offset + 3) == 1 && level_at(offset + 2 + pages) == 1);
            CHECK(level_at(offset + 2) == 0 && level_at(offset + 3 + pages) == 0);
            SAME(mm_check(), 0);
            OK(vput_range(NULL, at_page(offset + 3), f, offset, pages));
            OK(vunmap_range(NULL, at_page(offset + 3), f, offset, pages));
            SAME(digest_seen(), seen);
        }
}

// Over several frames, by the largest pages; the parts that remain keep their counts.
static void range_of_frames(void)
{
    frame_t *f, *g;

    machine_boot(64 * MIB);
    OK(get_device_frame(PADDR(8 * GIB + 2 * MIB - PAGE_SIZE), 0, &f));
    OK(get_device_frame(PADDR(8 * GIB + 2 * MIB), 9, &g));
    OK(get_device_frame(PADDR(8 * GIB + 4 * MIB), 3, &g));
    OK(vmap_range(NULL, at_page(511), f, 0, 521, VATTR_UC));
    SAME(level_at(511), 1);
    SAME(level_at(512), 2);
    SAME(level_at(1024), 1);
    REFUSES(-EUNKNOWN, vput_range(NULL, at_page(511), f, 0, 522));
    OK(vput_range(NULL, at_page(700), find_paddr_frame(PADDR(8 * GIB + 2 * MIB)), 188, 324 + 4));
    SAME(level_at(699), 1);
    SAME(level_at(700), 0);
    SAME(level_at(1027), 0);
    SAME(level_at(1028), 1);
    SAME(mm_check(), 0);
    OK(vunmap_range(NULL, at_page(511), f, 0, 189));
    OK(vunmap_range(NULL, at_page(1028), g, 4, 4));
    SAME(mm_check(), 0);
}

static void range_errors(void)
{
    frame_t *f = block_of(9), *g;

    OK(get_frame(0, &g));
    REFUSES(-EINVAL, vmap_range(NULL, AT, f, 0, 0, VATTR_W));
    REFUSES(-EINVAL, vput_range(NULL, AT, f, 0, 0));
    REFUSES(-EINVAL, vmap_range(NULL, AT, NULL, 0, 1, VATTR_W));
    REFUSES(-EINVAL, vunmap_range(NULL, AT, NULL, 0, 1));
    REFUSES(-EBEYOND, vmap_range(NULL, AT, f, 512, 1, VATTR_W));
    REFUSES(-EBEYOND, vput_range(NULL, AT, f, UINT64_MAX, 1));
    REFUSES(-EALIGN, vmap_range(NULL, VADDR(VA_VMAP + 7), f, 0, 1, VATTR_W));
    REFUSES(-ENOENT, vput_range(NULL, AT, f, 0, 1));
    REFUSES(-EINVAL, vmap_frames(NULL, AT, NULL, 1, VATTR_W));
    REFUSES(-EINVAL, vmap_frames(NULL, AT, &f, 0, VATTR_W));
    REFUSES(-EINVAL, vput_frames(NULL, AT, NULL, 1));
    REFUSES(-EINVAL, vput_frames(NULL, AT, &f, 0));
    OK(vmap_range(NULL, AT, f, 0, 512, VATTR_W));
    OK(vunmap_part(NULL, at_page(300), f, 300, 0));
    REFUSES(-ENOENT, vput_range(NULL, AT, f, 0, 512));
    REFUSES(-ENOENT, vunmap_range(NULL, at_page(299), f, 299, 2));
    OK(vmap(NULL, at_page(300), g, VATTR_W));
    REFUSES(-EOTHER, vput_range(NULL, AT, f, 0, 512));
    SAME(mm_check(), 0);
}

// Each of these ends in the middle; what was done before is undone.
static void range_fails_half_way(void)
{
    frame_t *f = block_of(10), *g;
    uint64_t seen;

    OK(get_frame(0, &g));
    OK(vmap(NULL, at_page(700), g, VATTR_W));
    seen = digest_seen();
    for (unsigned i = 0; i < 2; i++) {
        RETURNS(-EEXIST,
                vmap_range(NULL, at_page(1), f, 0, 1000, VATTR_W)); // unaligned: by 4K pages
        RETURNS(-ETABLE, vmap_range(NULL, AT, f, 0, 1024, VATTR_W));
        RETURNS(-EEXIST, vmap_range(NULL, at_page(1), f, 0, 700, VATTR_W));
        SAME(digest_seen(), seen);
        SAME(mm_check(), 0);
        OK(vmap_range(NULL, at_page(1), f, 0, 699, VATTR_W)); // and now over one that is there
        OK(vunmap_range(NULL, at_page(1), f, 0, 699));
        SAME(digest_seen(), seen);
    }
    OK(vmap_range(NULL, at_page(1), f, 0, 600, VATTR_W)); // the start counts up, the end collides
    seen = digest_seen();
    RETURNS(-EEXIST, vmap_range(NULL, at_page(1), f, 0, 1000, VATTR_W));
    RETURNS(-EATTR, vmap_range(NULL, at_page(1), f, 0, 1000, VATTR_R));
    SAME(digest_seen(), seen);
    SAME(mm_check(), 0);
}

// The frames end, or the next one is free, before the range does.
static void range_runs_out(void)
{
    frame_t *f, *g;
    uint64_t seen;

    machine_boot(32 * MIB);
    OK(get_device_frame(PADDR(8 * GIB), 4, &f));
    OK(get_frame(9, &g));
    seen = digest_seen();
    RETURNS(-EUNKNOWN, vmap_range(NULL, AT, f, 0, 17, VATTR_UC));
    RETURNS(-EFREE, vmap_range(NULL, AT, g, 1, 4096, VATTR_W));
    SAME(digest_seen(), seen);
    OK(vmap_range(NULL, AT, f, 0, 16, VATTR_UC));
    REFUSES(-EUNKNOWN, vunmap_range(NULL, AT, f, 0, 17));
    SAME(mm_check(), 0);
}

static void lists_of_frames(void)
{
    frame_t *list[40];
    uint64_t seen;

    machine_boot(64 * MIB);
    for (unsigned i = 0; i < 40; i++)
        OK(get_frame(i % 5 == 4 ? 9 : i % 5, &list[i]));
    seen = digest_seen();
    OK(vmap_frames(NULL, at_page(3), list, 40, VATTR_W));
    OK(vmap_frames(NULL, at_page(3), list, 40, VATTR_W));
    OK(vput_frames(NULL, at_page(3), list, 40));
    SAME(list[0]->mapcount, 1);
    REFUSES(-EOTHER, vput_frames(NULL, at_page(3), list + 1, 39));
    OK(vput_frames(NULL, at_page(3), list, 40));
    SAME(digest_seen(), seen);
    REFUSES(-ENOENT, vput_frames(NULL, at_page(3), list, 40));
    OK(vmap(NULL, at_page(3 + 527 + 1), list[0], VATTR_R)); // where list[6] would come
    seen = digest_seen();
    RETURNS(-EEXIST, vmap_frames(NULL, at_page(3), list, 40, VATTR_W));
    SAME(digest_seen(), seen);
    list[30] = NULL;
    RETURNS(-EINVAL, vmap_frames(NULL, at_page(30000), list, 40, VATTR_W));
    SAME(digest_seen(), seen);
    SAME(mm_check(), 0);
}

// Only the mappings hold the frames: the range is gone piece by piece while it is walked.
static void range_of_unowned(void)
{
    static frame_t *all[1000];
    frame_t *list[64];
    uint64_t before, first;

    machine_boot(16 * MIB);
    before = digest_free();
    for (unsigned i = 0; i < 1000; i++)
        OK(get_frame(0, &all[i]));
    first = ROUND_UP(all[500]->mfn, 64);
    for (unsigned i = 0; i < 1000; i++) {
        if (all[i]->mfn - first < 64)
            list[all[i]->mfn - first] = all[i];
        else
            OK(put_frame(all[i]));
    }
    OK(vmap_range(NULL, AT, list[0], 0, 64, VATTR_W));
    OK(vmap_frames(NULL, at_page(100), list, 64, VATTR_W));
    for (unsigned i = 0; i < 64; i++)
        OK(put_frame(list[i]));
    OK(vput_range(NULL, AT, list[0], 0, 64));
    SAME(mm_check(), 0);
    OK(vput_frames(NULL, at_page(100), list, 64));
    SAME(digest_free(), before);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"part_protect_2m", protect_2m},
        {"part_protect_4m", protect_4m},
        {"part_protect_1g", protect_1g},
        {"part_protect_scattered", protect_scattered},
        {"part_puts_and_counts", puts_and_counts},
        {"part_split_keeps_counts", split_keeps_counts},
        {"part_unmap_middle", unmap_middle},
        {"part_replaced", replaced_part},
        {"range_odd", ranges},
        {"range_splits_and_merges", range_splits_and_merges},
        {"range_of_frames", range_of_frames},
        {"range_errors", range_errors},
        {"range_fails_half_way", range_fails_half_way},
        {"range_runs_out", range_runs_out},
        {"range_lists_of_frames", lists_of_frames},
        {"range_of_unowned", range_of_unowned},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
