// SPDX-License-Identifier: BSD-2-Clause
// Segments and the task state segment of each CPU.
#include "kernel/gdt.h"

#include "arch/x86/percpu.h"
#include "lib/panic.h"
#include "lib/string.h"

enum {
    GDT_ENTRIES = 8, // the last one fills the cache line
};

struct descriptor_pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7]; // slot n of a gate is ist[n - 1]
    uint64_t reserved2;
    uint16_t reserved3;
    uint16_t io_map; // at the end: no I/O permission map
} __attribute__((packed));
_Static_assert(sizeof(struct tss) == 104, "the processor's layout");

// The TSS descriptor takes two entries. 'Accessed' is set everywhere, so that the CPU never writes
// to the table.
static const uint64_t segments[GDT_ENTRIES] = {
    [SEL_KERNEL_CODE / 8] = 0x00af9b000000ffff,
    [SEL_KERNEL_DATA / 8] = 0x00cf93000000ffff,
    [SEL_USER_DATA / 8] = 0x00cff3000000ffff,
    [SEL_USER_CODE / 8] = 0x00affb000000ffff,
};

uint64_t gdt[CPU_MAX][GDT_ENTRIES] __attribute__((aligned(16)));
struct tss tss[CPU_MAX] __attribute__((aligned(16)));

void gdt_init(void)
{
    uint64_t *own = gdt[cpu_number()];
    struct descriptor_pointer pointer = {.limit = sizeof(segments) - 1, .base = (uintptr_t)own};

    memcpy(own, segments, sizeof(segments));
    __asm__ volatile("lgdt %0\n\t"
                     "pushq %1\n\t"
                     "leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "lretq\n"
                     "1:\tmovl %2, %%eax\n\t"
                     "movl %%eax, %%ds\n\t"
                     "movl %%eax, %%es\n\t"
                     "movl %%eax, %%ss\n\t"
                     :
                     : "m"(pointer), "i"(SEL_KERNEL_CODE), "i"(SEL_KERNEL_DATA)
                     : "rax", "memory");
}

enum tss_type {
    TSS_AVAILABLE = 0x89,
    TSS_BUSY = 0x8b, // ltr makes it so
};

// What its two entries in the GDT hold; the second one only has the address's upper half.
static uint64_t tss_descriptor(uint64_t base, enum tss_type type)
{
    return (sizeof(struct tss) - 1) | (base & 0xffffff) << 16 | (uint64_t)type << 40 |
           (base >> 24 & 0xff) << 56;
}

void tss_init(void)
{
    uint64_t *own = gdt[cpu_number()];
    uint64_t base = (uintptr_t)&tss[cpu_number()];

    tss[cpu_number()].io_map = sizeof(struct tss);
    own[SEL_TSS / 8] = tss_descriptor(base, TSS_AVAILABLE);
    own[SEL_TSS / 8 + 1] = base >> 32;
    __asm__ volatile("ltr %w0" : : "r"(SEL_TSS) : "memory");
}

void *tss_kernel_stack(void)
{
    return (char *)&tss[cpu_number()] + offsetof(struct tss, rsp);
}

void tss_set_ist(uint32_t cpu, enum ist ist, vaddr_t top)
{
    assert(cpu < CPU_MAX && ist >= 1 && ist <= ARRAY_SIZE(tss[cpu].ist));
    tss[cpu].ist[ist - 1] = top.v;
}

uint64_t gdt_address(uint32_t cpu)
{
    return (uintptr_t)gdt[cpu];
}

vaddr_t tss_ist(uint32_t cpu, enum ist ist)
{
    return VADDR(tss[cpu].ist[ist - 1]);
}

vaddr_t tss_rsp0(uint32_t cpu)
{
    return VADDR(tss[cpu].rsp[0]);
}

bool gdt_holds(uint32_t cpu)
{
    uint64_t base = (uintptr_t)&tss[cpu], want[GDT_ENTRIES];

    memcpy(want, segments, sizeof(want));
    want[SEL_TSS / 8] = tss_descriptor(base, TSS_BUSY);
    want[SEL_TSS / 8 + 1] = base >> 32;
    return memcmp(gdt[cpu], want, sizeof(want)) == 0;
}

bool tss_holds(uint32_t cpu)
{
    struct tss want = {.io_map = sizeof(struct tss)};

    want.rsp[0] = tss[cpu].rsp[0];
    for (unsigned ist = IST_DOUBLE_FAULT; ist <= IST_MACHINE_CHECK; ist++)
        want.ist[ist - 1] = tss[cpu].ist[ist - 1];
    return memcmp(&tss[cpu], &want, sizeof(want)) == 0;
}
