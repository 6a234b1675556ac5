// SPDX-License-Identifier: BSD-2-Clause
// What the ways to go down share.
#pragma once

#include "mm/mm.h"

// Each kind has memory of its own from here on, far from what else tests map.
#define CRASH_VA   VADDR(VA_VMAP + 0x6000000000)
#define CRASH_USER VADDR(0x10000000)

/* A page of memory, mapped at va of that space (NULL: the kernel's); panics if there is none. */
frame_t *crash_page(space_t *space, vaddr_t va, unsigned attr);
/* Takes the page of the kernel's space that holds va away, as its owner might by mistake. */
void crash_unmap(vaddr_t va);

/* Bugs in what memory is used for, crash_mm.c. */
void crash_use_after_unmap(void);
void crash_table_reuse(void);
void crash_dead_cr3(void);
void crash_wild_store(void);
void crash_cpu2(void);

/* Bugs that come on top of another one, crash_panic.c. */
void crash_two_faults(void);
void crash_panic_in_panic(void);
void crash_panic_state(void);
void crash_apic_unmapped(void);

/* Bugs in what the processor itself needs, crash_cpu.c. */
void crash_no_idt(void);
void crash_dead_report(void);
void crash_root_entry(void);
void crash_poison_call(void);
void crash_nmi_stack(void);
