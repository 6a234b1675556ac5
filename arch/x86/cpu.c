// SPDX-License-Identifier: BSD-2-Clause
// What of the processor's protection is switched on: NX, WP, SMEP, SMAP, UMIP, and the memory
// types.
#include "arch/x86/cpu.h"

#include "arch/x86/memtype.h"
#include "lib/printk.h"
#include "mm/boot.h"

static bool smap;

static void mtrr_read(void)
{
    struct cpuid features = cpuid(1, 0);

    if (!(features.edx & (1u << 12)))
        return;
    mtrr.cap = rdmsr(MSR_MTRR_CAP);
    mtrr.def_type = rdmsr(MSR_MTRR_DEF_TYPE);
    mtrr.limit = UINT64_C(1) << arch_phys_bits();
    mtrr.count = MIN(mtrr.cap & MTRR_CAP_COUNT, (uint64_t)MTRR_VARIABLE_MAX);
    for (unsigned i = 0; i < mtrr.count; i++) {
        mtrr.base[i] = rdmsr(MSR_MTRR_BASE0 + 2 * i);
        mtrr.mask[i] = rdmsr(MSR_MTRR_MASK0 + 2 * i);
    }
    for (unsigned i = 0; (mtrr.cap & MTRR_CAP_FIXED) && i < MTRR_FIXED_COUNT; i++)
        mtrr.fixed[i] = rdmsr(i == 0  ? MSR_MTRR_FIXED_64K
                              : i < 3 ? MSR_MTRR_FIXED_16K + i - 1
                                      : MSR_MTRR_FIXED_4K + i - 3);
}

static void mtrr_print(void)
{
    uint64_t next;

    if (!mtrr_active(&mtrr)) {
        printk("MTRRs: %s\n", mtrr.cap ? "off" : "none");
        return;
    }
    for (uint64_t start = 0; start < mtrr.limit; start = next) {
        enum cache_type type = mtrr_type(&mtrr, start);

        for (next = start; next < mtrr.limit && mtrr_type(&mtrr, next) == type;)
            next = mtrr_next_change(&mtrr, next);
        printk("MTRRs: 0x%012lx to 0x%012lx %s\n", start, next, cache_type_name(type));
    }
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
    wrmsr(MSR_PAT, pat_value());
    mtrr_read();
    mtrr_print();
}

bool cpu_has_smap(void)
{
    return smap;
}
