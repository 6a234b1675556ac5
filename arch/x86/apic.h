// SPDX-License-Identifier: BSD-2-Clause
// The local APIC: interrupts between CPUs.
#pragma once

#include "lib/types.h"

/*
 * Masks the legacy interrupt controllers, maps the local APIC through its device frame and enables
 * it with a spurious vector. 0, or the error of the frame or of the mapping.
 */
int apic_init(void) must_check;

/* The same local APIC address on another CPU: enables that CPU's. */
void apic_enable(void);

/* This CPU's number on the bus. After apic_init(). */
uint32_t apic_id(void);

/* The end of the interrupt that is being handled. */
void apic_eoi(void);

/* Interrupts this CPU by VECTOR_ALARM about every second, or no more. */
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
