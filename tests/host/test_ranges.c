// SPDX-License-Identifier: BSD-2-Clause
// Ranges of single pages, which are mapped and unmapped in runs: where a run begins, ends, and
// meets something that is no part of it.
#include "mm/arena_internal.h"
#include "tests/host/inject.h"
#include "tests/host/support.h"

enum {
    HELD = 4600,
    PAGES = 1100, // of a range: three tables, nine pages of descriptors
    START = 300,  // its first page, in the middle of a table
};

static frame_t *held[HELD];
static frame_t *one[PAGES]; // consecutive ones of them
static const uint64_t places[] = {0,   1,   127, 128,       PT_ENTRIES - START - 1,
                                  212, 213, 700, PAGES - 2, PAGES - 1};

static vaddr_t at_page(uint64_t page)
{
    return VADDR(VA_VMAP + page * PAGE_SIZE);
}

static int map_all(unsigned attr)
{
    return vmap_range(NULL, at_page(START), one[0], 0, PAGES, attr);
}

static int put_all(void)
{
    return vput_range(NULL, at_page(START), one[0], 0, PAGES);
}

static int unmap_all(void)
{
    return vunmap_range(NULL, at_page(START), one[0], 0, PAGES);
}

static bool is_single(uint64_t mfn)
{
    const frame_t *f = find_mfn_frame(MFN(mfn));

    return f && f->mfn == mfn && !f->order && f->kind == FRAME_AVAILABLE && f->refcount == 1;
}

// PAGES consecutive frames of order 0, each with one reference.
static void boot(void)
{
    uint64_t first = 0, count = 0;

    machine_boot(64 * MIB);
    for (unsigned i = 0; i < 45; i++) // their descriptors' pages must not lie between them
        OK(arena_grow(ARENA_FRAMES));
    for (unsigned i = 0; i < HELD; i++)
        OK(get_frame(0, &held[i]));
    for (uint64_t mfn = 0; mfn < 64 * MIB / PAGE_SIZE && count < PAGES; mfn++) {
        count = is_single(mfn) ? count + 1 : 0;
        first = mfn + 1 - count;
    }
    SAME(count, PAGES);
    for (unsigned i = 0; i < PAGES; i++)
        one[i] = find_mfn_frame(MFN(first + i));
}

// A range of them is mapped and unmapped as a whole, with one flush.
static void run_whole(void)
{
    uint64_t seen;
    uint32_t epoch;
    struct leaf leaf;

    boot();
    seen = digest_seen();
    for (unsigned i = 0; i < 2; i++) {
        OK(map_all(VATTR_W));
        for (unsigned p = 0; p < PAGES; p++) {
            CHECK(walk_va(kernel_space(), at_page(START + p).v, &leaf) && leaf.level == 1);
            SAME(one[p]->mapcount, 1);
        }
        CHECK(!walk_va(kernel_space(), at_page(START - 1).v, &leaf));
        CHECK(!walk_va(kernel_space(), at_page(START + PAGES).v, &leaf));
        SAME(mm_check(), 0);
        mm_trim(); // what is to be done later must not count
        epoch = mm.epoch;
        OK(i ? unmap_all() : put_all());
        SAME(mm.epoch, epoch + 1);
        SAME(digest_seen(), seen);
        SAME(mm_check(), 0);
    }
}

// The same pages as frames that stand anywhere: in order, in pieces, and with one out of place.
static void run_of_frames(void)
{
    frame_t *list[PAGES];
    uint64_t seen;

    boot();
    seen = digest_seen();
    for (unsigned cut = 1; cut < PAGES; cut += 137) {
        for (unsigned i = 0; i < PAGES; i++)
            list[i] = one[(i + cut) % PAGES];
        list[3] = held[0] == list[3] ? held[1] : held[0];
        OK(vmap_frames(NULL, at_page(START), list, PAGES, VATTR_W));
        for (unsigned i = 0; i < PAGES; i++) {
            struct vlookup at;

            OK(vmap_lookup(NULL, at_page(START + i), &at));
            CHECK(at.frame == list[i]);
        }
        SAME(mm_check(), 0);
        RETURNS(-EEXIST, vmap_frames(NULL, at_page(START + PAGES - 1), list, PAGES, VATTR_W));
        OK(vput(NULL, at_page(START + PAGES / 2), list[PAGES / 2]));
        REFUSES(-ENOENT, vput_frames(NULL, at_page(START), list, PAGES));
        OK(vmap_4k(NULL, at_page(START + PAGES / 2), list[PAGES / 2], VATTR_W));
        OK(vput_frames(NULL, at_page(START), list, PAGES));
        SAME(mm_check(), 0);
        mm_trim();
        SAME(digest_seen(), seen);
    }
}

