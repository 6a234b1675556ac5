// SPDX-License-Identifier: BSD-2-Clause
// panic(): evidence first, then stop.
#include "lib/panic.h"

#include "arch/x86/backtrace.h"
#include "arch/x86/cpu.h"
#include "arch/x86/exit.h"
#include "arch/x86/serial.h"
#include "lib/printk.h"

// What the debugger reads of it: the text of the first panic, empty if there was none.
char panic_message[256];

_Noreturn void panic(const char *fmt, ...)
{
    static bool again;
    va_list args;

    cli();
    if (again) {
        // The report itself went wrong: what it printed so far must do.
        serial_write("\npanic in panic\n", 16);
        machine_stop();
    }
    again = true;
    va_start(args, fmt);
    vsnprintk(panic_message, sizeof(panic_message), fmt, args);
    va_end(args);
    printk("\nPANIC: %s\n", panic_message);
    backtrace_print(0, (uintptr_t)__builtin_frame_address(0));
    machine_stop();
}
