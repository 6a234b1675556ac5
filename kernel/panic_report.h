// SPDX-License-Identifier: BSD-2-Clause
// The report of a panic.
#pragma once

#include "lib/types.h"

/* From now on panic() reports and stops the machine. After percpu_init(). */
void panic_report_init(void);

/*
 * The first CPU that calls it has the panic: it stops all others, and the call returns, so that it
 * can report. On another CPU it stops that CPU. On the same CPU again, where the report itself went
 * wrong (`what` happened in it, at rip), it stops the machine. Interrupts are off.
 */
void panic_begin(const char *what, uint64_t rip);

/* The report of a panic that was begun, with the backtrace of the code that was interrupted at rip
 * with frame pointer rbp. */
_Noreturn void panic_from(uint64_t rip, uint64_t rbp, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
