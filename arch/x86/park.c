// SPDX-License-Identifier: BSD-2-Clause
// CPUs that halt while they wait.
#include "arch/x86/park.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/ipi.h"
#include "arch/x86/percpu.h"
#include "arch/x86/tlb.h"

// Both sides of each pair below write one word and then read the other's, by locked instructions:
// so at least one of them sees what the other wrote.

void cpu_unpark(uint32_t cpu)
{
    struct percpu *p = &percpu[cpu];

    __atomic_exchange_n(&p->unparked, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&p->rest, __ATOMIC_SEQ_CST) & CPU_RESTS)
        ipi_wake(cpu);
}

void cpu_alarm(bool on)
{
    apic_alarm(on);
}

// Interrupts are off.
static void rest(struct percpu *me)
{
    uint32_t none = 0;

    tlb_flush_all();
    if (!__atomic_compare_exchange_n(&me->rest, &none, CPU_RESTS, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        tlb_answer();
        return;
    }
    if (!__atomic_exchange_n(&me->unparked, 0, __ATOMIC_SEQ_CST))
        __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory"); // no interrupt comes before the hlt
    cpu_awake();                                              // if no interrupt did
}

void cpu_park(void)
{
    struct percpu *me = this_cpu();
    uint64_t flags = interrupts_save();

    if (!(flags & RFLAGS_IF)) {
        tlb_answer();
        cpu_relax();
    } else if (!__atomic_exchange_n(&me->unparked, 0, __ATOMIC_SEQ_CST)) {
        rest(me);
    }
    interrupts_restore(flags);
}

void cpu_awake(void)
{
    struct percpu *me = this_cpu();

    if (!(me->rest & CPU_RESTS))
        return;
    if (__atomic_exchange_n(&me->rest, 0, __ATOMIC_SEQ_CST) & CPU_ASKED)
        tlb_flush_all();
}

bool cpu_ask(uint32_t cpu)
{
    return !(__atomic_fetch_or(&percpu[cpu].rest, CPU_ASKED, __ATOMIC_SEQ_CST) & CPU_RESTS);
}

bool cpu_asked(void)
{
    uint32_t *mine = &this_cpu()->rest;

    return __atomic_load_n(mine, __ATOMIC_ACQUIRE) & CPU_ASKED &&
           __atomic_fetch_and(mine, ~(uint32_t)CPU_ASKED, __ATOMIC_SEQ_CST) & CPU_ASKED;
}
