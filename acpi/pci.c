// SPDX-License-Identifier: BSD-2-Clause
// PCI configuration space for ACPICA: in memory where the MCFG says so, else through two ports.
#include "acpi/osl.h"

#include "arch/x86/cpu.h"
#include "lib/printk.h"

enum {
    CONFIG_ADDRESS = 0xcf8,
    CONFIG_DATA = 0xcfc,
    CONFIG_ENABLE = 1 << 31,
    PORT_REGISTERS = 256,  // of a function that the ports reach
    REGISTERS = PAGE_SIZE, // of one whose configuration space is in memory
    DEVICES = 32,
    FUNCTIONS = 8,
    SEGMENTS_MAX = 4,
};

// The functions of buses [first, last] of a segment: a page each from `base` on, bus 0 first.
struct segment {
    uint64_t base; // 0: there is none
    uint16_t number;
    uint8_t first, last;
};

static struct segment segment[SEGMENTS_MAX];
static struct acpi_lock port_lock; // two ports, one access

static uint64_t bus_base(const struct segment *s, unsigned bus)
{
    return s->base + ((uint64_t)bus * DEVICES * FUNCTIONS << PAGE_SHIFT);
}

static void add(const struct acpi_mcfg_allocation *a)
{
    for (unsigned i = 0; i < SEGMENTS_MAX; i++) {
        if (segment[i].base)
            continue;
        segment[i] =
            (struct segment){a->address, a->pci_segment, a->start_bus_number, a->end_bus_number};
        // The boot map lists it as reserved, if at all.
        osl_uncached_add(PADDR(bus_base(&segment[i], a->start_bus_number)),
                         PADDR(bus_base(&segment[i], a->end_bus_number + 1)));
        return;
    }
    printk("ACPI: more than %d PCI segments in memory, one is left out\n", SEGMENTS_MAX);
}

void osl_pci_init(void)
{
    struct acpi_table_header *table;
    const struct acpi_mcfg_allocation *a;

    if (ACPI_FAILURE(acpi_get_table(ACPI_SIG_MCFG, 1, &table)))
        return;
    a = (const void *)((const char *)table + sizeof(struct acpi_table_mcfg));
    for (; (const char *)(a + 1) <= (const char *)table + table->length; a++)
        add(a);
    acpi_put_table(table);
}

void osl_pci_fini(void)
{
    for (unsigned i = 0; i < SEGMENTS_MAX; i++)
        segment[i] = (struct segment){0};
}

static uint64_t in_memory(const struct acpi_pci_id *id)
{
    for (unsigned i = 0; i < SEGMENTS_MAX; i++) {
        const struct segment *s = &segment[i];

        if (s->base && s->number == id->segment && id->bus >= s->first && id->bus <= s->last)
            return bus_base(s, id->bus) +
                   ((uint64_t)(id->device * FUNCTIONS + id->function) << PAGE_SHIFT);
    }
    return 0;
}

static bool is_register(const struct acpi_pci_id *id, u32 reg, u32 width)
{
    return (width == 8 || width == 16 || width == 32) && reg % (width / 8) == 0 &&
           reg < REGISTERS && id->bus < 256 && id->device < DEVICES && id->function < FUNCTIONS;
}

static uint16_t select(const struct acpi_pci_id *id, u32 reg)
{
    outl(CONFIG_ADDRESS, (uint32_t)CONFIG_ENABLE | (uint32_t)id->bus << 16 |
                             (uint32_t)id->device << 11 | (uint32_t)id->function << 8 |
                             (reg & 0xfc));
    return (uint16_t)(CONFIG_DATA + (reg & 3));
}

static acpi_status access_port(const struct acpi_pci_id *id, u32 reg, u64 *value, u32 width,
                               bool write)
{
    u32 narrow = write ? (u32)*value : 0;
    acpi_status status;
    uint64_t flags;
    uint16_t port;

    if (id->segment != 0 || reg >= PORT_REGISTERS)
        return AE_NOT_EXIST;
    flags = osl_lock(&port_lock);
    port = select(id, reg);
    status =
        write ? acpi_os_write_port(port, narrow, width) : acpi_os_read_port(port, &narrow, width);
    osl_unlock(&port_lock, flags);
    *value = narrow;
    return status;
}

static acpi_status access(const struct acpi_pci_id *id, u32 reg, u64 *value, u32 width, bool write)
{
    uint64_t page;

    if (!is_register(id, reg, width))
        return AE_BAD_PARAMETER;
    page = in_memory(id);
    if (!page)
        return access_port(id, reg, value, width, write);
    return write ? acpi_os_write_memory(page + reg, *value, width)
                 : acpi_os_read_memory(page + reg, value, width);
}

acpi_status acpi_os_read_pci_configuration(struct acpi_pci_id *pci_id, u32 reg, u64 *value,
                                           u32 width)
{
    return access(pci_id, reg, value, width, false);
}

acpi_status acpi_os_write_pci_configuration(struct acpi_pci_id *pci_id, u32 reg, u64 value,
                                            u32 width)
{
    return access(pci_id, reg, &value, width, true);
}
