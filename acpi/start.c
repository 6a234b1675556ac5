// SPDX-License-Identifier: BSD-2-Clause
// Bringing ACPI up and down, the power button, and switching the machine off.
#include "acpi/osl.h"

#include "arch/x86/cpu.h"
#include "arch/x86/exit.h"
#include "arch/x86/tlb.h"
#include "lib/printk.h"

enum {
    SLEEP_OFF = 5, // \_S5
    MODEL_APIC = 1,
};

const struct ktf_acpi_machine *osl_machine;

static bool running;
static uint32_t presses;
static bool button_ends;

static bool failed(acpi_status status, const char *what)
{
    if (ACPI_FAILURE(status))
        printk("ACPI: %s: %s\n", what, acpi_format_exception(status));
    return ACPI_FAILURE(status);
}

/* --- the power button ------------------------------------------------------------------------- */

static void pressed(void *context)
{
    (void)context;
    __atomic_fetch_add(&presses, 1, __ATOMIC_RELEASE);
    printk("ACPI: the power button was pressed\n");
    if (button_ends)
        ktf_acpi_power_off();
}

// In the SCI's handler.
static u32 button_event(void *context)
{
    if (ACPI_FAILURE(acpi_os_execute(OSL_NOTIFY_HANDLER, pressed, context)))
        printk("ACPI: a press of the power button is lost\n");
    return ACPI_INTERRUPT_HANDLED;
}

uint32_t ktf_acpi_presses(void)
{
    return __atomic_load_n(&presses, __ATOMIC_ACQUIRE);
}

void ktf_acpi_button_ends(void)
{
    button_ends = true;
}

/* --- up and down ------------------------------------------------------------------------------ */

// Tells the firmware which interrupt controllers are in use; it may ignore it.
static void set_interrupt_model(void)
{
    union acpi_object model = {.integer = {.type = ACPI_TYPE_INTEGER, .value = MODEL_APIC}};
    struct acpi_object_list arguments = {1, &model};
    acpi_status status = acpi_evaluate_object(NULL, "\\_PIC", &arguments, NULL);

    if (status != AE_NOT_FOUND)
        failed(status, "\\_PIC");
}

static bool load(void)
{
    if (failed(acpi_initialize_subsystem(), "the subsystem can't be set up") ||
        failed(acpi_initialize_tables(NULL, 0, TRUE), "the tables can't be read"))
        return false;
    osl_pci_init(); // AML may read there as soon as it is loaded
    if (failed(acpi_load_tables(), "the namespace can't be built"))
        return false;
    osl_clock_calibrate();
    osl_map_registers();
    return !failed(osl_interrupts_init(), "no I/O APIC can be used");
}

static bool enable(void)
{
    if (failed(acpi_enable_subsystem(ACPI_FULL_INITIALIZATION), "ACPI mode can't be entered"))
        return false;
    set_interrupt_model();
    if (failed(acpi_initialize_objects(ACPI_FULL_INITIALIZATION), "objects can't be initialized"))
        return false;
    failed(acpi_install_fixed_event_handler(ACPI_EVENT_POWER_BUTTON, button_event, NULL),
           "the power button can't be used");
    return true;
}

void ktf_acpi_init(const struct ktf_acpi_machine *machine)
{
    osl_machine = machine;
}

void ktf_acpi_start(void)
{
    uint64_t start = rdtsc();

    if (!load() || !enable()) {
        printk("ACPI: goes without\n");
        ktf_acpi_stop();
        return;
    }
    running = true;
    printk("ACPI: running, after %lu us\n", (rdtsc() - start) / osl_clock_mhz());
}

bool ktf_acpi_running(void)
{
    return running;
}

void ktf_acpi_stop(void)
{
    running = false;
    acpi_os_wait_events_complete();
    acpi_remove_fixed_event_handler(ACPI_EVENT_POWER_BUTTON, button_event);
    osl_unmap_registers();
    failed(acpi_terminate(), "ACPI can't be taken down");
    osl_interrupts_fini();
    osl_pci_fini();
}

void ktf_acpi_power_off(void)
{
    uint64_t flags;

    if (!running) {
        printk("ACPI: not running: the machine can't be powered off\n");
        return;
    }
    if (failed(acpi_enter_sleep_state_prep(SLEEP_OFF), "\\_S5"))
        return;
    printk("ACPI: powering off\n");
    flags = interrupts_save(); // as ACPI wants it
    machine_end.kind = MACHINE_POWERS_OFF;
    failed(acpi_enter_sleep_state(SLEEP_OFF), "\\_S5");
    machine_end.kind = MACHINE_RUNS;
    interrupts_restore(flags);
}
