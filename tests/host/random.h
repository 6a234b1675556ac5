// SPDX-License-Identifier: BSD-2-Clause
// The random test's choices and operations.
#pragma once

#include "tests/host/model.h"

enum {
    LOW_MEMORY = 64, // free pages: with fewer, -ENOMEM is an answer
};

// One run's state.
struct random_run {
    uint64_t state;
    bool low;         // little memory was free before the operation
    uint64_t done[2]; // operations refused, and done
};
extern struct random_run run;

uint64_t rnd(uint64_t n);
bool chance(unsigned percent);
/* The answer must be one of `errors`, or 0 if there are none. True if it is 0. */
bool judge(const char *what, int err, uint32_t errors);

/* A block of the model, most often one that fits the places where the test maps. */
struct mblock *pick_block(void);
unsigned pick_space(void);
/* A descriptor that is none; adds what is said of it. */
frame_t *bad_frame(uint32_t *errors);
unsigned pick_attr(const struct mblock *b, unsigned space);
/* Where a part of 2^order pages fits; aligned to its size more often than not. */
int pick_page(unsigned order);
bool fits(const struct mpart *p);
/* Part of a block anywhere, its whole if `whole`. */
struct mpart pick_part(bool whole);
/* Part of something mapped, its whole block if `whole`; most often right in the place. */
struct mpart pick_mapped(bool whole);

// Arguments as they are passed: one of them is wrong now and then.
struct call {
    space_t *space;
    vaddr_t va;
    frame_t *frame;
    uint32_t errors;
};
struct call make_call(const struct mpart *p);

/* One random operation, compared with what the model says of it. */
void random_step(bool filling);
