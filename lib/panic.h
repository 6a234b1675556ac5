// SPDX-License-Identifier: BSD-2-Clause
// The end of the road: a broken invariant of our own. Bad input and exhaustion return errors
// instead.
#pragma once

#include "lib/types.h"

#include <stdarg.h>

/*
 * Prints the message and a backtrace and stops the machine: ended as a failure where a test or the
 * benchmark runs, halted otherwise, so that a debugger can look. In host tests the test supplies
 * it.
 */
_Noreturn void panic(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// Reports a panic and stops the machine; kernel/ sets it. rip and rbp: the caller of panic(), and
// the frame pointer in panic().
extern void (*panic_hook)(uint64_t rip, uint64_t rbp, const char *fmt, va_list args)
    __attribute__((noreturn));

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
