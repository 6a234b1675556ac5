// SPDX-License-Identifier: BSD-2-Clause
// The local APIC, as far as a kernel without interrupts needs it.
#pragma once

#include "lib/types.h"

/*
 * Masks the legacy interrupt controllers, maps the local APIC through its device frame and enables
 * it with a spurious vector. 0, or the error of the frame or of the mapping.
 */
int apic_init(void) must_check;

/* The boot CPU's number on the bus. After apic_init(). */
uint32_t apic_id(void);
