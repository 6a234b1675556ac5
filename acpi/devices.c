// SPDX-License-Identifier: BSD-2-Clause
// What ACPI knows of the machine: the tree of its devices, and where PCI's interrupts go.
#include "acpi/osl.h"

#include "lib/error.h"
#include "lib/printk.h"

enum {
    PATH_MAX = 128, // of a name; longer ones are left out of the tree, and printed
    PINS = 4,       // A to D
    ADDRESS_DEVICE_SHIFT = 16,
    STATUS_DEFAULT = 0xf, // of a device without _STA: present and working
};

// A name's text.
struct path {
    char text[PATH_MAX];
};

static bool path_of(acpi_handle handle, struct path *path)
{
    struct acpi_buffer to = {sizeof(path->text), path->text};
    acpi_status status = acpi_get_name(handle, ACPI_FULL_PATHNAME_NO_TRAILING, &to);

    if (ACPI_FAILURE(status))
        printk("ACPI: a name can't be told: %s\n", acpi_format_exception(status));
    return ACPI_SUCCESS(status);
}

/* --- the tree --------------------------------------------------------------------------------- */

static bool evaluate_integer(acpi_handle handle, char *name, uint64_t *value)
{
    union acpi_object object;
    struct acpi_buffer to = {sizeof(object), &object};

    if (ACPI_FAILURE(acpi_evaluate_object_typed(handle, name, NULL, &to, ACPI_TYPE_INTEGER)))
        return false;
    *value = object.integer.value;
    return true;
}

static void print_device(acpi_handle handle, u32 depth)
{
    struct acpi_device_info *info;
    uint64_t status = STATUS_DEFAULT;
    struct path path;

    if (!path_of(handle, &path) || ACPI_FAILURE(acpi_get_object_info(handle, &info)))
        return;
    (void)evaluate_integer(handle, "_STA", &status);
    printk("ACPI: %*s%s", (int)(2 * depth), "", path.text);
    if (info->valid & ACPI_VALID_HID)
        printk(" %s", info->hardware_id.string);
    if (info->valid & ACPI_VALID_UID)
        printk(" uid %s", info->unique_id.string);
    if (info->valid & ACPI_VALID_ADR)
        printk(" address 0x%lx", (uint64_t)info->address);
    printk(" status 0x%lx\n", status);
    ACPI_FREE(info);
}

// The two that ACPICA makes itself are scopes.
static bool is_scope(acpi_handle handle)
{
    struct path path;

    return path_of(handle, &path) && (!strcmp(path.text, "\\_SB") || !strcmp(path.text, "\\_TZ"));
}

static acpi_status count_device(acpi_handle handle, u32 depth, void *count, void **unused)
{
    (void)unused;
    if (is_scope(handle))
        return AE_OK;
    print_device(handle, depth - 1);
    ++*(uint32_t *)count;
    return AE_OK;
}

uint32_t ktf_acpi_print_devices(void)
{
    uint32_t devices = 0, processors = 0;
    acpi_status status = acpi_walk_namespace(ACPI_TYPE_DEVICE, ACPI_ROOT_OBJECT, UINT32_MAX,
                                             count_device, NULL, &devices, NULL);

    if (ACPI_SUCCESS(status))
        status = acpi_walk_namespace(ACPI_TYPE_PROCESSOR, ACPI_ROOT_OBJECT, UINT32_MAX,
                                     count_device, NULL, &processors, NULL);
    if (ACPI_FAILURE(status))
        printk("ACPI: the tree can't be walked: %s\n", acpi_format_exception(status));
    printk("ACPI: %u devices, %u processor objects\n", devices, processors);
    return devices;
}

/* --- interrupt routing ------------------------------------------------------------------------ */

// The first interrupt of a link's current resources.
static acpi_status first_irq(struct acpi_resource *resource, void *context)
{
    uint32_t *gsi = context;

    if (resource->type == ACPI_RESOURCE_TYPE_IRQ && resource->data.irq.interrupt_count)
        *gsi = osl_irq_gsi(resource->data.irq.interrupts[0]);
    else if (resource->type == ACPI_RESOURCE_TYPE_EXTENDED_IRQ &&
             resource->data.extended_irq.interrupt_count)
        *gsi = resource->data.extended_irq.interrupts[0];
    else
        return AE_OK;
    return AE_CTRL_TERMINATE;
}

static uint32_t gsi_of(acpi_handle bus, struct acpi_pci_routing_table *entry)
{
    uint32_t gsi = ACPI_NO_GSI;
    acpi_handle link;

    if (!entry->source[0])
        return entry->source_index;
    if (ACPI_SUCCESS(acpi_get_handle(bus, entry->source, &link)))
        (void)acpi_walk_resources(link, METHOD_NAME__CRS, first_irq, &gsi);
    return gsi;
}

// What is done with each entry of each _PRT.
struct routing {
    void (*fn)(struct routing *r, const char *bus, uint32_t device, uint32_t pin, uint32_t gsi);
    uint32_t entries;
    uint32_t device, pin; // that is looked for
    uint32_t gsi;
};

static acpi_status walk_bus(acpi_handle bus, u32 depth, void *context, void **unused)
{
    struct acpi_buffer table = {ACPI_ALLOCATE_BUFFER, NULL};
    struct routing *r = context;
    struct path path;

    (void)depth;
    (void)unused;
    if (ACPI_FAILURE(acpi_get_irq_routing_table(bus, &table)))
        return AE_OK; // no bridge
    if (path_of(bus, &path)) {
        for (struct acpi_pci_routing_table *e = table.pointer; e->length;
             e = (void *)((char *)e + e->length)) {
            r->fn(r, path.text, (uint32_t)(e->address >> ADDRESS_DEVICE_SHIFT), e->pin,
                  gsi_of(bus, e));
            r->entries++;
        }
    }
    ACPI_FREE(table.pointer);
    return AE_OK;
}

static void print_entry(struct routing *r, const char *bus, uint32_t device, uint32_t pin,
                        uint32_t gsi)
{
    (void)r;
    if (pin < PINS && gsi != ACPI_NO_GSI)
        printk("ACPI: %s device %u pin %c: interrupt %u\n", bus, device, "ABCD"[pin], gsi);
    else
        printk("ACPI: %s device %u pin %u: no interrupt\n", bus, device, pin);
}

static void match_entry(struct routing *r, const char *bus, uint32_t device, uint32_t pin,
                        uint32_t gsi)
{
    // The root bridge alone: a bus behind it is a bus of its own.
    if (device == r->device && pin == r->pin && !strcmp(bus, "\\_SB.PCI0"))
        r->gsi = gsi;
}

static void walk(struct routing *r)
{
    acpi_status status = acpi_walk_namespace(ACPI_TYPE_DEVICE, ACPI_ROOT_OBJECT, UINT32_MAX,
                                             walk_bus, NULL, r, NULL);

    if (ACPI_FAILURE(status))
        printk("ACPI: interrupt routing can't be read: %s\n", acpi_format_exception(status));
}

uint32_t ktf_acpi_print_routing(void)
{
    struct routing r = {.fn = print_entry};

    walk(&r);
    printk("ACPI: %u entries of interrupt routing\n", r.entries);
    return r.entries;
}

uint32_t ktf_acpi_route(uint32_t device, uint32_t pin)
{
    struct routing r = {.fn = match_entry, .device = device, .pin = pin, .gsi = ACPI_NO_GSI};

    walk(&r);
    return r.gsi;
}
