// SPDX-License-Identifier: BSD-2-Clause
// How the guest ends: by QEMU's isa-debug-exit, or halted and left for the debugger.
#include "arch/x86/exit.h"

#include "arch/x86/cpu.h"

enum {
    DEBUG_EXIT_PORT = 0xf4,
    // QEMU's exit status is twice this plus 1: never 0, which a mere power-off would give too.
    DEBUG_EXIT_SUCCESS = 0x10,
    DEBUG_EXIT_FAILURE = 0x11,
    PVPANIC_PORT = 0x505,
    PVPANIC_PANICKED = 1 << 0, // the event that the device reports to QEMU
    NO_DEVICE = 0xff,          // what a port without one reads as
};

static bool exit_wanted;

volatile struct machine_end machine_end;

_Noreturn void machine_halt(void)
{
    cpu_halt();
}

_Noreturn void machine_exit(bool success)
{
    uint8_t code = success ? DEBUG_EXIT_SUCCESS : DEBUG_EXIT_FAILURE;

    machine_end.status = 2u * code + 1;
    machine_end.success = success;
    machine_end.kind = MACHINE_EXITS;
    outb(DEBUG_EXIT_PORT, code);
    machine_halt();
}

void machine_exit_wanted(void)
{
    exit_wanted = true;
}

// QEMU's pvpanic device (docs/specs/pvpanic) stops the machine and tells who watches it.
static void tell_panic(void)
{
    uint8_t events = inb(PVPANIC_PORT);

    if (events != NO_DEVICE && (events & PVPANIC_PANICKED))
        outb(PVPANIC_PORT, PVPANIC_PANICKED);
}

_Noreturn void machine_stop_bare(void)
{
    tell_panic();
    machine_halt();
}

_Noreturn void machine_stop(void)
{
    if (exit_wanted)
        machine_exit(false);
    machine_stop_bare();
}
