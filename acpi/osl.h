// SPDX-License-Identifier: BSD-2-Clause
// What the files of the operating-system layer need of each other.
#pragma once

#include <acpi/acpi.h>

#include "acpi/ktf_acpi.h"
#include "arch/x86/layout.h"
#include "lib/types.h"

// The kernel above, as ktf_acpi_init() got it.
extern const struct ktf_acpi_machine *osl_machine;

/* --- memory.c --------------------------------------------------------------------------------- */

/* What AcpiOsMapMemory() does: maps the pages that [paddr, paddr + length) touches, each through
 * its frame, and counts those up that are mapped already. NULL if a page can't be mapped; nothing
 * has changed then. */
void *osl_map(paddr_t paddr, size_t length);
/* What AcpiOsUnmapMemory() does: counts each of these pages down. -EINVAL no length, -EBEYOND no
 * address of osl_map()'s, -ENOENT one of the pages is not mapped; nothing has changed then. */
int osl_unmap(const void *va, size_t length);

/* Reserved memory [start, end) that is a device: mapped uncached from now on, while ACPI is down
 * too. At most a few; one that is known already is no further one. */
void osl_uncached_add(paddr_t start, paddr_t end);
/* Forgets them all. */
void osl_uncached_clear(void);

/* Maps the registers that the SCI's handler may read, if they are in memory: it may not map. */
void osl_map_registers(void);
void osl_unmap_registers(void);

/* --- locks.c, work.c, clock.c, interrupt.c, pci.c --------------------------------------------- */

struct acpi_lock {
    uint32_t owner; // number + 1 of the CPU that holds it, 0 if none does
};

/* Takes the lock with interrupts off, which an interrupt's handler may do too. Returns what
 * osl_unlock() needs to turn them on again. */
uint64_t osl_lock(struct acpi_lock *lock);
void osl_unlock(struct acpi_lock *lock, uint64_t flags);

/* True on a CPU that is handling the SCI. */
bool osl_in_interrupt(void);

enum {
    TIMER_PER_MS = 10000, // acpi_os_get_timer() counts in units of 100 ns
};

/* Measures the TSC against the ACPI timer. Once the FADT is read. */
void osl_clock_calibrate(void);
/* Ticks of the TSC in a microsecond. */
uint64_t osl_clock_mhz(void);

/* Finds the I/O APICs in the MADT, and maps them. An ACPI error if there is none. */
acpi_status osl_interrupts_init(void);
void osl_interrupts_fini(void);

/* The global number of ISA interrupt `irq`, which the MADT may have moved. */
uint32_t osl_irq_gsi(uint32_t irq);

/* Finds PCI configuration space in memory (MCFG), if there is any. */
void osl_pci_init(void);
/* The ports alone from now on; that memory stays known as a device. */
void osl_pci_fini(void);
