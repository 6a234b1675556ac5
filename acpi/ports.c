// SPDX-License-Identifier: BSD-2-Clause
// I/O ports for ACPICA.
#include "acpi/osl.h"

#include "arch/x86/cpu.h"

acpi_status acpi_os_read_port(acpi_io_address address, u32 *value, u32 width)
{
    uint16_t port = (uint16_t)address;

    if (address > UINT16_MAX)
        return AE_BAD_PARAMETER;
    switch (width) {
    case 8:
        *value = inb(port);
        return AE_OK;
    case 16:
        *value = inw(port);
        return AE_OK;
    case 32:
        *value = inl(port);
        return AE_OK;
    default:
        return AE_BAD_PARAMETER;
    }
}

acpi_status acpi_os_write_port(acpi_io_address address, u32 value, u32 width)
{
    uint16_t port = (uint16_t)address;

    if (address > UINT16_MAX)
        return AE_BAD_PARAMETER;
    switch (width) {
    case 8:
        outb(port, (uint8_t)value);
        return AE_OK;
    case 16:
        outw(port, (uint16_t)value);
        return AE_OK;
    case 32:
        outl(port, value);
        return AE_OK;
    default:
        return AE_BAD_PARAMETER;
    }
}
