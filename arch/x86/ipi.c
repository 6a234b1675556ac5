// SPDX-License-Identifier: BSD-2-Clause
// Interrupts from one CPU to others, and what the receiver does.
#include "arch/x86/ipi.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/percpu.h"
#include "arch/x86/tlb.h"
#include "arch/x86/vectors.h"
#include "lib/panic.h"

enum {
    STOP_SPINS = 2000000,
};

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

// Mask of the CPUs that have stopped.
static uint64_t stopped;

void ipi_stop_others(uint64_t cpus)
{
    uint64_t others = cpus & cpu_others();

    apic_send(0, APIC_NMI | APIC_ASSERT | APIC_ALL_OTHERS);
    // The panic does not wait for ever: a CPU whose handlers are broken never stops.
    for (unsigned spins = STOP_SPINS;
         spins > 0 && others & ~__atomic_load_n(&stopped, __ATOMIC_RELAXED); spins--)
        cpu_pause();
}

_Noreturn void ipi_stopped(void)
{
    __atomic_fetch_or(&stopped, ~cpu_others(), __ATOMIC_SEQ_CST);
    cpu_halt();
}

bool ipi_handle(uint64_t vector)
{
    if (vector == VECTOR_NMI && panicking()) {
        if (panic_owner != cpu_token())
            ipi_stopped();
        return true; // somebody presses a button; the report goes on
    }
    if (vector == VECTOR_SHOOTDOWN)
        tlb_answer();
    else if (vector != VECTOR_WAKE && vector != VECTOR_ALARM) // these end a cpu_park()
        return false;
    apic_eoi();
    return true;
}
