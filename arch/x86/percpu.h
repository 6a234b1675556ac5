// SPDX-License-Identifier: BSD-2-Clause
// What each CPU has of its own, found through its GS base.
#pragma once

#include "lib/types.h"

enum {
    CPU_MAX = 64, // masks of CPUs are 64 bits wide
};

#ifdef KTF_HOST
// Host tests have one CPU at a time, this one.
extern uint32_t host_cpu;

static inline uint32_t cpu_number(void)
{
    return host_cpu;
}

static inline uint32_t cpu_token(void)
{
    return host_cpu + 1;
}

static inline uint64_t cpu_others(void)
{
    return ~(UINT64_C(1) << host_cpu);
}

uint64_t cpu_journal(void);

static inline uint64_t cpu_journal_at(uint64_t offset)
{
    return cpu_journal() + offset;
}
#else
#include "arch/x86/probe.h"

// A function that the CPU runs when it is idle (kernel/smp.c).
struct cpu_work {
    void (*fn)(void *arg);
    void *arg;
    uint32_t given;  // counts up with each function
    uint32_t done;   // follows `given`
    uint32_t waiter; // token of the CPU that waits for it, 0 if none does
};

// Invariant: the GS base of CPU n is &percpu[n], from its first C function on.
struct percpu {
    uint32_t number;   // 0 is the boot CPU
    uint32_t token;    // number + 1: what a lock that it holds says
    uint64_t others;   // mask of all CPUs but this one
    uint64_t journal;  // address of its ring (mm/journal.h)
    uint32_t held;     // debug builds: a bit for the rank of each lock that it holds
    uint32_t apic_id;  // its number on the bus
    uint32_t noise;    // interrupts taken, but not those that ask for work
    uint32_t reported; // 1 while this CPU prints an exception
    uint32_t rest;     // enum cpu_rest, written atomically
    uint32_t unparked; // 1: its next cpu_park() returns at once
    struct probe_fault probe;
    struct cpu_work work;
};
extern struct percpu percpu[CPU_MAX];

#define PERCPU_READ(type, member)                                                                  \
    ({                                                                                             \
        type percpu_value;                                                                         \
        __asm__("mov %%gs:%c1, %0"                                                                 \
                : "=r"(percpu_value)                                                               \
                : "i"(__builtin_offsetof(struct percpu, member)));                                 \
        percpu_value;                                                                              \
    })

/* This CPU's number, 0 to CPU_MAX - 1; its number + 1; the mask of all others. */
static always_inline uint32_t cpu_number(void)
{
    return PERCPU_READ(uint32_t, number);
}

static always_inline uint32_t cpu_token(void)
{
    return PERCPU_READ(uint32_t, token);
}

static always_inline uint64_t cpu_others(void)
{
    return PERCPU_READ(uint64_t, others);
}

/* The address of a byte of its ring of the journal. */
static always_inline uint64_t cpu_journal_at(uint64_t offset)
{
    __asm__("add %%gs:%c1, %0"
            : "+r"(offset)
            : "i"(__builtin_offsetof(struct percpu, journal))
            : "cc");
    return offset;
}

static inline struct percpu *this_cpu(void)
{
    return &percpu[cpu_number()];
}

/* Loads the GS base of CPU `number`, whose ring of the journal is `journal`. Before anything else
 * of C on that CPU. */
void percpu_init(uint32_t number, const void *journal);
#endif
