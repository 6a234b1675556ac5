// SPDX-License-Identifier: BSD-2-Clause
// The vmap family, one block at a time: counts, aliases, look-ups, address spaces. Its refusals are
// in test_vmap_errors.c.
#include "tests/host/support.h"

#include "mm/arena_internal.h"
#include "mm/table.h"

#define AT VADDR(VA_VMAP)

static frame_t *f0, *f9; // frames of orders 0 and 9
static space_t *user;

static void start(void)
{
    machine_boot(32 * MIB);
    OK(get_frame(0, &f0));
    OK(get_frame(9, &f9));
    OK(space_create("user", &user));
}

static vaddr_t at_page(uint64_t page)
{
    return VADDR(VA_VMAP + page * PAGE_SIZE);
}

typedef int map_fn(space_t *space, vaddr_t va, frame_t *frame, unsigned attr);

static int range(space_t *s, vaddr_t va, frame_t *f, unsigned attr)
{
    return vmap_range(s, va, f, 0, 1, attr);
}

static void counts(void)
{
    struct vlookup at;

    start();
    for (unsigned i = 1; i <= 5; i++) {
        OK(vmap(NULL, AT, f9, VATTR_W));
        OK(vmap_lookup(NULL, at_page(77), &at));
        SAME(at.refs, i);
        SAME(f9->mapcount, i);
    }
    OK(vput(NULL, AT, f9));
    SAME(f9->mapcount, 4);
    OK(vunmap(NULL, AT, f9));
    SAME(f9->mapcount, 0);
    REFUSES(-ENOENT, vput(NULL, AT, f9));
    SAME(mm_check(), 0);
}

// As if somebody had mapped it that often.
static void set_refs(uint32_t refs)
{
    mapping_t *m = mapping_at(f0->maps);

    f0->mapcount += refs - m->refs;
    m->refs = refs;
}

static int page(space_t *space, vaddr_t va, frame_t *f, unsigned attr)
{
    return vmap_part(space, va, f, 0, 0, attr);
}

static void overflow_of(map_fn *map)
{
    start();
    OK(map(NULL, AT, f0, VATTR_W));
    set_refs(MAPPING_REFS_MAX);
    REFUSES(-EOVERFLOW, map(NULL, AT, f0, VATTR_W));
    SAME(mm_check(), 0);
    OK(vput(NULL, AT, f0));
    OK(map(NULL, AT, f0, VATTR_W));
    OK(vunmap(NULL, AT, f0));
    SAME(f0->mapcount, 0);
    for (uint64_t i = 0; i < 256; i++) { // 256 * (2^24 - 1) is just below 2^32
        OK(map(NULL, at_page(i), f0, VATTR_W));
        set_refs(MAPPING_REFS_MAX);
    }
    OK(map(NULL, at_page(300), f0, VATTR_W));
    set_refs(255);
    SAME(f0->mapcount, UINT32_MAX);
    REFUSES(-EOVERFLOW, map(NULL, at_page(400), f0, VATTR_W));
    REFUSES(-EOVERFLOW, map(NULL, at_page(300), f0, VATTR_W));
    SAME(mm_check(), 0);
    OK(put_frame(f0));
    for (uint64_t i = 0; i < 256; i++)
        OK(vunmap(NULL, at_page(i), f0));
    OK(vunmap(NULL, at_page(300), f0));
    SAME(mm_check(), 0);
}

static void counts_overflow(void)
{
    overflow_of(vmap);
    overflow_of(vmap_4k);
    overflow_of(range);
    overflow_of(page);
}

static int count_one(frame_t *frame, const mapping_t *m, void *arg)
{
    CHECK(mapping_space(m) == kernel_space() || mapping_space(m) == user);
    CHECK(frame == f0 && m->refs == 1);
    ++*(uint32_t *)arg;
    return 0;
}

static int first_va(frame_t *frame, const mapping_t *m, void *arg)
{
    (void)frame;
    *(uint64_t *)arg = mapping_va(m).v;
    return 1;
}

static void aliases(void)
{
    enum { COUNT = 20000 };
    uint64_t before, va = 0;
    uint32_t seen = 0;

    start();
    before = digest_free();
    for (uint64_t i = 0; i < COUNT; i++)
        OK(vmap(i & 1 ? user : NULL, i & 1 ? VADDR(i * 3 * PAGE_SIZE) : at_page(i * 5), f0,
                VATTR_R));
    SAME(f0->mapcount, COUNT);
    SAME(frame_each_mapping(f0, count_one, &seen), 0);
    SAME(seen, COUNT);
    SAME(frame_each_mapping(f0, first_va, &va), 1);
    SAME(va, (COUNT - 1) * UINT64_C(3) * PAGE_SIZE);
    SAME(mm_check(), 0);
    for (uint64_t n = 0; n < COUNT; n++) {
        uint64_t i = n * 7919 % COUNT;

        OK(vunmap(i & 1 ? user : NULL, i & 1 ? VADDR(i * 3 * PAGE_SIZE) : at_page(i * 5), f0));
    }
    SAME(f0->mapcount, 0);
    SAME(digest_free(), before);
    SAME(mm_check(), 0);
}

static void lookups(void)
{
    struct vlookup at;

    start();
    OK(vmap(user, VADDR(0x400000), f9, VATTR_X | VATTR_U));
    REFUSES(-EINVAL, vmap_lookup(user, VADDR(0), NULL));
    REFUSES(-EINVAL, vmap_lookup(user + 1, VADDR(0), &at));
    REFUSES(-ECANON, vmap_lookup(user, VADDR(UINT64_C(1) << 63), &at));
    REFUSES(-ENOENT, vmap_lookup(user, VADDR(0x3fffff), &at));
    REFUSES(-ENOENT, vmap_lookup(user, VADDR(0x600000), &at));
    REFUSES(0, vmap_lookup(user, VADDR(0x403abc), &at));
    CHECK(at.frame == f9 && at.offset == 3 && at.attr == (VATTR_X | VATTR_U) && at.level == 2 &&
          at.refs == 1);
    REFUSES(0, vmap_lookup(user, VADDR(VA_IMAGE + 0x102000), &at)); // it has the kernel's half
    CHECK(at.frame->kind == FRAME_TEXT);
}

// Others may look at page tables and at the manager's memory.
static void read_only_views(void)
{
    frame_t *table;
    uint64_t before;

    start();
    OK(space_destroy(user));
    before = digest_free();
    OK(space_create("user", &user));
    table = find_paddr_frame(PADDR(user->cr3));
    OK(vmap(NULL, AT, table, VATTR_R));
    REFUSES(-EBUSY, vprotect(NULL, AT, table, VATTR_W));
    SAME(mm_check(), 0);
    OK(space_destroy(user));
    SAME(table->kind, FRAME_AVAILABLE); // nobody's table, still mapped
    SAME(table->refcount, 0);
    SAME(mm_check(), 0);
    OK(vput(NULL, AT, table));
    SAME(digest_free(), before);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"vmap_counts", counts},
        {"vmap_counts_overflow", counts_overflow},
        {"vmap_aliases", aliases},
        {"vmap_lookup", lookups},
        {"vmap_read_only_views", read_only_views},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
