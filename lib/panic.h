// SPDX-License-Identifier: BSD-2-Clause
// The end of the road: a broken invariant of our own. Bad input and exhaustion return errors
// instead.
#pragma once

#include "lib/types.h"

/*
 * Prints the message and a backtrace and stops the machine: ended as a failure where a test or the
 * benchmark runs, halted otherwise, so that a debugger can look. In host tests the test supplies
 * it.
 */
_Noreturn void panic(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * The first CPU that calls it has the panic: all others are stopped, and it goes on to report. It
 * returns nowhere else: another CPU stops, and where the report itself went wrong (`what` happened
 * in it, at rip) the machine does, with what was printed so far. Interrupts are off.
 */
void panic_begin(const char *what, uint64_t rip);

/* The end of a panic that was begun, with the backtrace of the code that was interrupted at rip
 * with frame pointer rbp. Not in host tests. */
_Noreturn void panic_from(uint64_t rip, uint64_t rbp, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct trap_frame;

// What stopped the kernel first, for the debugger.
struct panic_record {
    uint32_t cpu;
    uint32_t vector;                // of the exception; 0 without one
    uint64_t error;                 // its error code
    uint64_t address;               // CR2 as the exception left it
    uint64_t caller;                // who called panic(), or what the exception interrupted
    const struct trap_frame *frame; // NULL: the kernel itself gave up
};
extern struct panic_record panic_record;

// The message of the first panic, for the debugger; empty if there was none.
extern char panic_message[256];

// Token of the CPU that has the panic, 0 while all is well.
extern uint32_t panic_owner;

/* True from the first panic on: the other CPUs are being stopped, and locks count no more. */
static inline bool panicking(void)
{
    return __atomic_load_n(&panic_owner, __ATOMIC_SEQ_CST) != 0;
}

/* Must hold on every build, also in the fastest one. */
#define assert(x)                                                                                  \
    do {                                                                                           \
        if (unlikely(!(x)))                                                                        \
            panic("%s:%d: %s: assertion failed: %s", __FILE__, __LINE__, __func__, #x);            \
    } while (0)
