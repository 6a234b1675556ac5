// SPDX-License-Identifier: BSD-2-Clause
// Memory runs out at every point of every operation: each says -ENOMEM and leaves all as it was, or
// succeeds.
#include "tests/host/support.h"

enum {
    HELD_MAX = 2000,
    TRIES = 60,
};

#define AT VADDR(VA_VMAP)

static frame_t *held[HELD_MAX], *block, *small, *parts[16];
static uint32_t count;
static space_t *user;

static vaddr_t at_page(uint64_t page)
{
    return VADDR(VA_VMAP + page * PAGE_SIZE);
}

static void take_all(void)
{
    while (count < HELD_MAX && get_frame(0, &held[count]) == 0)
        count++;
    SAME(mm_free_pages(), 0);
}

// Uses up what the manager has in stock as well: table slots, and records at a place that has its
// table.
static void use_up_stock(bool records_first)
{
    for (unsigned i = 0; i < 2; i++) {
        bool far = (i == 0) ^ records_first;

        for (uint64_t n = 1; n < 500; n++)
            if (vmap_kern(VADDR(VA_VMAP + (far ? 8 * TIB + n * GIB : 16 * TIB + n * PAGE_SIZE)),
                          small, VATTR_R))
                break;
        take_all();
    }
}

static void setup(void)
{
    machine_reset();
    machine.phys_bits = 46;
    machine_usual(8 * MIB);
    machine_start();
    count = 0;
    OK(get_frame(9, &block));
    OK(get_frame(0, &small));
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
        OK(get_frame(0, &parts[i]));
    OK(space_create("user", &user));
    OK(vmap_kern(VADDR(VA_VMAP + 16 * TIB), small, VATTR_R));
}

struct scenario {
    const char *name;
    void (*prepare)(void);
    int (*run)(void);
};

/* --- what is tried ---------------------------------------------------------------------------- */

static void nothing(void)
{
}

static void map_block(void)
{
    OK(vmap(NULL, AT, block, VATTR_W));
}

static void map_block_4k(void)
{
    OK(vmap_4k(NULL, at_page(512), block, VATTR_W));
}

static void map_block_counted(void)
{
    map_block_4k();
    OK(vmap_4k(NULL, at_page(512), block, VATTR_W));
    OK(vmap_part(NULL, at_page(512 + 2), block, 2, 0, VATTR_W));
}

static int far_page(void)
{
    return vmap(NULL, VADDR(VA_VMAP + 20 * TIB), small, VATTR_R);
}

static int user_page(void)
{
    return vmap_user(user, VADDR(0x1234567000), small, VATTR_R);
}

static int block_4k(void)
{
    return vmap_4k(NULL, at_page(512 + 5), block, VATTR_W);
}

static int odd_range(void)
{
    return vmap_range(NULL, at_page(512 * 512 - 100), block, 3, 333, VATTR_W);
}

static int far_frames(void)
{
    return vmap_frames(user, VADDR(GIB - 8 * PAGE_SIZE), parts, ARRAY_SIZE(parts), VATTR_W);
}

static int count_part(void)
{
    return vmap_part(NULL, at_page(512 + 77), block, 77, 0, VATTR_W);
}

static int count_range(void)
{
    return vmap_range(NULL, at_page(512 + 77), block, 77, 300, VATTR_W);
}

// Evens out the counts of some pages, so that they merge, before records run out.
static int count_range_merging(void)
{
    return vmap_range(NULL, at_page(512 + 3), block, 3, 402, VATTR_W);
}

static int protect_page(void)
{
    return vprotect_part(NULL, at_page(300), block, 300, 0, VATTR_R);
}

static int unmap_page(void)
{
    return vunmap_part(NULL, at_page(511), block, 511, 0);
}

static int put_page(void)
{
    return vput_part(NULL, at_page(0), block, 0, 0);
}

static int put_range(void)
{
    return vput_range(NULL, at_page(1), block, 1, 400);
}

static int unmap_range(void)
{
    return vunmap_range(NULL, at_page(512 + 1), block, 1, 400);
}

static int put_range_counted(void)
{
    return vput_range(NULL, at_page(512 + 1), block, 1, 400);
}

static int make_space(void)
{
    space_t *space;

    return space_create("another", &space);
}

static int device(void)
{
    frame_t *f;

    return get_device_frame(PADDR(5 * TIB), 0, &f);
}

static int one_frame(void)
{
    frame_t *f;

    return get_frame(0, &f);
}

/* --- at every point --------------------------------------------------------------------------- */

static void try_with(const struct scenario *s, uint32_t spare, bool records_first, bool *done)
{
    uint64_t before;
    int err;

    setup();
    s->prepare();
    take_all();
    use_up_stock(records_first);
    for (uint32_t i = 0; i < spare; i++)
        OK(put_frame(held[i * 3 % count]));
    before = digest_seen();
    err = s->run();
    *done = err == 0;
    if (err && err != -ENOMEM)
        test_fail(__FILE__, __LINE__, "%s with %u frames: %s", s->name, spare, error_name(err));
    if (err && digest_seen() != before)
        test_fail(__FILE__, __LINE__, "%s with %u frames failed and changed something", s->name,
                  spare);
    if (mm_check())
        test_fail(__FILE__, __LINE__, "%s with %u frames: mm_check", s->name, spare);
}

static void try_all(const struct scenario *s)
{
    for (unsigned first = 0; first < 2; first++) {
        bool done = false;

        for (uint32_t spare = 0; spare < TRIES && !done; spare++) {
            try_with(s, spare, first, &done);
            if (!spare && done)
                test_fail(__FILE__, __LINE__, "%s works without memory", s->name);
        }
        if (!done)
            test_fail(__FILE__, __LINE__, "%s fails with %u free frames", s->name, TRIES);
    }
}

static void mapping(void)
{
    static const struct scenario all[] = {
        {"a page far away", nothing, far_page},
        {"a user's page", nothing, user_page},
        {"a block as 4K pages", nothing, block_4k},
        {"an odd range", nothing, odd_range},
        {"a list of frames", nothing, far_frames},
        {"part of a mapping again", map_block_4k, count_part},
        {"range of a mapping again", map_block_4k, count_range},
        {"range that merges", map_block_counted, count_range_merging},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
        try_all(&all[i]);
}

static void splitting(void)
{
    static const struct scenario all[] = {
        {"vprotect_part", map_block, protect_page},
        {"vunmap_part", map_block, unmap_page},
        {"vput_part", map_block, put_page},
        {"vput_range", map_block, put_range},
        {"vunmap_range", map_block_4k, unmap_range},
        {"vput_range, counted", map_block_counted, put_range_counted},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
        try_all(&all[i]);
}

static void making(void)
{
    static const struct scenario all[] = {
        {"space_create", nothing, make_space},
        {"get_device_frame", nothing, device},
        {"get_frame", nothing, one_frame},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
        try_all(&all[i]);
}

// What gives memory back works without any.
static void giving_back(void)
{
    for (unsigned first = 0; first < 2; first++) {
        setup();
        map_block();
        OK(vmap_user(user, VADDR(0x1000), small, VATTR_R));
        take_all();
        use_up_stock(first);
        OK(vprotect(NULL, AT, block, VATTR_R));
        OK(vmap(NULL, AT, block, VATTR_R));
        OK(vput(NULL, AT, block));
        OK(vunmap(NULL, AT, block));
        OK(space_destroy(user));
        while (count)
            OK(put_frame(held[--count]));
        SAME(mm_check(), 0);
    }
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"oom_mapping", mapping},
        {"oom_splitting", splitting},
        {"oom_making", making},
        {"oom_giving_back", giving_back},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
