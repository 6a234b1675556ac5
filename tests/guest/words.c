// SPDX-License-Identifier: BSD-2-Clause
// The words of the command line that tests and the benchmark are made of.
#include "kernel/words.h"

#include "lib/panic.h"
#include "lib/string.h"
#include "tests/guest/test.h"

// The guest ends after a list.
static void end_after_list(const char *value, struct verdict *verdict)
{
    verdict->watched |= strcmp(value, "list") == 0;
}

static void plant_word(const char *rule, struct verdict *verdict)
{
    if (plant_bug(rule) != 0)
        panic("plant=%s: no such rule, plant=list prints all there are", rule);
    end_after_list(rule, verdict);
}

// The guest goes on with a part of it broken, for tests that must notice.
static void break_word(const char *kind, struct verdict *verdict)
{
    (void)verdict;
    if (break_part(kind) != 0)
        panic("break=%s: no such kind, break=list prints all there are", kind);
}

static void crash_word(const char *kind, struct verdict *verdict)
{
    if (crash(kind) != 0)
        panic("crash=%s: no such kind, crash=list prints all there are", kind);
    end_after_list(kind, verdict);
}

static void test_word(const char *names, struct verdict *verdict)
{
    verdict->failed |= !guest_tests_run(names);
    verdict->watched = true;
}

static void bench_word(const char *none, struct verdict *verdict)
{
    (void)none;
    bench_run();
    verdict->watched = true;
}

static void bench_value_word(const char *which, struct verdict *verdict)
{
    if (strcmp(which, "full") == 0)
        bench_full();
    else if (strcmp(which, "apart") == 0)
        bench_apart();
    else
        panic("bench=%s: there are bench=full and bench=apart", which);
    verdict->watched = true;
}

WORD(10_plant) = {"plant", plant_word, .time = WORD_BEFORE_READY, .takes_value = true,
                  .repeats = true};
WORD(20_break) = {"break", break_word, .time = WORD_AFTER_READY, .takes_value = true};
WORD(30_crash) = {"crash", crash_word, .time = WORD_AFTER_READY, .takes_value = true};
WORD(50_test) = {"test", test_word, .time = WORD_AFTER_READY, .takes_value = true,
                 .ends_in_failure = true};
WORD(60_bench) = {"bench", bench_word, .time = WORD_AFTER_READY, .ends_in_failure = true};
WORD(70_bench_value) = {"bench", bench_value_word, .time = WORD_AFTER_READY, .takes_value = true,
                        .ends_in_failure = true};

// Tests look for these.
WORD(80_stress_ops) = {"stress-ops", NULL, .time = WORD_READ, .takes_value = true};
WORD(80_stress_seed) = {"stress-seed", NULL, .time = WORD_READ, .takes_value = true};
WORD(80_pci_bridge) = {"pci-bridge", NULL, .time = WORD_READ};
