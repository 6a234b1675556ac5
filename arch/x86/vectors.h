// SPDX-License-Identifier: BSD-2-Clause
// The numbers of exceptions and interrupts, and the error code of a page fault (SDM vol. 3, 6.15).
#pragma once

enum vector {
    VECTOR_NMI = 2,
    VECTOR_DF = 8,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MC = 18,
    VECTOR_EXCEPTIONS = 32, // from here on interrupts
    VECTOR_DEVICES = 0xd0,  // of devices, through the I/O APICs
    VECTOR_DEVICES_END = 0xe0,
    VECTOR_SHOOTDOWN = 0xf0,
    VECTOR_WAKE = 0xf1,
    VECTOR_ALARM = 0xf2,    // of the local APIC's timer
    VECTOR_SPURIOUS = 0xff, // of the local APIC
};

// Error code of a page fault.
enum pf_error {
    PF_PRESENT = 1 << 0, // a permission was missing, not the page
    PF_WRITE = 1 << 1,
    PF_USER = 1 << 2,
    PF_RESERVED = 1 << 3,
    PF_FETCH = 1 << 4,
    PF_KEY = 1 << 5,
    PF_SHADOW_STACK = 1 << 6,
};
