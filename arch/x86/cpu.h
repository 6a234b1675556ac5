// SPDX-License-Identifier: BSD-2-Clause
// Single x86 instructions as functions, and the bits of the registers that they touch.
#pragma once

#include "lib/types.h"

enum cr0_bits {
    CR0_MP = 1 << 1,
    CR0_EM = 1 << 2,
    CR0_TS = 1 << 3,
    CR0_WP = 1 << 16,
    CR0_NW = 1 << 29,
    CR0_CD = 1 << 30,
};
enum cr4_bits {
    CR4_PAE = 1 << 5,
    CR4_PGE = 1 << 7,
    CR4_OSFXSR = 1 << 9, // movaps and the like don't fault
    CR4_UMIP = 1 << 11,
    CR4_LA57 = 1 << 12,
    CR4_FSGSBASE = 1 << 16,
    CR4_PCIDE = 1 << 17,
    CR4_SMEP = 1 << 20,
    CR4_SMAP = 1 << 21,
    CR4_PKE = 1 << 22,
    CR4_CET = 1 << 23,
    CR4_PKS = 1 << 24,
};
enum rflags_bits {
    RFLAGS_IF = 1 << 9,
};
enum efer_bits {
    EFER_LME = 1 << 8,
    EFER_LMA = 1 << 10,
    EFER_NXE = 1 << 11,
};
enum msr {
    MSR_APIC_BASE = 0x1b,
    MSR_MTRR_CAP = 0xfe,
    MSR_MTRR_BASE0 = 0x200, // and every second one from there on
    MSR_MTRR_MASK0 = 0x201,
    MSR_MTRR_FIXED_64K = 0x250,
    MSR_MTRR_FIXED_16K = 0x258, // two
    MSR_MTRR_FIXED_4K = 0x268,  // eight
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2ff,
    MSR_EFER = 0xc0000080,
    MSR_GS_BASE = 0xc0000101,
    MSR_KERNEL_GS_BASE = 0xc0000102,
};

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;

    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;

    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (uint64_t)hi << 32 | lo;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;

    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return (uint64_t)hi << 32 | lo;
}

#define CR_ACCESSORS(n)                                                                            \
    static inline uint64_t read_cr##n(void)                                                        \
    {                                                                                              \
        uint64_t value;                                                                            \
                                                                                                   \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                         \
        return value;                                                                              \
    }                                                                                              \
    static inline void write_cr##n(uint64_t value)                                                 \
    {                                                                                              \
        __asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                             \
    }
CR_ACCESSORS(0)
CR_ACCESSORS(2)
CR_ACCESSORS(3)
CR_ACCESSORS(4)
#undef CR_ACCESSORS

// Debug registers that break on nothing are words that no page table can take away.
#define DR_ACCESSORS(n)                                                                            \
    static inline uint64_t read_dr##n(void)                                                        \
    {                                                                                              \
        uint64_t value;                                                                            \
                                                                                                   \
        __asm__ volatile("mov %%db" #n ", %0" : "=r"(value) : : "memory");                         \
        return value;                                                                              \
    }                                                                                              \
    static inline void write_dr##n(uint64_t value)                                                 \
    {                                                                                              \
        __asm__ volatile("mov %0, %%db" #n : : "r"(value) : "memory");                             \
    }
DR_ACCESSORS(1)
DR_ACCESSORS(2)
DR_ACCESSORS(3)
#undef DR_ACCESSORS

static inline void invlpg(vaddr_t va)
{
    __asm__ volatile("invlpg (%0)" : : "r"(va.v) : "memory");
}

static inline void wbinvd(void)
{
    __asm__ volatile("wbinvd" : : : "memory");
}

static inline void cpu_pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static inline void sti(void)
{
    __asm__ volatile("sti" : : : "memory");
}

static inline void hlt(void)
{
    __asm__ volatile("hlt" : : : "memory");
}

/* For good: an NMI only wakes it to halt again. */
static inline _Noreturn void cpu_halt(void)
{
    for (;;) {
        cli();
        hlt();
    }
}

// SMAP's key; only on processors that have SMAP (cpu_has_smap), elsewhere they are invalid opcodes.
static inline void stac(void)
{
    __asm__ volatile("stac" : : : "memory", "cc");
}

static inline void clac(void)
{
    __asm__ volatile("clac" : : : "memory", "cc");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;

    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

/*
 * The boot CPU's control registers and MSRs as the memory manager wants them: NX, write protection
 * in ring 0, SMEP, SMAP and UMIP where there are, and the PAT whose index is the enum of memory
 * types (WB, WT, UC-, UC, WP, WC). Runs before the final page tables are loaded.
 */
void cpu_init(void);

/* True if this CPU's MTRRs are the boot CPU's, as they were at boot (struct mtrr). */
bool cpu_mtrrs_hold(void);

// The protection that cpu_init() switched on in CR4 (CR4_SMEP, CR4_SMAP, CR4_UMIP, as far as there
// are); every CPU has it on, and the debugger holds them against it.
extern uint64_t cpu_cr4;
/* What it should be: whatever this CPU has of them. */
uint64_t cpu_cr4_known(void);

/* True if CR4.SMAP is on (and so stac and clac exist). */
bool cpu_has_smap(void);

/* Between the two the kernel may touch user pages; without SMAP it always may. */
static inline void user_access_begin(void)
{
    if (cpu_has_smap())
        stac();
}

static inline void user_access_end(void)
{
    if (cpu_has_smap())
        clac();
}
