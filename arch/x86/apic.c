// SPDX-License-Identifier: BSD-2-Clause
// The local APIC, which kernel/apic_map.c maps, and the legacy interrupt controllers, masked.
#include "arch/x86/apic.h"

#include "arch/x86/cpu.h"
#include "arch/x86/layout.h"
#include "arch/x86/tlb.h"
#include "arch/x86/vectors.h"

enum {
    PIC1_COMMAND = 0x20,
    PIC1_DATA = 0x21,
    PIC2_COMMAND = 0xa0,
    PIC2_DATA = 0xa1,
    ICW1_INIT_ICW4 = 0x11,
    ICW3_CASCADE_LINE = 1 << 2, // for PIC1 a mask
    ICW3_CASCADE_ID = 2,        // for PIC2 a number
    ICW4_8086 = 0x01,
    PIC_VECTOR = 0xe0, // away from the exceptions: a spurious one comes even when all is masked

    APIC_BASE_ENABLE = 1 << 11,
    APIC_ID = 0x20,
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_ICR_PENDING = 1 << 12,
    APIC_TIMER = 0x320,
    APIC_TIMER_COUNT = 0x380,
    APIC_TIMER_PERIODIC = 1 << 17,
    APIC_TIMER_MASKED = 1 << 16,
    SEND_SPINS = 1000000,
    ALARM_TICKS = 1 << 29, // of the bus, divided by 2 as after reset
    APIC_SPURIOUS_ENABLE = 1 << 8,
};
#define APIC_BASE_ADDRESS 0x000ffffffffff000ULL

static volatile uint32_t *reg(unsigned offset)
{
    return (volatile uint32_t *)(uintptr_t)(VA_DEVICES + offset);
}

void pic_mask(void)
{
    outb(PIC1_COMMAND, ICW1_INIT_ICW4);
    outb(PIC2_COMMAND, ICW1_INIT_ICW4);
    outb(PIC1_DATA, PIC_VECTOR);
    outb(PIC2_DATA, PIC_VECTOR + 8);
    outb(PIC1_DATA, ICW3_CASCADE_LINE);
    outb(PIC2_DATA, ICW3_CASCADE_ID);
    outb(PIC1_DATA, ICW4_8086);
    outb(PIC2_DATA, ICW4_8086);
    outb(PIC1_DATA, 0xff);
    outb(PIC2_DATA, 0xff);
}

paddr_t apic_paddr(void)
{
    return PADDR(rdmsr(MSR_APIC_BASE) & APIC_BASE_ADDRESS);
}

void apic_enable(void)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE);
    *reg(APIC_SPURIOUS) = APIC_SPURIOUS_ENABLE | VECTOR_SPURIOUS;
}

uint32_t apic_id(void)
{
    return *reg(APIC_ID) >> 24;
}

void apic_eoi(void)
{
    *reg(APIC_EOI) = 0;
}

void apic_alarm(bool on)
{
    *reg(APIC_TIMER) = VECTOR_ALARM | (on ? APIC_TIMER_PERIODIC : APIC_TIMER_MASKED);
    *reg(APIC_TIMER_COUNT) = on ? ALARM_TICKS : 0;
}

void apic_send(uint32_t to, uint32_t command)
{
    // A command of another interrupt must not come between the two halves.
    uint64_t flags = interrupts_save();

    *reg(APIC_ICR_HIGH) = to << 24;
    *reg(APIC_ICR_LOW) = command;
    // Bounded, for panics: the bus may be what is broken.
    for (unsigned spins = SEND_SPINS; *reg(APIC_ICR_LOW) & APIC_ICR_PENDING && spins > 0; spins--)
        cpu_pause();
    interrupts_restore(flags);
}
