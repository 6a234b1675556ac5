// SPDX-License-Identifier: BSD-2-Clause
// ACPI as the rest of the kernel sees it. Without ACPICA's sources acpi/absent.c stands for all of
// it.
#pragma once

#include "lib/types.h"

// Where AcpiOsMapMemory() maps: physical address p at VA_ACPI + p, for p below ACPI_PHYS_LIMIT.
#define ACPI_PHYS_LIMIT (UINT64_C(1) << 46)

// What ACPI needs of the kernel above it. The first four are those of kernel/ioapic.h.
struct ktf_acpi_machine {
    int (*ioapic_add)(paddr_t paddr, uint32_t gsi_base);
    void (*ioapic_remove_all)(void);
    int (*ioapic_route)(uint32_t gsi, bool level, bool low, void (*fn)(void));
    void (*ioapic_unroute)(uint32_t gsi);
    void (*idle_job)(void (*run)(void)); // CPUs with nothing to do call run; NULL: no longer
    paddr_t rsdp;                        // of the root pointer; 0: the boot loader gave none
};

/* Names the machine, which is not copied. Before ktf_acpi_start(). */
void ktf_acpi_init(const struct ktf_acpi_machine *machine);

/* Tables, namespace, ACPI mode, objects, interrupt model, power button. Prints what fails; the
 * kernel goes on without ACPI then. After smp_start(). */
void ktf_acpi_start(void);

/* The reverse: afterwards ACPI has no memory, no mapping and no interrupt, as before the start. */
void ktf_acpi_stop(void);

/* True between the two. */
bool ktf_acpi_running(void);

/* Runs what ACPI put off in an interrupt's handler. Idle CPUs do it, too. */
void ktf_acpi_work(void);

/* How often the power button was pressed so far. */
uint32_t ktf_acpi_presses(void);
/* From now on it powers the machine off. */
void ktf_acpi_button_ends(void);

/* Prints the tree of devices, a line each, and their number: `ACPI: N devices, M processor
 * objects`. Returns N. ACPI must be running for this and what follows. */
uint32_t ktf_acpi_print_devices(void);
/* Prints where the interrupts of each PCI bus go (_PRT), a line an entry, and their number, which
 * is returned. */
uint32_t ktf_acpi_print_routing(void);

#define ACPI_NO_GSI UINT32_MAX
/* The global number of the interrupt that pin 0 (A) to 3 (D) of a device on the root bus raises;
 * ACPI_NO_GSI if no table says it. */
uint32_t ktf_acpi_route(uint32_t device, uint32_t pin);

/* Powers the machine off (\_S5). Comes back, and says why, if that can't be done. */
void ktf_acpi_power_off(void);
