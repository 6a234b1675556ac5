// SPDX-License-Identifier: BSD-2-Clause
// Tests that run inside the guest, and the other words of the command line that tests are made of.
#pragma once

#include "lib/printk.h"
#include "lib/types.h"

// Aligned to its size, so that the linker's section is an array.
struct guest_test {
    const char *name;
    void (*run)(void);
} __attribute__((aligned(16)));

/*
 * GUEST_TEST(name) { body }: a test, run by test=name and test=all. It must leave as many free
 * pages and blocks of each order as it found, and nothing that mm_check() objects to.
 */
#define GUEST_TEST(test_name)                                                                      \
    static void test_##test_name(void);                                                            \
    static const struct guest_test guest_test_##test_name                                          \
        __attribute__((used, section(".guest_tests." #test_name))) = {#test_name,                  \
                                                                      test_##test_name};           \
    static void test_##test_name(void)

/* In a test: if cond does not hold the test has failed and ends. What it holds by then it does not
 * give back. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            guest_test_failed(__FILE__, __LINE__, #cond);                                          \
            return;                                                                                \
        }                                                                                          \
    } while (0)

/* The same for two integers that should be equal; prints both. */
#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        int64_t check_a = (int64_t)(a), check_b = (int64_t)(b);                                    \
                                                                                                   \
        if (check_a != check_b) {                                                                  \
            guest_test_failed(__FILE__, __LINE__, #a " == " #b);                                   \
            printk("  %ld (0x%lx) is not %ld (0x%lx)\n", check_a, check_a, check_b, check_b);      \
            return;                                                                                \
        }                                                                                          \
    } while (0)

/* The running test takes down and makes anew what lives longer than it does, and compares by itself
 * what is free while that is down: afterwards it may lie elsewhere. */
void guest_test_rebuilt(void);

/* The running test has failed, for the reason that stands there. */
void guest_test_failed(const char *file, int line, const char *what);

/*
 * Runs the tests of a comma-separated list, or 'all', and prints 'N passed, N failed'. True if all
 * passed and there was at least one. A name that no test has counts as failed.
 */
bool guest_tests_run(const char *names);

/* plant=RULE: commits the bug that breaks the rule. 'list' prints them all. 0, -1 if there is no
 * such rule. */
int plant_bug(const char *rule);

/* crash=KIND: brings the guest down as KIND says. Returns 0 after 'list', which prints all kinds,
 * -1 if there is no such kind. */
int crash(const char *kind);

/* break=KIND: breaks that part of the kernel. The same results. */
int break_part(const char *kind);

/* bench: measures. */
void bench_run(void);
/* bench=full: everything held as 4K pages, each mapped once; the manager's memory then. Leaves
 * things so, for the debugger to look at. */
void bench_full(void);
/* bench=apart: the same, an unmapped page behind each, so that no two are one range. */
void bench_apart(void);
