// SPDX-License-Identifier: BSD-2-Clause
// Random sequences of every operation against the model. Arguments: [SEED [STEPS [RAM in KiB
// [RUNS]]]]; a seed repeats its run.
#include <stdio.h>
#include <stdlib.h>

#include "tests/host/random.h"

enum {
    RUNS = 24,
    STEPS = 700,
};

static uint64_t seed;
static unsigned steps, ram_kib;

static void boot(void)
{
    static const unsigned sizes[] = {5, 5, 6, 8, 16, 32};

    machine_reset();
    machine.phys_bits = 43;
    machine.levels = 4 + (unsigned)rnd(2);
    machine.has_1g = chance(70);
    machine_usual(ram_kib ? ram_kib * KIB : sizes[rnd(ARRAY_SIZE(sizes))] * MIB);
    machine_start();
    model_start();
    model_compare();
}

// Everything goes back; what is free then is what was free at the start.
static void take_apart(uint64_t free_at_start)
{
    OK(space_switch(kernel_space()));
    for (unsigned i = 1; i < MODEL_SPACES; i++)
        if (model.space[i].space) {
            OK(space_destroy(model.space[i].space));
            model_space_gone(i);
        }
    for (int page = 0; page < MODEL_PAGES; page++) {
        const struct mpage *m = &model.space[0].page[page];
        struct mblock *b = m->refs ? model_block(m->mfn) : NULL;
        struct mpart p = {0, page, b, b ? m->mfn - b->mfn : 0, 0};

        run.low = true;
        if (b && judge("vunmap_part",
                       vunmap_part(NULL, VADDR(model_va(0, page)), b->frame, p.offset, 0), 0))
            model_put(&p, true);
    }
    for (uint32_t i = 0; i < model.blocks; i++) {
        struct mblock *b = &model.block[i];

        while (b->frame && put_frame(b->frame) == 0) {
            b->refcount--;
            model_release(b);
        }
    }
    model_compare();
    SAME(digest_free(), free_at_start);
}

static void run_seed(void)
{
    uint64_t free_at_start;

    run.state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    boot();
    free_at_start = digest_free();
    for (unsigned i = 0; i < steps; i++) {
        uint64_t before = run.state;

        random_step(i / 150 % 2 == 0);
        model_compare();
        if (run.state == before)
            test_fail(__FILE__, __LINE__, "no progress");
    }
    take_apart(free_at_start);
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
        struct host_test test = {name, run_seed};

        run.done[0] = run.done[1] = 0;
        snprintf(name, sizeof(name), "random_seed_%llu", (unsigned long long)seed);
        if (!host_run(&test)) {
            failed++;
            printf("# again: test_random %llu %u %u\n", (unsigned long long)seed, steps, ram_kib);
        }
        printf("# %s: %llu operations done, %llu refused\n", name, (unsigned long long)run.done[1],
               (unsigned long long)run.done[0]);
    }
    return failed != 0;
}
