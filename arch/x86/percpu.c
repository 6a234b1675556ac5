// SPDX-License-Identifier: BSD-2-Clause
// What each CPU has of its own.
#include "arch/x86/percpu.h"

#include "arch/x86/cpu.h"

struct percpu percpu[CPU_MAX] __attribute__((aligned(64)));

void percpu_init(uint32_t number, const void *journal)
{
    struct percpu *p = &percpu[number];

    p->number = number;
    p->token = number + 1;
    p->others = ~(UINT64_C(1) << number);
    p->journal = (uintptr_t)journal;
    wrmsr(MSR_GS_BASE, (uintptr_t)p);
    wrmsr(MSR_KERNEL_GS_BASE, 0); // what ring 3 sees
}
