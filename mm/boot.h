// SPDX-License-Identifier: BSD-2-Clause
// Start-up of the memory manager: the boot map made sane, and the pool its first pages come from.
#pragma once

#include "boot/bootinfo.h"
#include "lib/types.h"
#include "mm/mm.h"

// The parts of the kernel's image in physical memory, as mm_init() got them.
struct image {
    const struct region *part;
    unsigned count;
};
extern struct image mm_image;

/* Fills mm.region[] from the boot map: sorted, page-aligned, without overlap; image, boot data and
 * low memory carved out. Prints what is odd in the map. */
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
