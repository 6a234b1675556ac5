// SPDX-License-Identifier: BSD-2-Clause
// kernel_main: from the boot loader's hand-over to ktf_ready(), and what the command line asks for
// around it.
#include "acpi/ktf_acpi.h"
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/exit.h"
#include "arch/x86/layout.h"
#include "arch/x86/percpu.h"
#include "boot/bootinfo.h"
#include "boot/cmdline.h"
#include "boot/fw_cfg.h"
#include "boot/image.h"
#include "boot/multiboot2.h"
#include "kernel/apic_map.h"
#include "kernel/check_cpu.h"
#include "kernel/console.h"
#include "kernel/gdt.h"
#include "kernel/idt.h"
#include "kernel/image.h"
#include "kernel/ioapic.h"
#include "kernel/panic_report.h"
#include "kernel/smp.h"
#include "kernel/stack.h"
#include "kernel/words.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/journal.h"
#include "mm/mm.h"

void kernel_main(uint64_t mbi);
void ktf_ready(void);

/* Everything is up. Empty, called once: the place for a breakpoint. */
__attribute__((noinline, used)) void ktf_ready(void)
{
    __asm__ volatile("" : : : "memory"); // keeps the call
}

static const char *mem_type_name(uint32_t type)
{
    static const char *const names[] = {
        [BOOT_MEM_AVAILABLE] = "available",
        [BOOT_MEM_RESERVED] = "reserved",
        [BOOT_MEM_ACPI] = "ACPI tables",
        [BOOT_MEM_NVS] = "ACPI NVS",
        [BOOT_MEM_BAD] = "bad",
    };

    return type < ARRAY_SIZE(names) && names[type] != NULL ? names[type]
                                                           : "reserved (unknown type)";
}

_Static_assert(VA_IMAGE == 0xffffffff80000000, "as kernel.ld has it");

static void print_boot_info(void)
{
    const struct boot_info *bi = &boot_info;

    printk("command line: '%s'\n", bi->cmdline);
    for (uint32_t i = 0; i < bi->mem_count; i++) {
        const struct boot_mem *m = &bi->mem[i];

        printk("memory map: 0x%012lx %12lu KiB %s\n", m->start.v, m->bytes >> 10,
               mem_type_name(m->type));
    }
    for (uint32_t i = 0; i < bi->module_count; i++)
        printk("module: 0x%lx to 0x%lx '%s'\n", bi->module[i].start.v, bi->module[i].end.v,
               bi->module[i].name);
}

// check-every=N: the self-check after every N-th operation.
static void check_every_word(void)
{
    char text[16];
    uint32_t n = 0;

    if (!cmdline_get("check-every", text, sizeof(text)))
        return;
    for (const char *p = text; *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (uint32_t)(*p - '0');
    printk("mm_check() after every %u operations\n", n);
    mm_check_every(n);
}

static void devices_init(void)
{
    int err;

    pic_mask();
    err = apic_map();
    if (err != 0)
        panic("the local APIC can't be mapped: %s", error_name(err));
    apic_enable();
}

static void check_word(const char *none, struct verdict *verdict)
{
    int violations = mm_check();

    (void)none;
    printk("mm_check(): %d violations\n", violations);
    verdict->failed |= violations != 0;
    verdict->watched = true;
}

WORD(40_check) = {"check", check_word, .time = WORD_AFTER_READY};
WORD(80_check_every) = {"check-every", NULL, .time = WORD_READ, .takes_value = true};
WORD(80_acpi) = {"acpi", NULL, .time = WORD_READ, .takes_value = true};
WORD(80_power_off) = {"power-off", NULL, .time = WORD_READ};
WORD(80_power_button) = {"power-button", NULL, .time = WORD_READ};

static void acpi_start(void)
{
    static struct ktf_acpi_machine machine = {
        .ioapic_add = ioapic_add,
        .ioapic_remove_all = ioapic_remove_all,
        .ioapic_route = ioapic_route,
        .ioapic_unroute = ioapic_unroute,
        .idle_job = smp_idle_job,
    };

    machine.rsdp = boot_info.rsdp;
    ktf_acpi_init(&machine);
    if (!cmdline_has("acpi=off"))
        ktf_acpi_start();
}

// On the guarded stack, and on it to the end.
static _Noreturn void kernel_late(void)
{
    struct verdict verdict = {false, false};

    tss_init();
    idt_use_ist();
    devices_init();
    smp_start();
    acpi_start();
    mm_print();
    words_run(WORD_BEFORE_READY, &verdict);
    printk("KTF is ready: %u CPU%s, %lu KiB free\n", smp_count(), smp_count() == 1 ? "" : "s",
           mm_free_pages() * (PAGE_SIZE / 1024));
    ktf_ready();
    words_run(WORD_AFTER_READY, &verdict);
    if (!verdict.failed && cmdline_has("power-off"))
        ktf_acpi_power_off();
    // A script that gives power-button presses it now.
    if (verdict.watched && (verdict.failed || !cmdline_has("power-button")))
        machine_exit(!verdict.failed);
    printk("Nothing left to do: halted. Ctrl-A x ends QEMU where it has this terminal "
           "(-nographic).\n");
    ktf_acpi_button_ends();
    smp_idle_loop();
}

void kernel_main(uint64_t mbi)
{
    percpu_init(0, journal_ring[0]);
    console_init();
    panic_report_init();
    gdt_init();
    idt_init();
    printk("\nKTF memory manager, image at 0x%lx to 0x%lx\n", (uintptr_t)image_boot_start,
           (uintptr_t)image_bss_end - VA_IMAGE);
    multiboot2_init(PADDR(mbi));
    fw_cfg_read("opt/ktf/cmdline", boot_info.cmdline, sizeof(boot_info.cmdline));
    if (words_watched())
        machine_exit_wanted();
    print_boot_info();
    cmdline_check(word_known);
    cpu_init();
    check_cpu_init();
    mm_init(&boot_info, image_part, IMAGE_PARTS);
    check_every_word();
    cpu_stacks_create(0);
    stack_switch(cpu_stack(0), kernel_late);
}
