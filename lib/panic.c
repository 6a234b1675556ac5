// SPDX-License-Identifier: BSD-2-Clause
// panic(): evidence first, then stop.
#include "lib/panic.h"

#include "arch/x86/backtrace.h"
#include "arch/x86/cpu.h"
#include "arch/x86/exit.h"
#include "arch/x86/ipi.h"
#include "arch/x86/percpu.h"
#include "arch/x86/serial.h"
#include "arch/x86/traps.h"
#include "lib/printk.h"
#include "mm/journal.h"

char panic_message[256];
bool panicking;
struct panic_record panic_record;

static _Noreturn void report(uint64_t rip, uint64_t rbp, const char *fmt, va_list args)
{
    static const char in_panic[] = "\npanic in panic\n";
    static uint32_t first; // token of the CPU that panicked first
    uint32_t none = 0;

    cli();
    if (!__atomic_compare_exchange_n(&first, &none, cpu_token(), false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        if (none != cpu_token())
            machine_halt(); // the first one reports and stops the machine
        // The report itself went wrong: what it printed so far must do.
        serial_write(in_panic, sizeof(in_panic) - 1);
        machine_stop();
    }
    panicking = true;
    if (panic_record.frame == NULL) {
        panic_record.cpu = cpu_number();
        panic_record.caller = rip;
    }
    if (ipi_ready)
        ipi_stop_others();
    vsnprintk(panic_message, sizeof(panic_message), fmt, args);
    printk("\nPANIC: %s\n", panic_message);
    if (ipi_ready)
        printk("on CPU %u\n", cpu_number());
    backtrace_print(panic_record.frame != NULL ? rip : 0, rbp);
    if (panic_record.vector == VECTOR_PF)
        journal_print_page(VADDR(panic_record.address));
    machine_stop();
}

_Noreturn void panic(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    report((uintptr_t)__builtin_return_address(0), (uintptr_t)__builtin_frame_address(0), fmt,
           args);
}

_Noreturn void panic_from(uint64_t rip, uint64_t rbp, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    report(rip, rbp, fmt, args);
}
