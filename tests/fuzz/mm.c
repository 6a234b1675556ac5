// SPDX-License-Identifier: BSD-2-Clause
// libFuzzer's entry: bytes become a machine and operations on it; the model and mm_check() judge.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/host/kmalloc_ops.h"
#include "tests/host/ops.h"

enum {
    COMPARE_EVERY = 64, // operations; comparing is what takes the time
};

static const uint8_t *input, *input_end;

// The choices of one operation come from so many bytes, spread by a generator: a changed byte
// changes one operation, and a short input has many.
enum {
    OPERATION_BYTES = 3,
};
static uint64_t state;

static uint64_t choose(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state * UINT64_C(0x2545f4914f6cdd1d) >> 20) % n;
}

static void next_bytes(void)
{
    state = 0;
    for (unsigned i = 0; i < OPERATION_BYTES && input < input_end; i++)
        state = state << 8 | *input++;
    state = (state + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static void boot(void)
{
    static const unsigned megabytes[] = {5, 6, 8, 16};

    machine_reset();
    machine.phys_bits = 43;
    machine.levels = 4 + (unsigned)choose(2);
    machine.has_1g = choose(2);
    machine_usual(megabytes[choose(ARRAY_SIZE(megabytes))] * MIB);
    machine_start();
}

// One input in some is of kmalloc.
static void run_kmalloc(void)
{
    uint64_t free_at_start = digest_free();

    kmalloc_forget();
    while (input < input_end) {
        next_bytes();
        kmalloc_step();
    }
    kmalloc_take_apart();
    SAME(digest_free(), free_at_start);
}

static void run_frames(void)
{
    uint64_t free_at_start;

    model_start();
    free_at_start = digest_free();
    for (unsigned i = 1; input < input_end; i++) {
        next_bytes();
        ops_step(i / 64 % 2 == 0);
        if (i % COMPARE_EVERY == 0)
            model_compare();
    }
    model_compare();
    ops_take_apart(free_at_start);
}

static void run(void)
{
    bool frames;

    ops = (struct ops){.random = choose};
    next_bytes();
    frames = choose(8);
    boot();
    if (frames)
        run_frames();
    else
        run_kmalloc();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    const char *failure;

    input = bytes;
    input_end = bytes + count;
    failure = host_try(run);
    if (failure) {
        fprintf(stderr, "fuzz: %s\n", failure);
        abort(); // the input is kept
    }
    return 0;
}
