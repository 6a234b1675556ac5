// SPDX-License-Identifier: BSD-2-Clause
// Runs the tests inside the guest, and sees to it that each leaves memory as it found it.
#include "tests/guest/test.h"

#include "lib/string.h"
#include "mm/mm.h"

extern const struct guest_test guest_tests_start[], guest_tests_end[]; // kernel.ld

// What must be the same after a test.
struct memory_state {
    uint64_t free_pages;
    uint32_t free_blocks[ORDER_COUNT];
};

static bool failed, rebuilt;

void guest_test_failed(const char *file, int line, const char *what)
{
    printk("  %s:%d: failed: %s\n", file, line, what);
    failed = true;
}

void guest_test_rebuilt(void)
{
    rebuilt = true;
}

static struct memory_state memory_state(void)
{
    struct memory_state state;

    mm_trim(); // what arenas hold in stock depends on what went before
    state.free_pages = mm_free_pages();
    for (unsigned order = 0; order < ORDER_COUNT; order++)
        state.free_blocks[order] = mm_free_blocks(order);
    return state;
}

static void compare(const struct memory_state *before, const struct memory_state *after)
{
    if (before->free_pages != after->free_pages) {
        printk("  %lu pages were free before, %lu are now\n", before->free_pages,
               after->free_pages);
        failed = true;
    }
    for (unsigned order = 0; order < ORDER_COUNT; order++) {
        if (before->free_blocks[order] == after->free_blocks[order])
            continue;
        printk("  order %u: %u blocks were free before, %u are now\n", order,
               before->free_blocks[order], after->free_blocks[order]);
        failed = true;
    }
}

static bool run_one(const struct guest_test *test)
{
    struct memory_state before = memory_state(), after;
    int violations;

    failed = rebuilt = false;
    printk("test %s\n", test->name);
    test->run();
    after = memory_state();
    if (!rebuilt)
        compare(&before, &after);
    violations = mm_check();
    if (violations != 0) {
        printk("  mm_check(): %d violations\n", violations);
        failed = true;
    }
    printk("test %s: %s\n", test->name, failed ? "FAILED" : "ok");
    return !failed;
}

static const struct guest_test *find(const char *name, size_t len)
{
    for (const struct guest_test *t = guest_tests_start; t < guest_tests_end; t++) {
        if (strlen(t->name) == len && memcmp(t->name, name, len) == 0)
            return t;
    }
    return NULL;
}

static void print_names(void)
{
    printk("the tests are:");
    for (const struct guest_test *t = guest_tests_start; t < guest_tests_end; t++)
        printk(" %s", t->name);
    printk("\n");
}

static void count(bool ok, unsigned *passed, unsigned *not_passed)
{
    if (ok)
        ++*passed;
    else
        ++*not_passed;
}

bool guest_tests_run(const char *names)
{
    unsigned passed = 0, not_passed = 0;

    if (strcmp(names, "all") == 0) {
        for (const struct guest_test *t = guest_tests_start; t < guest_tests_end; t++)
            count(run_one(t), &passed, &not_passed);
        names = "";
    }
    while (*names != '\0') {
        size_t len = 0;
        const struct guest_test *test;

        while (names[len] != '\0' && names[len] != ',')
            len++;
        test = find(names, len);
        if (test == NULL) {
            printk("test '%.*s': FAILED: there is no such test; ", (int)len, names);
            print_names();
        }
        count(test != NULL && run_one(test), &passed, &not_passed);
        names += len + (names[len] == ',');
    }
    printk("%u passed, %u failed\n", passed, not_passed);
    return passed > 0 && not_passed == 0;
}

// What another file of tests/guest may supply.
__attribute__((weak)) int plant_bug(const char *rule)
{
    (void)rule;
    return -1;
}

__attribute__((weak)) void bench_run(void)
{
    printk("bench: there is none in this kernel\n");
}
