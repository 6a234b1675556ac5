// SPDX-License-Identifier: BSD-2-Clause
// libFuzzer's entry: bytes become a machine and operations on it; the model and mm_check() judge.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/host/ops.h"

enum {
    COMPARE_EVERY = 8, // operations; comparing is what takes the time
};

static const uint8_t *input, *input_end;

// As many bytes as n needs; 0 when they have run out.
static uint64_t from_input(uint64_t n)
{
    uint64_t value = 0;

    for (uint64_t room = n - 1; room && input < input_end; room >>= 8)
        value = value << 8 | *input++;
    return value % n;
}

static void boot(void)
{
    static const unsigned megabytes[] = {5, 6, 8, 16};

    machine_reset();
    machine.phys_bits = 43;
    machine.levels = 4 + (unsigned)from_input(2);
    machine.has_1g = from_input(2);
    machine_usual(megabytes[from_input(ARRAY_SIZE(megabytes))] * MIB);
    machine_start();
    model_start();
}

static void run(void)
{
    uint64_t free_at_start;

    ops = (struct ops){.random = from_input};
    boot();
    free_at_start = digest_free();
    for (unsigned i = 1; input < input_end; i++) {
        ops_step(i / 64 % 2 == 0);
        if (i % COMPARE_EVERY == 0)
            model_compare();
    }
    model_compare();
    ops_take_apart(free_at_start);
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
