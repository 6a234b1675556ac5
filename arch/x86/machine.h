// SPDX-License-Identifier: BSD-2-Clause
// What the memory manager asks of the processor. Host tests have their own.
#pragma once

#include "lib/types.h"

/* Bits of a physical address that the CPU has (MAXPHYADDR, CPUID 0x80000008). */
unsigned arch_phys_bits(void);

/* Levels of its page tables: 4 or 5. */
unsigned arch_levels(void);

/* Whether it has 1 GiB pages (CPUID 0x80000001, EDX bit 26). */
bool arch_has_1g(void);

/* Loads the kernel's page tables, whose root is at cr3, for good. */
void arch_load_space(uint64_t cr3);
