// SPDX-License-Identifier: BSD-2-Clause
// panic(): evidence first, then stop.
#include "lib/panic.h"

#include "arch/x86/cpu.h"
#include "arch/x86/exit.h"
#include "arch/x86/ipi.h"
#include "arch/x86/percpu.h"
#include "kernel/backtrace.h"
#include "kernel/traps.h"
#include "lib/printk.h"
#include "mm/journal.h"

char panic_message[256];
uint32_t panic_owner;
struct panic_record panic_record;

// How far the CPU that has the panic has come.
static enum { STOP_OTHERS, REPORT, GIVE_UP } step;

void panic_begin(const char *what, uint64_t rip)
{
    uint32_t none = 0;

    if (__atomic_compare_exchange_n(&panic_owner, &none, cpu_token(), false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
        // Before the others are stopped, which may end the machine.
        panic_record.cpu = cpu_number();
        panic_record.caller = rip;
        if (ipi_ready)
            ipi_stop_others();
    } else if (none != cpu_token()) {
        ipi_stopped();
    } else if (step == REPORT) {
        step = GIVE_UP; // should that not go well either
        printk("\npanic in panic: %s at 0x%lx\n", what, rip);
        machine_stop();
    } else if (step == GIVE_UP) {
        machine_stop();
    }
    step =
        REPORT; // also after a fault in stopping the others: its backtrace leads to the first one
}

static _Noreturn void report(uint64_t rip, uint64_t rbp, const char *fmt, va_list args)
{
    vsnprintk(panic_message, sizeof(panic_message), fmt, args);
    if (!panic_message[0]) // which would say that there was no panic
        snprintk(panic_message, sizeof(panic_message), "without a word");
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
    uint64_t caller = (uintptr_t)__builtin_return_address(0);
    va_list args;

    cli();
    panic_begin("panic()", caller);
    va_start(args, fmt);
    report(caller, (uintptr_t)__builtin_frame_address(0), fmt, args);
}

_Noreturn void panic_from(uint64_t rip, uint64_t rbp, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    report(rip, rbp, fmt, args);
}
