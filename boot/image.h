// SPDX-License-Identifier: BSD-2-Clause
// Where the linker put the image's sections (boot/kernel.ld). Each starts and ends on a page
// boundary.
#pragma once

#include "lib/types.h"

// The boot part: code, page tables, data. These two are physical addresses.
extern char image_boot_start[], image_boot_end[];

// Virtual addresses, VA_IMAGE above the physical ones, one behind the other in this order.
extern char image_text_start[], image_text_end[];
extern char image_rodata_start[], image_rodata_end[];
extern char image_data_start[], image_data_end[];
extern char image_bss_start[], image_bss_end[];

static inline bool in_image_text(uint64_t va)
{
    return va >= (uintptr_t)image_text_start && va < (uintptr_t)image_text_end;
}

// The stack of the first instructions, part of bss and left for a guarded one as soon as there are
// mappings.
extern char boot_stack_bottom[], boot_stack_top[];
