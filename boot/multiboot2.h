// SPDX-License-Identifier: BSD-2-Clause
// Reads what a multiboot2 boot loader left in memory.
#pragma once

#include "lib/types.h"

/*
 * Fills boot_info from the information structure at mbi (below 4 GiB, mapped one to one). What is
 * out of bounds or doesn't fit is left out and told on the console. Panics only without a usable
 * memory map.
 */
void multiboot2_parse(paddr_t mbi);
