// SPDX-License-Identifier: BSD-2-Clause
// The rest of the operating-system layer: start and end, memory for objects, text, and what can be
// overridden but is not.
#include "acpi/osl.h"

#include "arch/x86/cpu.h"
#include "lib/printk.h"
#include "mm/kmalloc/kmalloc.h"

// ACPICA's own formatter: its texts use more than printk() knows.
int vsnprintf(char *to, acpi_size size, const char *fmt, va_list args);

acpi_status acpi_os_initialize(void)
{
    return AE_OK; // all that is needed is there before ACPI starts
}

acpi_status acpi_os_terminate(void)
{
    return AE_OK; // ktf_acpi_stop() takes down what ktf_acpi_start() has set up
}

// The boot loader's copy; without one ACPICA looks where the BIOS leaves it.
acpi_physical_address acpi_os_get_root_pointer(void)
{
    acpi_physical_address found = osl_machine->rsdp.v;

    if (!found && ACPI_FAILURE(acpi_find_root_pointer(&found)))
        return 0;
    return found;
}

// Names and tables are taken as the firmware has them.
acpi_status acpi_os_predefined_override(const struct acpi_predefined_names *init_val,
                                        acpi_string *new_val)
{
    (void)init_val;
    *new_val = NULL;
    return AE_OK;
}

acpi_status acpi_os_table_override(struct acpi_table_header *existing_table,
                                   struct acpi_table_header **new_table)
{
    (void)existing_table;
    *new_table = NULL;
    return AE_OK;
}

acpi_status acpi_os_physical_table_override(struct acpi_table_header *existing_table,
                                            acpi_physical_address *new_address,
                                            u32 *new_table_length)
{
    (void)existing_table;
    *new_address = 0;
    *new_table_length = 0;
    return AE_OK;
}

void *acpi_os_allocate(acpi_size size)
{
    return kmalloc(size);
}

void acpi_os_free(void *memory)
{
    kfree(memory);
}

void acpi_os_vprintf(const char *format, va_list args)
{
    char text[256];
    int len = vsnprintf(text, sizeof(text), format, args);

    printk("%s%s", text, len >= (int)sizeof(text) ? "...\n" : "");
}

void acpi_os_printf(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    acpi_os_vprintf(format, args);
    va_end(args);
}

// The AML's Fatal and Breakpoint are printed. Fatal means that the firmware wants the machine off.
acpi_status acpi_os_signal(u32 function, void *info)
{
    const struct acpi_signal_fatal_info *fatal = info;

    if (function == ACPI_SIGNAL_FATAL && fatal)
        printk("ACPI: fatal error of the firmware: type 0x%x, code 0x%x, argument 0x%x\n",
               fatal->type, fatal->code, fatal->argument);
    else if (function == ACPI_SIGNAL_BREAKPOINT)
        printk("ACPI: breakpoint in AML: %s\n", info ? (const char *)info : "");
    return AE_OK;
}

// Nothing has to be done just before the registers are written.
acpi_status acpi_os_enter_sleep(u8 sleep_state, u32 rega_value, u32 regb_value)
{
    (void)sleep_state;
    (void)rega_value;
    (void)regb_value;
    return AE_OK;
}
