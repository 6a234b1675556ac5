// SPDX-License-Identifier: BSD-2-Clause
// Random operations of the manager, judged by the model.
#pragma once

#include "tests/host/model.h"

enum {
    LOW_MEMORY = 64, // free pages: with fewer, -ENOMEM is an answer
};

struct ops {
    uint64_t (*random)(uint64_t n); // where choices come from: 0 to n - 1
    bool low;                       // little memory was free before the operation
    uint64_t done[2];               // operations refused, and done
};
extern struct ops ops;

/* One operation, more often taking memory than giving it back if `filling`. Ends the test if the
 * answer is not what the model expects. */
void ops_step(bool filling);
/* Gives everything back, and fails unless as much is free as at the start (digest_free()). */
void ops_take_apart(uint64_t free_at_start);

/* --- ops_pick.c: choices ---------------------------------------------------------------------- */

// Arguments as they are passed: one of them is wrong now and then.
struct call {
    space_t *space;
    vaddr_t va;
    frame_t *frame;
    uint32_t errors;
};

/* 0 to n - 1; true in so many of 100 cases. */
uint64_t rnd(uint64_t n);
bool chance(unsigned percent);
/* Ends the test unless err is one of `errors`, or 0 if there are none. True if it is 0. */
bool judge(const char *what, int err, uint32_t errors);
struct mblock *pick_block(void);
unsigned pick_space(void);
/* A descriptor that is none, and what is said of it. */
frame_t *bad_frame(uint32_t *errors);
unsigned pick_attr(const struct mblock *b, unsigned space);
/* True if the part lies within one place of its space. */
bool fits(const struct mpart *p);
/* Part of a block anywhere, its whole if `whole`. */
struct mpart pick_part(bool whole);
/* Part of something mapped, its whole block if `whole`; most often right in the place. */
struct mpart pick_mapped(bool whole);
/* The part as arguments; one of them is wrong now and then. */
struct call make_call(const struct mpart *p);
