// SPDX-License-Identifier: BSD-2-Clause
// The interrupt descriptor table.
#pragma once

#include "kernel/gdt.h"
#include "lib/types.h"

enum {
    IDT_COUNT = 256,
};

// Types of the gates: every one is an interrupt gate.
enum idt_gate_type {
    IDT_GATE_INTERRUPT = 0x8e, // present, ring 0, interrupts off
    IDT_GATE_RING_3 = 0x60,    // added: may be called from there
};

struct idt_gate {
    uint16_t offset_low;
    uint16_t selector;
    uint8_t ist;
    uint8_t type;
    uint16_t offset_middle;
    uint32_t offset_high;
    uint32_t reserved;
};
_Static_assert(sizeof(struct idt_gate) == 16, "the processor's layout");

// One page exactly, with nothing else on it.
extern struct idt_gate idt[IDT_COUNT];

/* The stub that a vector's gate leads to, and the slot of the stack that it has in the end; for the
 * self-check as well. */
uint64_t idt_handler(unsigned vector);
enum ist idt_ist(unsigned vector);

/* Fills and loads the table, all gates on the current stack: exceptions are printed from here on.
 */
void idt_init(void);

/* Ring 3 may call this vector by `int`. */
void idt_allow_user(unsigned vector);

/* Loads the table, which all CPUs share, on this CPU. */
void idt_load(void);

/* From now on #DF, NMI and #MC run on the stacks of their TSS slots. After tss_init(). */
void idt_use_ist(void);
