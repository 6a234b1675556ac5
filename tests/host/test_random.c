// SPDX-License-Identifier: BSD-2-Clause
// Random sequences of every operation against the model. Arguments: [SEED [STEPS [RAM in KiB]]]; a
// seed repeats its run.
#include <stdio.h>
#include <stdlib.h>

#include "tests/host/ops.h"

enum {
    RUNS = 24,
    STEPS = 700,
};

static uint64_t seed, state;
static unsigned steps, ram_kib;

static uint64_t generator(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state * UINT64_C(0x2545f4914f6cdd1d) >> 20) % n;
}

static void boot(void)
{
    static const unsigned sizes[] = {5, 5, 6, 8, 16, 32};

    machine_reset();
    machine.phys_bits = 43;
    machine.levels = 4 + (unsigned)rnd(2);
    machine.has_1g = rnd(100) < 70;
    machine_usual(ram_kib ? ram_kib * KIB : sizes[rnd(ARRAY_SIZE(sizes))] * MIB);
    machine_start();
    model_start();
    model_compare();
}

static void run(void)
{
    uint64_t free_at_start;

    state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    boot();
    free_at_start = digest_free();
    for (unsigned i = 0; i < steps; i++) {
        uint64_t before = state;

        ops_step(i / 150 % 2 == 0);
        model_compare();
        if (state == before)
            test_fail(__FILE__, __LINE__, "no progress");
    }
    ops_take_apart(free_at_start);
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    unsigned failed = 0, runs = argc > 1 ? 1 : RUNS;
    char name[64];

    setvbuf(stdout, NULL, _IOLBF, 0);
    steps = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 0) : STEPS;
    ram_kib = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 0) : 0;
    runs = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : runs;
    for (seed = first; seed < first + runs; seed++) {
        struct host_test test = {name, run};

        ops = (struct ops){.random = generator};
        snprintf(name, sizeof(name), "random_seed_%llu", (unsigned long long)seed);
        if (!host_run(&test)) {
            failed++;
            printf("# again: test_random %llu %u %u\n", (unsigned long long)seed, steps, ram_kib);
        }
        printf("# %s: %llu operations done, %llu refused\n", name, (unsigned long long)ops.done[1],
               (unsigned long long)ops.done[0]);
    }
    return failed != 0;
}
