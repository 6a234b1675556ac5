// SPDX-License-Identifier: BSD-2-Clause
// Exceptions: what the stubs leave on the stack, and what becomes of it.
#pragma once

#include "lib/types.h"

enum vector {
    VECTOR_NMI = 2,
    VECTOR_DF = 8,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MC = 18,
    VECTOR_EXCEPTIONS = 32, // from here on interrupts
    VECTOR_DEVICES = 0xd0,  // by way of the I/O APICs (ioapic.c)
    VECTOR_DEVICES_END = 0xe0,
    VECTOR_SHOOTDOWN = 0xf0,
    VECTOR_WAKE = 0xf1,
    VECTOR_ALARM = 0xf2,    // of the local APIC's timer
    VECTOR_SPURIOUS = 0xff, // of the local APIC
};

// Error code of a page fault.
enum pf_error {
    PF_PRESENT = 1 << 0, // a permission was missing, not the page
    PF_WRITE = 1 << 1,
    PF_USER = 1 << 2,
    PF_RESERVED = 1 << 3,
    PF_FETCH = 1 << 4,
    PF_KEY = 1 << 5,
    PF_SHADOW_STACK = 1 << 6,
};

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