// Another frame is mapped in the middle of it.
static void run_meets_occupied(void)
{
    frame_t *other;

    boot();
    OK(get_frame(0, &other));
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        uint64_t seen;

        OK(vmap_4k(NULL, at_page(START + places[i]), other, VATTR_R));
        seen = digest_seen();
        RETURNS(-EEXIST, map_all(VATTR_W));
        SAME(digest_seen(), seen);
        SAME(mm_check(), 0);
        OK(vunmap(NULL, at_page(START + places[i]), other));
    }
}

// A frame in the middle of it is free. Those freed after it become tables and the like.
static void run_meets_free(void)
{
    for (unsigned i = 1; i < ARRAY_SIZE(places); i++) {
        uint64_t seen;
        unsigned others = 0;

        boot();
        OK(put_frame(one[places[i]]));
        for (unsigned k = 0; others < 60; k++)
            if ((held[k]->mfn & 1) && held[k]->mfn - one[0]->mfn >= PAGES) {
                OK(put_frame(held[k]));
                others++;
            }
        seen = digest_seen();
        RETURNS(-EFREE, map_all(VATTR_W));
        SAME(digest_seen(), seen);
        SAME(mm_check(), 0);
    }
}

// One of its frames is mapped with another type elsewhere.
static void run_meets_type(void)
{
    boot();
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        uint64_t seen;

        OK(vmap_4k(NULL, at_page(9000), one[places[i]], VATTR_WC));
        seen = digest_seen();
        RETURNS(-ETYPE, map_all(VATTR_W));
        SAME(digest_seen(), seen);
        SAME(mm_check(), 0);
        OK(vunmap(NULL, at_page(9000), one[places[i]]));
    }
}

// Frames of it are page tables now: not to be written, and their descriptors hold their slots.
static void run_meets_table(void)
{
    unsigned first = 480, tables = 0;
    uint64_t seen;

    boot();
    mm_trim(); // no table in stock
    while (one[first]->mfn % 8)
        first++;
    for (unsigned i = 0; i < 8; i++)
        OK(put_frame(one[first + i]));
    // The last ones freed are the next to become tables, eight at once.
    while (one[first]->kind != FRAME_TABLE && tables < 64)
        OK(vmap_4k(NULL, at_page((1 << 20) + PT_ENTRIES * tables++), one[0], VATTR_R));
    for (unsigned i = 0; i < 8; i++)
        SAME(one[first + i]->kind, FRAME_TABLE);
    seen = digest_seen();
    RETURNS(-EBUSY, map_all(VATTR_W));
    SAME(digest_seen(), seen);
    OK(map_all(VATTR_R));
    SAME(mm_check(), 0);
    OK(unmap_all());
    SAME(mm_check(), 0);
    SAME(digest_seen(), seen);
}

// A page of it is not mapped, or another frame is: nothing happens.
static void run_is_not_there(void)
{
    frame_t *other;

    boot();
    OK(get_frame(0, &other));
    OK(map_all(VATTR_W));
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        vaddr_t va = at_page(START + places[i]);

        OK(vunmap(NULL, va, one[places[i]]));
        REFUSES(-ENOENT, put_all());
        REFUSES(-ENOENT, unmap_all());
        OK(vmap_4k(NULL, va, other, VATTR_W));
        REFUSES(-EOTHER, put_all());
        REFUSES(-EOTHER, unmap_all());
        OK(vunmap(NULL, va, other));
        OK(vmap_4k(NULL, va, one[places[i]], VATTR_W));
    }
    OK(unmap_all());
    SAME(mm_check(), 0);
}

