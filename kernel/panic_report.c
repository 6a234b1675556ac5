// SPDX-License-Identifier: BSD-2-Clause
// The report of a panic: evidence first, then stop.
#include "kernel/panic_report.h"

#include "arch/x86/cpu.h"
#include "arch/x86/exit.h"
#include "arch/x86/ipi.h"
#include "arch/x86/percpu.h"
#include "arch/x86/vectors.h"
#include "kernel/backtrace.h"
#include "kernel/smp.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "mm/journal.h"

// How far the CPU that has the panic is.
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
            ipi_stop_others(smp_mask());
    } else if (none != cpu_token()) {
        ipi_stopped();
    } else if (step == REPORT) {
        step = GIVE_UP; // should this fail, too
        printk("\npanic in panic: %s at 0x%lx\n", what, rip);
        machine_stop();
    } else if (step == GIVE_UP) {
        machine_stop();
    }
    // Also after a fault in stopping the others: its backtrace leads to the first one.
    step = REPORT;
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

// Of panic(): the hook.
static _Noreturn void panicked(uint64_t rip, uint64_t rbp, const char *fmt, va_list args)
{
    cli();
    panic_begin("panic()", rip);
    report(rip, rbp, fmt, args);
}

_Noreturn void panic_from(uint64_t rip, uint64_t rbp, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    report(rip, rbp, fmt, args);
}

void panic_report_init(void)
{
    panic_hook = panicked;
}
