// SPDX-License-Identifier: BSD-2-Clause
// Interrupts from one CPU to others.
#pragma once

#include "lib/types.h"

/* Does what another CPU asks this one to flush, if anything (mm/shootdown.c). */
void tlb_answer(void);

#ifdef KTF_HOST
/* They answer one after the other, at once. */
void ipi_shootdown(uint64_t cpus);
#else
// True once the local APIC can be used, and other CPUs may be up.
extern bool ipi_ready;

/* Asks these CPUs (a mask, not this one) to run tlb_answer(). */
void ipi_shootdown(uint64_t cpus);
/* Interrupts it, so that it halts no more: for cpu_unpark(). */
void ipi_wake(uint32_t cpu);
/* Handles an interrupt that another CPU sent. False if it is none of these. */
bool ipi_handle(uint64_t vector);
/* Stops all other CPUs for good, whatever they are doing, and waits a while for them to have
 * stopped: for panics. */
void ipi_stop_others(void);
/* This CPU is one of them. */
_Noreturn void ipi_stopped(void);
#endif
