// SPDX-License-Identifier: BSD-2-Clause
// Each allocation of each operation fails once: -ENOMEM and all is as before, or the operation
// works all the same.
#include <string.h>

#include "lib/panic.h"
#include "mm/kmalloc/kmalloc.h"
#include "tests/host/inject.h"
#include "tests/host/support.h"

enum {
    FAILURES_MAX = 3000, // an operation with more allocations than this is endless
};

#define AT   VADDR(VA_VMAP)
#define USER VADDR(0x40000000)

static frame_t *f0, *f3, *f9, *list[12], *got;
static space_t *user, *made;
static void *object;

static vaddr_t page_va(uint64_t page)
{
    return VADDR(VA_VMAP + page * PAGE_SIZE);
}

// An operation, what comes before it, and how it is undone after a success.
struct attempt {
    const char *name;
    void (*prepare)(void);
    int (*run)(void);
    void (*undo)(void);
    void (*clean)(void); // undoes `prepare`
};

/* --- the operations --------------------------------------------------------------------------- */

static void nothing(void)
{
}

static int get_page(void)
{
    return get_frame(0, &got);
}

static int get_block(void)
{
    return get_frame(5, &got);
}

static void put_got(void)
{
    OK(put_frame(got));
}

static int get_device_page(void)
{
    return get_device_frame(PADDR(5 * TIB), 0, &got);
}

static int get_device_block(void)
{
    return get_device_frame(PADDR(700 * GIB), 18, &got);
}

static int map_page(void)
{
    return vmap(NULL, AT, f0, VATTR_W);
}

static int map_page_fast(void)
{
    return vmap_4k(NULL, AT, f0, VATTR_W);
}

static void unmap_page(void)
{
    OK(vunmap(NULL, AT, f0));
}

static void map_neighbour(void)
{
    OK(vmap_4k(NULL, page_va(1), f0, VATTR_W));
}

static void unmap_neighbour(void)
{
    OK(vunmap(NULL, page_va(1), f0));
}

static int map_user_page(void)
{
    return vmap_user(user, USER, f0, VATTR_W);
}

static void unmap_user_page(void)
{
    OK(vunmap(user, USER, f0));
}

static int map_small_pages(void)
{
    return vmap_4k(NULL, page_va(5), f9, VATTR_W);
}

static void unmap_small_pages(void)
{
    OK(vunmap(NULL, page_va(5), f9));
}

static void map_large(void)
{
    OK(vmap(NULL, AT, f9, VATTR_W));
}

static void unmap_large(void)
{
    OK(vunmap(NULL, AT, f9));
}

static void map_large_by_4k(void)
{
    OK(vmap_4k(NULL, AT, f9, VATTR_W));
}

static int protect_page(void)
{
    return vprotect_part(NULL, page_va(300), f9, 300, 0, VATTR_R);
}

static void protect_back(void)
{
    OK(vprotect_part(NULL, page_va(300), f9, 300, 0, VATTR_W));
}

static int put_page(void)
{
    return vput_part(NULL, page_va(0), f9, 0, 0);
}

static void renew_large(void)
{
    OK(vunmap_range(NULL, page_va(1), f9, 1, 511));
    map_large();
}

static int unmap_middle(void)
{
    return vunmap_range(NULL, page_va(100), f9, 100, 50);
}

static void renew_middle(void)
{
    OK(vunmap_range(NULL, AT, f9, 0, 100));
    OK(vunmap_range(NULL, page_va(150), f9, 150, 362));
    map_large();
}

static int count_middle(void)
{
    return vmap_range(NULL, page_va(77), f9, 77, 300, VATTR_W);
}

static void uncount_middle(void)
{
    OK(vput_range(NULL, page_va(77), f9, 77, 300));
}

static int map_odd_range(void)
{
    return vmap_range(user, VADDR(USER.v + 200 * MIB - 9 * PAGE_SIZE), f9, 3, 500, VATTR_W);
}

static void unmap_odd_range(void)
{
    OK(vunmap_range(user, VADDR(USER.v + 200 * MIB - 9 * PAGE_SIZE), f9, 3, 500));
}

static int map_list(void)
{
    return vmap_frames(user, VADDR(GIB - 6 * PAGE_SIZE), list, ARRAY_SIZE(list), VATTR_W);
}

static void unmap_list(void)
{
    OK(vput_frames(user, VADDR(GIB - 6 * PAGE_SIZE), list, ARRAY_SIZE(list)));
}

static int make_space(void)
{
    return space_create("made", &made);
}

static void destroy_space(void)
{
    OK(space_destroy(made));
}

static int error_of(const void *p)
{
    return p ? 0 : -ENOMEM;
}

static int small_object(void)
{
    object = kmalloc(100);
    return error_of(object);
}

static int large_object(void)
{
    object = kmalloc(300000);
    return error_of(object);
}

static void have_object(void)
{
    OK(small_object());
}

static void free_object(void)
{
    OK(kfree(object));
}

static int grow_object(void)
{
    void *p = krealloc(object, 70000);

    object = p ? p : object;
    return error_of(p);
}

static void shrink_object(void)
{
    object = krealloc(object, 100);
    CHECK(object);
}

