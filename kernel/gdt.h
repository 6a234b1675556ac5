// SPDX-License-Identifier: BSD-2-Clause
// Segments and the task state segment with the stacks of the exceptions that need one.
#pragma once

#include "lib/types.h"

#define SEL_KERNEL_CODE 0x08
#define SEL_KERNEL_DATA 0x10
#define SEL_USER_DATA   0x18
#define SEL_USER_CODE   0x20
#define SEL_TSS         0x28

// The interrupt stack table's slots, as they stand in a gate.
enum ist {
    IST_NONE = 0,
    IST_DOUBLE_FAULT = 1,
    IST_NMI = 2,
    IST_MACHINE_CHECK = 3,
};

/* Loads this CPU's own GDT, still without a task: the boot loader's and the boot part's are not
 * used any more. */
void gdt_init(void);

/* Loads this CPU's task state segment. Before it, tss_set_ist() gives each slot its stack. */
void tss_init(void);

/* Where the stack pointer stands that the processor loads when ring 3 is interrupted; eight bytes,
 * not aligned. */
void *tss_kernel_stack(void);

/* For the self-check, of a CPU that has loaded both: where its segments stand, and what its TSS
 * says; whether the segments are the kernel's, with that TSS; whether it says nothing else. */
uint64_t gdt_address(uint32_t cpu);
vaddr_t tss_ist(uint32_t cpu, enum ist ist);
vaddr_t tss_rsp0(uint32_t cpu);
bool gdt_holds(uint32_t cpu);
bool tss_holds(uint32_t cpu);

/* The top of the stack that gates with slot ist switch to on that CPU. */
void tss_set_ist(uint32_t cpu, enum ist ist, vaddr_t top);
