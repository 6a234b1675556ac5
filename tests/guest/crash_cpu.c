// SPDX-License-Identifier: BSD-2-Clause
// Bugs in what the processor itself needs: its gates, the top of the page tables, where it goes on.
#include "tests/guest/crash.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "mm/table.h"
#include "kernel/idt.h"
#include "kernel/smp.h"
#include "kernel/stack.h"
#include "lib/panic.h"
#include "lib/string.h"

// No gate is left, not even that of the double fault.
static __attribute__((noinline)) void divide_without_idt(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) nothing = {0, 0};
    volatile int zero = 0, one = 1;

    __asm__ volatile("lidt %0" : : "m"(nothing));
    one = one / zero;
}

static void on_last_cpu(void *arg)
{
    (void)arg;
    divide_without_idt();
}

void crash_no_idt(void)
{
    uint32_t last = smp_count() - 1;

    if (last == 0)
        divide_without_idt();
    smp_run(last, on_last_cpu, NULL);
    smp_wait(last);
}

// The panic prints a string that is none, which is a fault that nobody takes.
void crash_dead_report(void)
{
    crash_unmap(ptr_vaddr(idt));
    panic("it is %s", (const char *)16);
}

// A wild store at the very top, which shows when the TLB is flushed.
void crash_root_entry(void)
{
    struct pt_walk w;

    pt_walk(kernel_space(), ptr_vaddr(idt), 4, &w);
    table_entries(w.slot)[w.index] = 0;
    write_cr3(read_cr3());
}

// A pointer out of memory that was given back and filled with junk: no address at all.
void crash_poison_call(void)
{
    void (*volatile junk)(void) = (void (*)(void))0x6b6b6b6b6b6b6b6b;

    junk();
    __asm__ volatile("");
}

// The code that is interrupted does nothing wrong. One asm, and so one source line: some releases
// of QEMU deliver the NMI at once, others some instructions later.
void crash_nmi_stack(void)
{
    uint32_t to = apic_id() << 24, command = APIC_NMI | APIC_ASSERT;

    for (uint32_t i = 0; i < stack_count; i++)
        if (strcmp(stacks[i].name, "cpu0 NMI") == 0)
            crash_unmap(VADDR(stacks[i].top.v - PAGE_SIZE));
    __asm__ volatile("movl %0, %c2(%4)\n\tmovl %1, %c3(%4)\n1:\tpause\n\tjmp 1b"
                     :
                     : "r"(to), "r"(command), "i"(APIC_ICR_HIGH), "i"(APIC_ICR_LOW), "r"(VA_DEVICES)
                     : "memory");
    __builtin_unreachable();
}