static const struct attempt attempts[] = {
    {"get_frame(0)", nothing, get_page, put_got, nothing},
    {"get_frame(5)", nothing, get_block, put_got, nothing},
    {"get_device_frame(0)", nothing, get_device_page, put_got, nothing},
    {"get_device_frame(18)", nothing, get_device_block, put_got, nothing},
    {"vmap", nothing, map_page, unmap_page, nothing},
    {"vmap_4k beside another", map_neighbour, map_page_fast, unmap_page, unmap_neighbour},
    {"vmap_user", nothing, map_user_page, unmap_user_page, nothing},
    {"vmap_4k of a block", nothing, map_small_pages, unmap_small_pages, nothing},
    {"vprotect_part", map_large, protect_page, protect_back, unmap_large},
    {"vput_part", map_large, put_page, renew_large, unmap_large},
    {"vunmap_range", map_large, unmap_middle, renew_middle, unmap_large},
    {"vmap_range again", map_large_by_4k, count_middle, uncount_middle, unmap_large},
    {"vmap_range", nothing, map_odd_range, unmap_odd_range, nothing},
    {"vmap_frames", nothing, map_list, unmap_list, nothing},
    {"space_create", nothing, make_space, destroy_space, nothing},
    {"kmalloc", nothing, small_object, free_object, nothing},
    {"kmalloc, large", nothing, large_object, free_object, nothing},
    {"krealloc", have_object, grow_object, shrink_object, free_object},
};

/* --- failing ---------------------------------------------------------------------------------- */

static void setup(void)
{
    machine_reset();
    machine.phys_bits = 46;
    machine_usual(16 * MIB);
    machine_start();
    OK(get_frame(0, &f0));
    OK(get_frame(3, &f3));
    OK(get_frame(9, &f9));
    for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
        list[i] = i == 5 ? f3 : f0;
    OK(space_create("user", &user));
}

// True if an allocation failed.
static bool try_with(const struct attempt *a, uint64_t n, bool lasting)
{
    uint64_t before = digest_seen();
    bool happened;
    int err;

    inject_arm(n, lasting);
    err = a->run();
    happened = inject_disarm();
    if (err && (err != -ENOMEM || !happened))
        test_fail(__FILE__, __LINE__, "%s: %s when allocation %u fails", a->name, error_name(err),
                  (unsigned)n);
    if (!err)
        a->undo();
    // What was in stock may be in use now, and the other way round: only callers' view counts.
    if (digest_seen() != before)
        test_fail(__FILE__, __LINE__, "%s: changed something when allocation %u failed (%s)",
                  a->name, (unsigned)n, error_name(err));
    if (mm_check())
        test_fail(__FILE__, __LINE__, "%s: mm_check() when allocation %u failed", a->name,
                  (unsigned)n);
    return happened;
}

// Which pages the manager has in stock may differ, and so what is merged; how many may not.
static uint64_t free_pages(void)
{
    mm_trim();
    return mm_free_pages();
}

static void try_all(const struct attempt *a, bool lasting)
{
    uint64_t free_before, n = 1;

    a->prepare();
    free_before = free_pages();
    while (try_with(a, n, lasting))
        if (++n > FAILURES_MAX)
            test_fail(__FILE__, __LINE__, "%s: no end of allocations", a->name);
    if (free_pages() != free_before)
        test_fail(__FILE__, __LINE__, "%s: left something behind", a->name);
    a->clean();
}

static void each(bool lasting)
{
    uint64_t free_at_start;

    setup();
    free_at_start = free_pages();
    for (unsigned i = 0; i < ARRAY_SIZE(attempts); i++)
        try_all(&attempts[i], lasting);
    SAME(free_pages(), free_at_start);
}

static void single_failures(void)
{
    each(false);
}

static void lasting_failures(void)
{
    each(true);
}

// The hook does what it says: without it the tests above would pass, too.
static void hook(void)
{
    setup();
    inject_arm(1, false);
    RETURNS(-ENOMEM, get_page());
    OK(get_page());
    CHECK(inject_disarm());
    put_got();
    inject_arm(2, true);
    OK(get_page());
    put_got();
    RETURNS(-ENOMEM, get_page());
    RETURNS(-ENOMEM, get_page());
    CHECK(inject_disarm());
    OK(get_page());
    put_got();
}

static void break_and_go_on(void)
{
    mm.order[0].used++; // somebody's bug
    OK(vmap(NULL, AT, f0, VATTR_W));
}

// The self-check after every n-th operation: silent while all is well, then it panics.
static void check_every(void)
{
    setup();
    mm_check_every(1);
    for (unsigned i = 0; i < ARRAY_SIZE(attempts); i++) {
        attempts[i].prepare();
        OK(attempts[i].run());
        attempts[i].undo();
        attempts[i].clean();
    }
    CHECK(mm.operations > 50);
    CHECK(panics(break_and_go_on));
    CHECK(strstr(panic_message, "violations after operation"));
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"inject_hook", hook},
        {"inject_single_failures", single_failures},
        {"inject_lasting_failures", lasting_failures},
        {"check_every", check_every},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
