// SPDX-License-Identifier: BSD-2-Clause
// Exceptions and interrupts: what the stubs leave on the stack, and what handles it.
#pragma once

#include "arch/x86/vectors.h"
#include "lib/types.h"

// In the order in which traps.S and the processor push it, last one first.
struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
    uint64_t rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};
_Static_assert(sizeof(struct trap_frame) == 22 * 8, "as traps.S pushes it");

/* Called by traps.S for each exception and interrupt. Returns to the interrupted code, or never. */
void trap_handle(struct trap_frame *frame);
