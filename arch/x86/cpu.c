// SPDX-License-Identifier: BSD-2-Clause
// What of the processor's protection is switched on: NX, WP, SMEP, SMAP, UMIP, and the memory
// types.
#include "arch/x86/cpu.h"

// Encodings of a PAT entry (Intel SDM volume 3, 12.12.2).
enum pat {
    PAT_UC = 0,
    PAT_WC = 1,
    PAT_WT = 4,
    PAT_WP = 5,
    PAT_WB = 6,
    PAT_UC_MINUS = 7,
};

// Entries 0 to 3 are those of reset, so that nothing changes for mappings made before; 4 and 5 are
// new.
static const uint8_t pat[8] = {PAT_WB, PAT_WT, PAT_UC_MINUS, PAT_UC,
                               PAT_WP, PAT_WC, PAT_UC_MINUS, PAT_UC};

static bool smap;

static void pat_init(void)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(pat); i++)
        value |= (uint64_t)pat[i] << (8 * i);
    wrmsr(MSR_PAT, value);
}

void cpu_init(void)
{
    uint64_t cr4 = read_cr4();
    struct cpuid features = {0};

    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    write_cr0(read_cr0() | CR0_WP);
    if (cpuid(0, 0).eax >= 7)
        features = cpuid(7, 0);
    if (features.ebx & (1u << 7))
        cr4 |= CR4_SMEP;
    if (features.ebx & (1u << 20))
        cr4 |= CR4_SMAP;
    if (features.ecx & (1u << 2))
        cr4 |= CR4_UMIP;
    write_cr4(cr4);
    smap = cr4 & CR4_SMAP;
    pat_init();
}

bool cpu_has_smap(void)
{
    return smap;
}
