// SPDX-License-Identifier: BSD-2-Clause
// Start-up of the memory manager: the boot map made sane, and the pool its first pages come from.
#pragma once

#include "boot/bootinfo.h"
#include "lib/types.h"
#include "mm/mm.h"

/* Fills mm.region[] from the boot map: sorted, page-aligned, without overlap; image, boot data and
 * low memory carved out. Oddities are told on the console. */
void bootmap_build(const struct boot_info *bi);

/* Takes the largest part needed of available memory, below 4 GiB, for the manager's first pages.
 * Panics if there is none. */
void boot_pool_choose(void);
/* Backs the page at va with the pool's next page. Panics when the pool is used up. */
void boot_pool_back(vaddr_t va);
/* Makes frames of the whole map. */
void boot_frames(void);
/* Maps the pool's pages through their frames, in the kernel's space. */
void boot_pool_map(void);

/* What the machine's side supplies (host tests have their own). */

/* Bits of a physical address that the CPU has (MAXPHYADDR, CPUID 0x80000008). */
unsigned arch_phys_bits(void);
/* Levels of its page tables: 4 or 5. */
unsigned arch_levels(void);
/* Whether it has 1 GiB pages (CPUID 0x80000001, EDX bit 26). */
bool arch_has_1g(void);
enum {
    IMAGE_PARTS = 8, // as many at most
};
/* Where the kernel's image lies in physical memory: parts with their kinds, page-aligned; how many.
 */
unsigned arch_image_parts(struct region *out, unsigned max);
/* Maps the image through its frames, each section with its own permissions. */
void arch_map_image(void);
/* Loads the kernel's page tables for good. */
void arch_load_space(uint64_t cr3);
