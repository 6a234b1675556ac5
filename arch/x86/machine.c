// SPDX-License-Identifier: BSD-2-Clause
// What the memory manager asks of the machine at boot: address width, page sizes, where the image
// is.
#include "arch/x86/cpu.h"
#include "arch/x86/tlb.h"
#include "arch/x86/layout.h"
#include "boot/image.h"
#include "lib/panic.h"
#include "mm/boot.h"
#include "mm/vmap.h"

unsigned arch_phys_bits(void)
{
    if (cpuid(0x80000000, 0).eax < 0x80000008)
        return 36;
    return cpuid(0x80000008, 0).eax & 0xff;
}

unsigned arch_levels(void)
{
    return 4;
}

bool arch_has_1g(void)
{
    return cpuid(0x80000001, 0).edx & (1u << 26);
}

static uint64_t image_paddr(const char *symbol)
{
    return (uintptr_t)symbol - VA_IMAGE;
}

unsigned arch_image_parts(struct region *out, unsigned max)
{
    const struct region part[] = {
        {(uintptr_t)image_boot_start, (uintptr_t)image_boot_end, FRAME_IMAGE, 0},
        {image_paddr(image_text_start), image_paddr(image_text_end), FRAME_TEXT, 0},
        {image_paddr(image_rodata_start), image_paddr(image_rodata_end), FRAME_RODATA, 0},
        {image_paddr(image_data_start), image_paddr(image_data_end), FRAME_DATA, 0},
        {image_paddr(image_bss_start), image_paddr(image_bss_end), FRAME_BSS, 0},
    };
    unsigned count = MIN(max, ARRAY_SIZE(part));

    for (unsigned i = 0; i < count; i++)
        out[i] = part[i];
    return count;
}

static void map_section(const char *start, const char *end, unsigned attr)
{
    uint64_t pages = (uint64_t)(end - start) >> PAGE_SHIFT;
    frame_t *first = find_paddr_frame(PADDR(image_paddr(start)));
    int err = 0;

    if (pages)
        err = vmap_range(NULL, ptr_vaddr(start), first,
                         (image_paddr(start) >> PAGE_SHIFT) - first->mfn, pages, attr);
    if (err)
        panic("image at 0x%lx can't be mapped: %s", (uintptr_t)start, error_name(err));
}

void arch_map_image(void)
{
    map_section(image_text_start, image_text_end, VATTR_X);
    map_section(image_rodata_start, image_rodata_end, VATTR_R);
    map_section(image_data_start, image_data_end, VATTR_W);
    map_section(image_bss_start, image_bss_end, VATTR_W);
}

void arch_load_space(uint64_t cr3)
{
    cr3_load(PADDR(cr3));
}
