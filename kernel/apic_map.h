// SPDX-License-Identifier: BSD-2-Clause
// The local APIC's mapping.
#pragma once

#include "lib/types.h"

/* Maps the local APIC at VA_DEVICES through its device frame, for all CPUs. 0, or the error of
 * get_device_frame() or vmap_kern(). */
int apic_map(void) must_check;
