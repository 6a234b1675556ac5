// SPDX-License-Identifier: BSD-2-Clause
// The kernel's image, for the memory manager: where the linker put each section.
#include "kernel/image.h"

#include "arch/x86/layout.h"
#include "boot/image.h"

// The boot part's symbols are physical addresses, the others are VA_IMAGE above theirs.
#define PART(name, kind)                                                                           \
    {                                                                                              \
        (uintptr_t) image_##name##_start - VA_IMAGE, (uintptr_t)image_##name##_end - VA_IMAGE,     \
            kind, 0                                                                                \
    }

const struct region image_part[IMAGE_PARTS] = {
    {(uintptr_t)image_boot_start, (uintptr_t)image_boot_end, FRAME_IMAGE, 0},
    PART(text, FRAME_TEXT),
    PART(rodata, FRAME_RODATA),
    PART(data, FRAME_DATA),
    PART(bss, FRAME_BSS),
};
