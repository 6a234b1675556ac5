// SPDX-License-Identifier: BSD-2-Clause
// Interrupts from one CPU to others.
#pragma once

#include "lib/types.h"

#ifdef KTF_HOST
/* These CPUs (a mask) answer one after the other, at once. */
void ipi_shootdown(uint64_t cpus);
#else
// True once the local APIC can be used, and other CPUs may run.
extern bool ipi_ready;

/* Asks these CPUs (a mask, not this one) to run tlb_answer(). */
void ipi_shootdown(uint64_t cpus);
/* Interrupts that CPU, which ends its halt: for cpu_unpark(). */
void ipi_wake(uint32_t cpu);
/* Handles an interrupt that another CPU sent. False if the vector is another one. */
bool ipi_handle(uint64_t vector);
/* Stops these CPUs (a mask; this one is left out) for good, whatever they are doing, and waits a
 * while for them to have stopped: for panics. */
void ipi_stop_others(uint64_t cpus);
/* Stops this CPU, as one of them. */
_Noreturn void ipi_stopped(void);
#endif
