// SPDX-License-Identifier: BSD-2-Clause
// Waiting without a spinning CPU: one that waits halts, and the CPU that ends the wait wakes it.
#pragma once

#include "lib/types.h"

// What another CPU can know of this one. Invariant: a CPU with CPU_RESTS is halted, or about to be,
// with nothing in its TLB but what its wake-up needs; it goes on with all of it flushed if
// CPU_ASKED was set meanwhile. So it need not be asked, and nobody waits for it.
enum cpu_rest {
    CPU_RESTS = 1,
    CPU_ASKED = 2, // it is to flush, tlb_answer()
};

#ifdef KTF_HOST
// The CPU of host tests never waits; others rest if the test says so (struct machine).
static inline void cpu_park(void)
{
}

static inline void cpu_alarm(bool on)
{
    (void)on;
}

static inline void cpu_unpark(uint32_t cpu)
{
    (void)cpu;
}

bool cpu_ask(uint32_t cpu);
bool cpu_asked(void);
#else
/* Halts this CPU until another one calls cpu_unpark() for it, or an interrupt comes; at once if
 * that was called since it last returned. So callers look in a loop for what they wait for. With
 * interrupts off it never halts, but answers requests to flush. */
void cpu_park(void);
/* Ends that CPU's cpu_park(), or its next one. What the caller wrote before it sees then. */
void cpu_unpark(uint32_t cpu);

/* Ends this CPU's cpu_park() about every second, or no longer: for a wait that must not last for
 * ever. */
void cpu_alarm(bool on);

/* That CPU has to flush. True if it must be sent VECTOR_SHOOTDOWN and will answer; false if it
 * rests: then it flushes before it goes on, and does not answer. */
bool cpu_ask(uint32_t cpu);
/* True if this CPU was asked since it last looked. */
bool cpu_asked(void);

/* Each interrupt begins with it: this CPU rests no more. */
void cpu_awake(void);
#endif
