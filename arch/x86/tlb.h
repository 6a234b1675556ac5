// SPDX-License-Identifier: BSD-2-Clause
// Flushing the TLB of this CPU (SDM vol. 3, 4.10.4).
#pragma once

#include "lib/types.h"

// What tlb_answer() calls. It does nothing until mm/ sets it.
extern void (*tlb_answer_hook)(void);

/* Flushes what other CPUs have asked this one to flush, if anything. */
static inline void tlb_answer(void)
{
    tlb_answer_hook();
}

#ifdef KTF_HOST
/* There is no TLB; tests can look on (struct machine). */
void tlb_flush_page(vaddr_t va);
void tlb_flush_all(void);

static inline void cr3_load(paddr_t root)
{
    (void)root;
}

static inline void cpu_relax(void)
{
}

static inline uint64_t interrupts_save(void)
{
    return 0;
}

static inline void interrupts_restore(uint64_t flags)
{
    (void)flags;
}
#else
/* Of a loop that waits for another CPU. */
static inline void cpu_relax(void)
{
    asm volatile("pause" : : : "memory");
}

/* Interrupts off; and as they were. */
static inline uint64_t interrupts_save(void)
{
    uint64_t flags;

    asm volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags) : : "memory");
    return flags;
}

static inline void interrupts_restore(uint64_t flags)
{
    asm volatile("pushq %0\n\tpopfq" : : "r"(flags) : "memory", "cc");
}

/* The translation of va, and all cached upper-level entries. */
static inline void tlb_flush_page(vaddr_t va)
{
    asm volatile("invlpg (%0)" : : "r"(va.v) : "memory");
}

/* Everything; no global pages are in use. */
static inline void tlb_flush_all(void)
{
    uint64_t cr3;

    asm volatile("mov %%cr3, %0" : "=r"(cr3));
    asm volatile("mov %0, %%cr3" : : "r"(cr3) : "memory");
}

static inline void cr3_load(paddr_t root)
{
    asm volatile("mov %0, %%cr3" : : "r"(root.v) : "memory");
}

/* The root table in CR3, without its flags. */
static inline paddr_t cr3_read(void)
{
    uint64_t cr3;

    asm volatile("mov %%cr3, %0" : "=r"(cr3));
    return PADDR(cr3 & ~UINT64_C(0xfff));
}
#endif
