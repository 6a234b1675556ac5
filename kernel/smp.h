// SPDX-License-Identifier: BSD-2-Clause
// Starting the other CPUs, and giving them work.
#pragma once

#include "arch/x86/percpu.h"

// The root table that other CPUs start with, the kernel's; 0 while none was to be started.
extern uint64_t ap_cr3;

/* Starts all other CPUs, as many as QEMU's fw_cfg says there are; without it one is enough. Each is
 * in the kernel's space then, with stacks of its own, and waits for work. What does not come up in
 * time is told, and stays off. After apic_map(). */
void smp_start(void);

/* How many CPUs are up: numbers 0 to smp_count() - 1. A CPU's number is its number on the bus. */
uint32_t smp_count(void);
/* The mask of these CPUs. */
uint64_t smp_mask(void);

/* Lets a CPU (not this one) run fn(arg) when it has nothing else to do. It waits until the CPU has
 * begun all that was given to it before. */
void smp_run(uint32_t cpu, void (*fn)(void *arg), void *arg);

/* Waits until that CPU has done all that it was given. */
void smp_wait(uint32_t cpu);

/* From now on a CPU that has nothing else to do calls run(), again and again; wakes one for it.
 * NULL: no longer. Interrupt handlers may call it. */
void smp_idle_job(void (*run)(void));

/* This CPU does only what others give it from now on, with interrupts on. */
_Noreturn void smp_idle_loop(void);

/* Makes the stacks of a CPU, those for exceptions that need one included. Panics if there is no
 * memory. Then cpu_stack() is the top of the one that it runs on. */
void cpu_stacks_create(uint32_t cpu);
vaddr_t cpu_stack(uint32_t cpu);

/* Loads this CPU's own segments and task state, with its stacks. */
void cpu_tables_init(void);
