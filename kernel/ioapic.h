// SPDX-License-Identifier: BSD-2-Clause
// I/O APICs: interrupts of devices, by their global numbers, to the boot CPU.
#pragma once

#include "lib/types.h"

/* Maps the I/O APIC at that address through its device frame and masks all of its inputs, which
 * have the numbers from gsi_base on. 0, -ENOMEM there are more than can be kept, or the error of
 * the frame or of the mapping. */
int ioapic_add(paddr_t paddr, uint32_t gsi_base) must_check;
/* Masks and unmaps them all. */
void ioapic_remove_all(void);

/* From now on that interrupt calls fn on the boot CPU, in its handler: fn may not call the memory
 * manager, nor wait. -ENOENT no I/O APIC has it, -EBUSY it has a function, -ENOMEM too many. */
int ioapic_route(uint32_t gsi, bool level, bool low, void (*fn)(void)) must_check;
/* Masks it. fn is not called any more. */
void ioapic_unroute(uint32_t gsi);

/* Handles an interrupt that was routed. False if it is none of these. */
bool ioapic_handle(uint64_t vector);
