// SPDX-License-Identifier: BSD-2-Clause
// crash=KIND: what goes wrong in a panic, or beside it on another CPU.
#include "arch/x86/cpu.h"
#include "arch/x86/layout.h"
#include "kernel/smp.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/vmap.h"
#include "tests/guest/crash.h"

enum {
    TEXT_PAGES = 2048, // of a string: its length is counted for some 10,000,000 instructions
    SOON = 1000,       // turns that the other CPU gets to take the lock
};

static __attribute__((noinline)) void write_nowhere(void)
{
    volatile uint64_t *volatile nowhere = (volatile uint64_t *)16;

    *nowhere = 1;
}

static uint32_t printing;

// Holds the console's lock when it runs off the last page.
static void print_unended(void *arg)
{
    __atomic_store_n(&printing, 1, __ATOMIC_RELEASE);
    printk("%s", (const char *)arg);
}

void crash_two_faults(void)
{
    frame_t *frame = crash_page(NULL, CRASH_VA, VATTR_W);

    if (smp_count() < 2)
        panic("crash=two-faults needs two CPUs or more: use SMP=2");
    memset(vaddr_ptr(CRASH_VA), 'x', PAGE_SIZE);
    for (uint64_t i = 1; i < TEXT_PAGES; i++)
        if (vmap_kern(VADDR(CRASH_VA.v + i * PAGE_SIZE), frame, VATTR_W))
            panic("crash: no page of text");
    smp_run(1, print_unended, vaddr_ptr(CRASH_VA));
    while (!__atomic_load_n(&printing, __ATOMIC_ACQUIRE))
        cpu_pause();
    for (unsigned i = 0; i < SOON; i++)
        cpu_pause();
    write_nowhere();
}

static void panic_badly(void *arg)
{
    panic("crash: it is called %s", (const char *)arg);
}

void crash_panic_in_panic(void)
{
    void *volatile nowhere = (void *)16;

    for (uint32_t cpu = 1; cpu < smp_count(); cpu++)
        smp_run(cpu, panic_badly, nowhere);
    panic_badly(nowhere);
}

void crash_panic_state(void)
{
    crash_unmap(ptr_vaddr(&panic_owner));
    write_nowhere();
}

void crash_apic_unmapped(void)
{
    crash_unmap(VADDR(VA_DEVICES));
    write_nowhere();
}
