// SPDX-License-Identifier: BSD-2-Clause
// Tests of mm_check(): what only a real CPU has, one word wrong at a time. What the host has as
// well is tried there (tests/host/test_check.c).
#include "arch/x86/cpu.h"
#include "arch/x86/memtype.h"
#include "kernel/idt.h"
#include "kernel/smp.h"
#include "kernel/stack.h"
#include "kernel/traps.h"
#include "lib/string.h"
#include "mm/mm.h"
#include "tests/guest/test.h"

// Checks after every n-th operation would panic.
static bool named(const char *rule)
{
    uint32_t every = mm.check_every;
    bool found;

    mm_check_every(0);
    found = mm_check() > 0 && strcmp(mm_check_rule, rule) == 0;
    mm_check_every(every);
    return found;
}

// The word is wrong, which is named so, and right again.
#define BREAK(rule, word, flip)                                                                    \
    do {                                                                                           \
        bool named_;                                                                               \
                                                                                                   \
        (word) ^= (flip);                                                                          \
        named_ = named(rule);                                                                      \
        (word) ^= (flip);                                                                          \
        CHECK(named_);                                                                             \
    } while (0)

GUEST_TEST(check_percpu)
{
    uint32_t other = smp_count() - 1; // this CPU itself, if it is the only one
    struct percpu *p = &percpu[other], *none = &percpu[CPU_MAX - 1];

    BREAK("C2", p->others, UINT64_C(1) << 40);
    BREAK("C2", p->others, UINT64_C(1) << other);
    BREAK("C2", p->journal, 64);
    BREAK("C2", p->apic_id, 1);
    if (other) {
        BREAK("C2", p->number, 1);
        BREAK("C2", p->token, 1);
    }
    BREAK("C2", none->others, 1);
    BREAK("C2", none->apic_id, 1);
    BREAK("C1", ap_cr3, PAGE_SIZE);
    CHECK_EQ(mm_check(), 0);
}

// Types that are none of those in use, so that nothing is cached otherwise meanwhile.
GUEST_TEST(check_pat)
{
    uint64_t pat = rdmsr(MSR_PAT);
    bool seen;

    wrmsr(MSR_PAT, pat ^ (uint64_t)(CACHE_UC ^ CACHE_UC_MINUS) << 8 * MEMTYPE_COUNT);
    seen = named("M2");
    wrmsr(MSR_PAT, pat);
    CHECK(seen);
    BREAK("M2", mtrr.base[MTRR_VARIABLE_MAX - 1], PAGE_SIZE);
    CHECK_EQ(mm_check(), 0);
}

// What this CPU can switch on, and the kernel does not.
GUEST_TEST(check_control)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4();
    bool seen;

    write_cr0(cr0 | CR0_CD);
    seen = named("M2");
    write_cr0(cr0);
    CHECK(seen);
    if (cpuid(0, 0).eax >= 7 && cpuid(7, 0).ebx & 1) {
        write_cr4(cr4 | CR4_FSGSBASE);
        seen = named("C2");
        write_cr4(cr4);
        CHECK(seen);
    }
    if (cpuid(0, 0).eax >= 7 && cpuid(7, 0).ecx & (1u << 3)) {
        write_cr4(cr4 | CR4_PKE);
        seen = named("X2");
        write_cr4(cr4);
        CHECK(seen);
    }
    CHECK_EQ(mm_check(), 0);
}

GUEST_TEST(check_tables)
{
    BREAK("C2", idt[VECTOR_DF].ist, IST_DOUBLE_FAULT ^ IST_NMI);
    BREAK("C2", idt[VECTOR_GP].offset_low, 16);
    BREAK("C2", idt[IDT_COUNT - 1].type, IDT_GATE_RING_3);
    for (uint32_t cpu = 0; cpu < smp_count(); cpu++) {
        uint64_t *own = (uint64_t *)gdt_address(cpu);

        BREAK("C2", own[SEL_USER_DATA / 8], UINT64_C(1) << 46);
        BREAK("C2", own[SEL_TSS / 8 + 1], 1);
        BREAK("C2", own[7], 1);
    }
    BREAK("X3", stacks[0].top.v, 8);
    BREAK("X3", stacks[stack_count].bottom.v, PAGE_SIZE);
    BREAK("X2", cpu_cr4, CR4_OSFXSR);
    CHECK_EQ(mm_check(), 0);
}
