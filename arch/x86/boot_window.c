// SPDX-License-Identifier: BSD-2-Clause
// Metadata at its final address while the boot page tables are in use: the entries of their static
// L1 tables.
#include "arch/x86/boot_window.h"

#include "arch/x86/cpu.h"
#include "arch/x86/layout.h"
#include "lib/panic.h"

enum {
    ENTRY_PRESENT = 1 << 0,
    ENTRY_WRITE = 1 << 1,
    WINDOW_PAGES = 512, // one L1 table each
};
#define ENTRY_NX (1ULL << 63)

// boot_window.S; their physical addresses.
extern uint64_t boot_l1_frames[], boot_l1_mappings[], boot_l1_window[], boot_l1_shadows[];
extern uint64_t boot_l1_nodes[], boot_l1_tables[], boot_l1_spaces[];

static const struct {
    uint64_t va;
    uint64_t *l1;
    const char *name;
} windows[] = {
    {VA_FRAMES, boot_l1_frames, "VA_FRAMES"},    {VA_MAPPINGS, boot_l1_mappings, "VA_MAPPINGS"},
    {VA_NODES, boot_l1_nodes, "VA_NODES"},       {VA_WINDOW, boot_l1_window, "VA_WINDOW"},
    {VA_SHADOWS, boot_l1_shadows, "VA_SHADOWS"}, {VA_TABLES, boot_l1_tables, "VA_TABLES"},
    {VA_SPACES, boot_l1_spaces, "VA_SPACES"},
};

static bool final;

// The entry for va, as seen through the image's mapping of the first GiB.
static uint64_t *boot_entry(vaddr_t va)
{
    const uint64_t span = (uint64_t)WINDOW_PAGES << PAGE_SHIFT;

    if (!IS_ALIGNED(va.v, PAGE_SIZE))
        panic("boot window: 0x%lx is not page-aligned", va.v);
    for (size_t i = 0; i < ARRAY_SIZE(windows); i++) {
        uint64_t offset = va.v - windows[i].va;

        if (offset < span)
            return (uint64_t *)((uintptr_t)windows[i].l1 + VA_IMAGE) + (offset >> PAGE_SHIFT);
        // The next window is at least 128 MiB away: closer means that this one ran over.
        if (offset < (64UL << 20))
            panic("boot window: %s is full, 0x%lx lies behind its first 2 MiB", windows[i].name,
                  va.v);
    }
    panic("boot window: 0x%lx is in none of the metadata windows", va.v);
}

void arch_meta_map(vaddr_t va, mfn_t mfn)
{
    if (final)
        return;
    *boot_entry(va) = mfn_paddr(mfn).v | ENTRY_PRESENT | ENTRY_WRITE | ENTRY_NX;
    invlpg(va);
}

void arch_meta_unmap(vaddr_t va)
{
    if (final)
        return;
    *boot_entry(va) = 0;
    invlpg(va);
}

void arch_meta_final(void)
{
    final = true;
}
