// SPDX-License-Identifier: BSD-2-Clause
// How the guest ends.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * How the kernel asks for the machine's end, written just before it does: a debugger sees the same
 * stopped machine after each. It means nothing while the machine still runs. status, success:
 * QEMU's exit status, and what it stands for; of MACHINE_EXITS.
 */
enum machine_end_kind {
    MACHINE_RUNS,
    MACHINE_EXITS,      // by isa-debug-exit
    MACHINE_POWERS_OFF, // by ACPI's S5
};

struct machine_end {
    enum machine_end_kind kind;
    uint32_t status;
    bool success;
};

extern volatile struct machine_end machine_end;

/*
 * Ends the guest by QEMU's isa-debug-exit: status 33 for success, 35 for failure. Halts for good
 * where there is no such device.
 */
_Noreturn void machine_exit(bool success);

/* Halts this CPU for good, for a debugger to read. */
_Noreturn void machine_halt(void);

/* This run is watched by a script: machine_stop() shall end the guest as a failure instead of
 * halting it. */
void machine_exit_wanted(void);

/* Tells QEMU of a panic and halts this CPU, without a look at memory. */
_Noreturn void machine_stop_bare(void);

/* Stops after a fault or a panic: machine_exit(false) if wanted, else QEMU is notified by pvpanic
 * device, if there is one, and the CPU halts. */
_Noreturn void machine_stop(void);
