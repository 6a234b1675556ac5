// SPDX-License-Identifier: BSD-2-Clause
// What the memory manager asks of the processor: the width of addresses, page sizes.
#include "arch/x86/machine.h"

#include "arch/x86/cpu.h"
#include "arch/x86/tlb.h"

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

void arch_load_space(uint64_t cr3)
{
    cr3_load(PADDR(cr3));
}
