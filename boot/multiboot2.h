// SPDX-License-Identifier: BSD-2-Clause
// Reads what a multiboot2 boot loader left in memory.
#pragma once

#include "boot/bootinfo.h"
#include "lib/types.h"

/*
 * Fills boot_info from the information structure at mbi, which must be mapped one to one. Panics if
 * there is no usable memory map in it.
 */
void multiboot2_init(paddr_t mbi);

/*
 * Fills *bi from the information structure that can be read at info (8-byte aligned) and lies at
 * mbi in physical memory. What is out of bounds or doesn't fit is left out; the console says so.
 *   -EINVAL  the structure's size can't be right
 *   -ENOENT  it holds no memory map
 */
int multiboot2_parse(const void *info, paddr_t mbi, struct boot_info *bi) must_check;
