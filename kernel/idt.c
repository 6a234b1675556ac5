// SPDX-License-Identifier: BSD-2-Clause
// The interrupt descriptor table: 256 gates to the stubs of traps.S.
#include "kernel/idt.h"

#include "arch/x86/cpu.h"
#include "kernel/traps.h"

enum {
    STUB_SIZE = 16, // traps.S
};

struct idt_gate idt[IDT_COUNT] __attribute__((aligned(4096)));
_Static_assert(sizeof(idt) == PAGE_SIZE, "alone on its page");

extern char vector_stubs[];

void idt_load(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {.limit = sizeof(idt) - 1, .base = (uintptr_t)idt};

    write_dr3(0); // inside no exception, traps.c
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

uint64_t idt_handler(unsigned vector)
{
    return (uintptr_t)vector_stubs + (uintptr_t)vector * STUB_SIZE;
}

void idt_init(void)
{
    for (unsigned i = 0; i < IDT_COUNT; i++) {
        uintptr_t handler = idt_handler(i);

        idt[i] = (struct idt_gate){
            .offset_low = handler & 0xffff,
            .selector = SEL_KERNEL_CODE,
            .type = IDT_GATE_INTERRUPT,
            .offset_middle = handler >> 16 & 0xffff,
            .offset_high = (uint32_t)(handler >> 32),
        };
    }
    idt_load();
}

void idt_allow_user(unsigned vector)
{
    idt[vector].type |= IDT_GATE_RING_3;
}

enum ist idt_ist(unsigned vector)
{
    static const uint8_t stacked[VECTOR_EXCEPTIONS] = {
        [VECTOR_DF] = IST_DOUBLE_FAULT, [VECTOR_NMI] = IST_NMI, [VECTOR_MC] = IST_MACHINE_CHECK};

    return vector < VECTOR_EXCEPTIONS ? stacked[vector] : IST_NONE;
}

void idt_use_ist(void)
{
    for (unsigned i = 0; i < VECTOR_EXCEPTIONS; i++)
        idt[i].ist = idt_ist(i);
}
