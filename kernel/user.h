// SPDX-License-Identifier: BSD-2-Clause
// Into ring 3 and back: as much of it as a test needs.
#pragma once

#include "kernel/traps.h"
#include "lib/types.h"

enum {
    VECTOR_USER_EXIT = 0x80, // `int $0x80` in ring 3 comes back
};

// How ring 3 was left.
struct user_exit {
    uint64_t vector;  // VECTOR_USER_EXIT, or that of an exception
    uint64_t error;   // its error code
    uint64_t address; // CR2 of a page fault, else 0
    uint64_t rip;
    uint64_t rax;
};

/* Goes to `entry` in ring 3 of the loaded address space, with that stack pointer and rdi, rsi and
 * rdx; interrupts are off. Returns what ended it: the first exception, or int $0x80. */
struct user_exit user_run(vaddr_t entry, vaddr_t stack, uint64_t rdi, uint64_t rsi, uint64_t rdx);

/* For trap_handle(): true if the exception came from user_run()'s ring 3, and goes on behind it. */
bool user_trap(struct trap_frame *frame);