// The n-th allocation and all behind it fail.
static void run_out_of_memory(void)
{
    static const uint64_t failing[] = {1, 2, 3, 4, 128, 211, 212, 213, 214, 700, PAGES};
    uint64_t seen;

    boot();
    seen = digest_seen();
    for (unsigned i = 0; i < ARRAY_SIZE(failing); i++) {
        inject_arm(failing[i], true);
        RETURNS(-ENOMEM, map_all(VATTR_W));
        CHECK(inject_disarm());
        SAME(digest_seen(), seen);
        SAME(mm_check(), 0);
    }
    OK(map_all(VATTR_W));
    OK(put_all());
}

// Frames that are mapped elsewhere, before and since; pages that are mapped twice.
static void run_of_shared(void)
{
    uint64_t seen;

    boot();
    for (unsigned i = 0; i < PAGES; i += 3)
        OK(vmap_4k(NULL, at_page(9000 + i), one[i], VATTR_R));
    seen = digest_seen();
    OK(map_all(VATTR_W));
    for (unsigned i = 0; i < PAGES; i += 7)
        OK(vmap_4k(NULL, at_page(20000 + i), one[i], VATTR_R));
    for (unsigned i = 5; i < PAGES; i += 50) // more runs than can be noted
        OK(vmap_4k(NULL, at_page(START + i), one[i], VATTR_W));
    SAME(mm_check(), 0);
    OK(put_all());
    SAME(mm_check(), 0);
    for (unsigned i = 0; i < PAGES; i++)
        SAME(one[i]->mapcount, !(i % 3) + !(i % 7) + (i % 50 == 5));
    REFUSES(-ENOENT, put_all());
    for (unsigned i = 5; i < PAGES; i += 50)
        OK(vput(NULL, at_page(START + i), one[i]));
    OK(map_all(VATTR_W));
    for (unsigned i = 5; i < PAGES; i += 50)
        OK(vmap_4k(NULL, at_page(START + i), one[i], VATTR_W));
    OK(unmap_all());
    for (unsigned i = 0; i < PAGES; i += 7)
        OK(vunmap(NULL, at_page(20000 + i), one[i]));
    SAME(digest_seen(), seen);
    SAME(mm_check(), 0);
}

static uint64_t held_free; // pages that are free before the range goes
static unsigned flushes;   // of CPU 1

// As long as CPU 1 may reach the frames none of them is free. Later rounds are of upkeep.
static void look_on(void)
{
    if (cpu_number() == 1 && flushes++ == 0)
        SAME(mm_free_pages(), held_free);
}

// Only the mappings hold the frames: all are free and merge when the range goes, not before.
static void run_of_unowned(void)
{
    uint64_t first;

    boot();
    machine_start_cpu(1);
    first = one[0]->mfn;
    OK(map_all(VATTR_W));
    held_free = mm_free_pages();
    for (unsigned i = 0; i < PAGES; i++)
        OK(put_frame(one[i]));
    SAME(mm_free_pages(), held_free);
    flushes = 0;
    machine.flushing = look_on;
    OK(unmap_all());
    machine.flushing = NULL;
    CHECK(flushes);
    CHECK(mm_free_pages() >= held_free + PAGES);
    first = ROUND_UP(first, 128);
    CHECK(find_mfn_frame(MFN(first))->order >= 7);
    SAME(mm_check(), 0);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"run_whole", run_whole},
        {"run_of_frames", run_of_frames},
        {"run_meets_occupied", run_meets_occupied},
        {"run_meets_free", run_meets_free},
        {"run_meets_type", run_meets_type},
        {"run_meets_table", run_meets_table},
        {"run_is_not_there", run_is_not_there},
        {"run_out_of_memory", run_out_of_memory},
        {"run_of_shared", run_of_shared},
        {"run_of_unowned", run_of_unowned},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
