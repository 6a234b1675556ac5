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

/* Must hold on every build, also in the fastest one. */
#define assert(x)                                                                                  \
    do {                                                                                           \
        if (unlikely(!(x)))                                                                        \
            panic("%s:%d: %s: assertion failed: %s", __FILE__, __LINE__, __func__, #x);            \
    } while (0)
