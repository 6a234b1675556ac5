// SPDX-License-Identifier: BSD-2-Clause
// What the files of the benchmark share: the clock, the printed lines, addresses and frames.
#pragma once

#include "arch/x86/cpu.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/mm.h"
#include "mm/vmap.h"

// Under QEMU's -icount shift=0,sleep=off a tick of the TSC is an instruction.
//
// BENCH_LOOP measures a loop. What the same loop costs when it only reads one operand is measured
// once and subtracted by bench_say(); the call, its arguments, the return and what is done with the
// result count.
#define BENCH_LOOP(ticks, i, count, body)                                                          \
    do {                                                                                           \
        uint64_t start_ = rdtsc();                                                                 \
                                                                                                   \
        for (uint64_t i = 0; i < (count); i++)                                                     \
            body;                                                                                  \
        (ticks) += rdtsc() - start_;                                                               \
    } while (0)

#define BENCH_VA    (VA_VMAP + (UINT64_C(16) << 40)) // where the benchmark maps
#define BENCH_ARRAY (VA_VMAP + (UINT64_C(8) << 40))  // its array of frames

enum {
    BENCH_MIN = 1024,         // operations, at least, that a mean is made of
    BENCH_HELD_MAX = 1000000, // frames held at most
};

/* Measures the empty loop. */
void bench_calibrate(void);
/* Prints `bench KEY ticks T ops N`, which tests/bench/bench.py reads, less what the loop over so
 * many operations costs by itself. */
void bench_say(const char *key, uint64_t ticks, uint64_t ops);
void bench_say_plain(const char *key, uint64_t ticks, uint64_t ops);
/* Ends the run as a failure. Every operation of the benchmark must succeed. */
void bench_check(int err, const char *what);
/* A frame, or the end of the run. */
frame_t *bench_get(unsigned order);

/* Mapping and unmapping a page as ACPICA asks for it. */
void bench_acpi(void);
/* get, put and find with 10 to 1,000,000 frames held, as far as memory goes. */
void bench_frames(void);
/* metadata_full_percent; all memory is given back. */
void bench_metadata(void);
