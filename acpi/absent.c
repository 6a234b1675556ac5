// SPDX-License-Identifier: BSD-2-Clause
// Stands for ACPI in a kernel that was built without ACPICA's sources.
#include "acpi/ktf_acpi.h"

#include "lib/printk.h"

void ktf_acpi_init(const struct ktf_acpi_machine *machine)
{
    (void)machine;
}

void ktf_acpi_start(void)
{
    printk("ACPI: not built in: ACPICA's sources were not there (`make packages`, then `make`)\n");
}

void ktf_acpi_stop(void)
{
}

bool ktf_acpi_running(void)
{
    return false;
}

void ktf_acpi_work(void)
{
}

uint32_t ktf_acpi_presses(void)
{
    return 0;
}

void ktf_acpi_button_ends(void)
{
}

uint32_t ktf_acpi_print_devices(void)
{
    return 0;
}

uint32_t ktf_acpi_print_routing(void)
{
    return 0;
}

uint32_t ktf_acpi_route(uint32_t device, uint32_t pin)
{
    (void)device;
    (void)pin;
    return ACPI_NO_GSI;
}

void ktf_acpi_power_off(void)
{
    printk("ACPI: not built in: the machine can't be powered off\n");
}
