// SPDX-License-Identifier: BSD-2-Clause
// The local APIC: interrupts between CPUs.
#pragma once

#include "lib/types.h"

/* Masks the legacy interrupt controllers. */
void pic_mask(void);

/* Where this CPU's local APIC is in physical memory: the same on all CPUs. */
paddr_t apic_paddr(void);

// What follows reaches it at VA_DEVICES: only after apic_map() (kernel/apic_map.c).

/* Enables this CPU's local APIC, with a spurious vector. */
void apic_enable(void);

/* This CPU's number on the bus. */
uint32_t apic_id(void);

/* The end of the interrupt that is being handled. */
void apic_eoi(void);

/* Starts or stops this CPU's VECTOR_ALARM, about one interrupt a second. */
void apic_alarm(bool on);

// Offsets of the interrupt command register's halves; writing the lower one sends.
enum { APIC_ICR_LOW = 0x300, APIC_ICR_HIGH = 0x310 };

// The lower half of the interrupt command register (SDM vol. 3, 11.6.1).
enum apic_command {
    APIC_FIXED = 0 << 8, // + the vector
    APIC_NMI = 4 << 8,
    APIC_INIT = 5 << 8,
    APIC_STARTUP = 6 << 8, // + the page number
    APIC_ASSERT = 1 << 14,
    APIC_ALL_OTHERS = 3 << 18,
};

/* Sends a command to the CPU with that number on the bus (any for APIC_ALL_OTHERS). */
void apic_send(uint32_t to, uint32_t command);
