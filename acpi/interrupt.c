// SPDX-License-Identifier: BSD-2-Clause
// The system control interrupt for ACPICA, through the I/O APIC that the MADT names.
#include "acpi/osl.h"

#include "arch/x86/percpu.h"
#include "arch/x86/tlb.h"
#include "lib/error.h"
#include "lib/printk.h"

static struct {
    acpi_osd_handler handler; // NULL while there is none
    void *context;
    uint32_t irq; // as ACPICA named it
    uint32_t gsi;
} sci;
static bool handling[CPU_MAX];

bool osl_in_interrupt(void)
{
    return handling[cpu_number()];
}

static void handle(void)
{
    bool *mine = &handling[cpu_number()];

    __atomic_store_n(mine, true, __ATOMIC_SEQ_CST);
    if (sci.handler)
        sci.handler(sci.context);
    __atomic_store_n(mine, false, __ATOMIC_RELEASE);
}

// On another CPU the handler may still be at work with what its caller is about to take away.
static void wait_until_handled(void)
{
    for (uint32_t cpu = 0; cpu < CPU_MAX; cpu++) {
        while (cpu != cpu_number() && __atomic_load_n(&handling[cpu], __ATOMIC_ACQUIRE)) {
            tlb_answer();
            cpu_relax();
        }
    }
}

/* --- the MADT --------------------------------------------------------------------------------- */

// Calls fn for each entry of that type until it returns true.
static void madt_walk(uint8_t type, bool (*fn)(const void *entry, void *context), void *context)
{
    struct acpi_table_header *table;
    const char *p, *end;

    if (ACPI_FAILURE(acpi_get_table(ACPI_SIG_MADT, 1, &table)))
        return;
    p = (const char *)table + sizeof(struct acpi_table_madt);
    end = (const char *)table + table->length;
    while (end - p >= (ptrdiff_t)sizeof(struct acpi_subtable_header)) {
        const struct acpi_subtable_header *entry = (const void *)p;

        if (entry->length < sizeof(*entry) || entry->length > end - p)
            break; // damaged
        if (entry->type == type && fn(entry, context))
            break;
        p += entry->length;
    }
    acpi_put_table(table);
}

static bool map_ioapic(const void *entry, void *context)
{
    const struct acpi_madt_io_apic *io = entry;
    int err = osl_machine->ioapic_add(PADDR(io->address), io->global_irq_base);

    if (err)
        printk("ACPI: the I/O APIC at 0x%x can't be used: %s\n", io->address, error_name(err));
    else
        ++*(unsigned *)context;
    return false;
}

acpi_status osl_interrupts_init(void)
{
    unsigned count = 0;

    madt_walk(ACPI_MADT_TYPE_IO_APIC, map_ioapic, &count);
    return count ? AE_OK : AE_NOT_EXIST;
}

void osl_interrupts_fini(void)
{
    osl_machine->ioapic_remove_all();
}

struct line {
    uint32_t irq; // as the FADT has it
    uint32_t gsi;
    bool level, low;
};

static bool override(const void *entry, void *context)
{
    const struct acpi_madt_interrupt_override *o = entry;
    struct line *line = context;

    if (o->bus != 0 || o->source_irq != line->irq)
        return false;
    line->gsi = o->global_irq;
    if ((o->inti_flags & ACPI_MADT_POLARITY_MASK) != ACPI_MADT_POLARITY_CONFORMS)
        line->low = (o->inti_flags & ACPI_MADT_POLARITY_MASK) == ACPI_MADT_POLARITY_ACTIVE_LOW;
    if ((o->inti_flags & ACPI_MADT_TRIGGER_MASK) != ACPI_MADT_TRIGGER_CONFORMS)
        line->level = (o->inti_flags & ACPI_MADT_TRIGGER_MASK) == ACPI_MADT_TRIGGER_LEVEL;
    return true;
}

uint32_t osl_irq_gsi(uint32_t irq)
{
    struct line line = {.irq = irq, .gsi = irq};

    madt_walk(ACPI_MADT_TYPE_INTERRUPT_OVERRIDE, override, &line);
    return line.gsi;
}

// The only interrupt that ACPICA asks for. Level and low unless the MADT says otherwise
// (ACPI 5.2.9).
acpi_status acpi_os_install_interrupt_handler(u32 interrupt_number,
                                              acpi_osd_handler service_routine, void *context)
{
    struct line line = {
        .irq = interrupt_number, .gsi = interrupt_number, .level = true, .low = true};
    int err;

    if (!service_routine)
        return AE_BAD_PARAMETER;
    if (sci.handler)
        return AE_ALREADY_EXISTS;
    madt_walk(ACPI_MADT_TYPE_INTERRUPT_OVERRIDE, override, &line);
    sci.context = context;
    sci.irq = interrupt_number;
    sci.gsi = line.gsi;
    sci.handler = service_routine;
    err = osl_machine->ioapic_route(line.gsi, line.level, line.low, handle);
    if (err) {
        printk("ACPI: interrupt %u can't be routed: %s\n", line.gsi, error_name(err));
        sci.handler = NULL;
        return AE_NOT_EXIST;
    }
    return AE_OK;
}

acpi_status acpi_os_remove_interrupt_handler(u32 interrupt_number, acpi_osd_handler service_routine)
{
    if (!service_routine)
        return AE_BAD_PARAMETER;
    if (sci.handler != service_routine || sci.irq != interrupt_number)
        return AE_NOT_EXIST;
    osl_machine->ioapic_unroute(sci.gsi);
    wait_until_handled();
    sci.handler = NULL;
    return AE_OK;
}
