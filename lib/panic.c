// SPDX-License-Identifier: BSD-2-Clause
// panic(): evidence first, then stop.
#include "lib/panic.h"

#include "arch/x86/backtrace.h"
#include "arch/x86/cpu.h"
#include "arch/x86/exit.h"
#include "arch/x86/serial.h"
#include "lib/printk.h"

char panic_message[256];

static _Noreturn void report(uint64_t rip, uint64_t rbp, const char *fmt, va_list args)
{
    static const char in_panic[] = "\npanic in panic\n";
    static bool again;

    cli();
    if (again) {
        // The report itself went wrong: what it printed so far must do.
        serial_write(in_panic, sizeof(in_panic) - 1);
        machine_stop();
    }
    again = true;
    vsnprintk(panic_message, sizeof(panic_message), fmt, args);
    printk("\nPANIC: %s\n", panic_message);
    backtrace_print(rip, rbp);
    machine_stop();
}

_Noreturn void panic(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    report(0, (uintptr_t)__builtin_frame_address(0), fmt, args);
}

_Noreturn void panic_from(uint64_t rip, uint64_t rbp, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    report(rip, rbp, fmt, args);
}
