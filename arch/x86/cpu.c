// SPDX-License-Identifier: BSD-2-Clause
// What of the processor's protection is switched on: NX, WP, SMEP, SMAP, UMIP, and the memory
// types.
#include "arch/x86/cpu.h"

#include "arch/x86/machine.h"
#include "arch/x86/memtype.h"
#include "lib/printk.h"
#include "lib/string.h"

uint64_t cpu_cr4;

static uint32_t fixed_msr(unsigned i)
{
    return i == 0  ? MSR_MTRR_FIXED_64K
           : i < 3 ? MSR_MTRR_FIXED_16K + i - 1
                   : MSR_MTRR_FIXED_4K + i - 3;
}

static struct mtrr mtrr_read(void)
{
    struct mtrr m = {.limit = UINT64_C(1) << arch_phys_bits()};

    if (!(cpuid(1, 0).edx & (1u << 12)))
        return m;
    m.cap = rdmsr(MSR_MTRR_CAP);
    m.def_type = rdmsr(MSR_MTRR_DEF_TYPE);
    m.count = MIN(m.cap & MTRR_CAP_COUNT, (uint64_t)MTRR_VARIABLE_MAX);
    for (unsigned i = 0; i < m.count; i++) {
        m.base[i] = rdmsr(MSR_MTRR_BASE0 + 2 * i);
        m.mask[i] = rdmsr(MSR_MTRR_MASK0 + 2 * i);
    }
    for (unsigned i = 0; (m.cap & MTRR_CAP_FIXED) && i < MTRR_FIXED_COUNT; i++)
        m.fixed[i] = rdmsr(fixed_msr(i));
    return m;
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

// Caches and TLB hold nothing of the old types when the new ones count (SDM vol. 3, 12.11.8).
static void mtrr_write(const struct mtrr *m)
{
    uint64_t cr0 = read_cr0();

    write_cr0((cr0 | CR0_CD) & ~(uint64_t)CR0_NW);
    wbinvd();
    write_cr3(read_cr3());
    wrmsr(MSR_MTRR_DEF_TYPE, m->def_type & ~(uint64_t)MTRR_DEF_ENABLE);
    for (unsigned i = 0; i < m->count; i++) {
        wrmsr(MSR_MTRR_BASE0 + 2 * i, m->base[i]);
        wrmsr(MSR_MTRR_MASK0 + 2 * i, m->mask[i]);
    }
    for (unsigned i = 0; (m->cap & MTRR_CAP_FIXED) && i < MTRR_FIXED_COUNT; i++)
        wrmsr(fixed_msr(i), m->fixed[i]);
    wrmsr(MSR_MTRR_DEF_TYPE, m->def_type);
    wbinvd();
    write_cr3(read_cr3());
    write_cr0(cr0);
}

bool cpu_mtrrs_hold(void)
{
    struct mtrr mine = mtrr_read();

    return memcmp(&mtrr, &mine, sizeof(mine)) == 0;
}

// The boot CPU's count; the others get the same (QEMU's lose theirs when they are started).
static void mtrr_init(void)
{
    if (!mtrr.limit) {
        mtrr = mtrr_read();
        mtrr_print();
        return;
    }
    if (cpu_mtrrs_hold())
        return;
    mtrr_write(&mtrr);
    if (!cpu_mtrrs_hold())
        printk("MTRRs: those of a CPU are not those of the boot CPU, which count here\n");
}

uint64_t cpu_cr4_known(void)
{
    struct cpuid features = {0};

    if (cpuid(0, 0).eax >= 7)
        features = cpuid(7, 0);
    return (features.ebx & (1u << 7) ? CR4_SMEP : 0) | (features.ebx & (1u << 20) ? CR4_SMAP : 0) |
           (features.ecx & (1u << 2) ? CR4_UMIP : 0);
}

void cpu_init(void)
{
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    write_cr0((read_cr0() | CR0_WP | CR0_MP) & ~(uint64_t)(CR0_EM | CR0_TS));
    cpu_cr4 = cpu_cr4_known();
    write_cr4(read_cr4() | CR4_OSFXSR | cpu_cr4); // with EM and TS off: for page_zero()
    wrmsr(MSR_PAT, pat_value());
    mtrr_init();
}

bool cpu_has_smap(void)
{
    return cpu_cr4 & CR4_SMAP;
}
