// SPDX-License-Identifier: BSD-2-Clause
// The kernel's image, for the memory manager.
#pragma once

#include "mm/mm.h"

enum {
    IMAGE_PARTS = 5,
};

/* The sections where they lie in physical memory, page-aligned, with their kinds. */
extern const struct region image_part[IMAGE_PARTS];
