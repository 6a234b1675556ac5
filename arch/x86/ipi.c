// SPDX-License-Identifier: BSD-2-Clause
// Interrupts from one CPU to others, and what the receiver does.
#include "arch/x86/ipi.h"

#include "arch/x86/apic.h"
#include "arch/x86/exit.h"
#include "arch/x86/percpu.h"
#include "arch/x86/traps.h"
#include "lib/panic.h"

bool ipi_ready;

static void send(uint32_t cpu, uint32_t vector)
{
    apic_send(percpu[cpu].apic_id, APIC_FIXED | APIC_ASSERT | vector);
}

void ipi_shootdown(uint64_t cpus)
{
    for (; cpus; cpus &= cpus - 1)
        send((uint32_t)__builtin_ctzll(cpus), VECTOR_SHOOTDOWN);
}

void ipi_wake(uint32_t cpu)
{
    send(cpu, VECTOR_WAKE);
}

void ipi_stop_others(void)
{
    apic_send(0, APIC_NMI | APIC_ASSERT | APIC_ALL_OTHERS);
}

bool ipi_handle(uint64_t vector)
{
    if (vector == VECTOR_NMI && panicking)
        machine_halt();
    if (vector == VECTOR_SHOOTDOWN)
        tlb_answer();
    else if (vector != VECTOR_WAKE && vector != VECTOR_ALARM) // these end a cpu_park()
        return false;
    apic_eoi();
    return true;
}
