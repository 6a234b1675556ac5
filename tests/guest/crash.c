// SPDX-License-Identifier: BSD-2-Clause
// crash=KIND: ways to go down, each the honest consequence of a bug.
#include "arch/x86/cpu.h"
#include "arch/x86/idt.h"
#include "arch/x86/pgtable.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/mm.h"
#include "tests/guest/test.h"

// The bug: an entry cleared behind its record's back, and it happens to map the IDT. The next
// exception of any kind finds no gate, nor does the double fault that follows from it.
static void triple_fault(void)
{
    struct pt_walk w;

    pt_walk(kernel_space(), ptr_vaddr(idt), 1, &w);
    assert(w.shadow != 0);
    table_entries(w.slot)[w.index] = 0;
    invlpg(ptr_vaddr(idt));
    __asm__ volatile("int3");
}

static void page_fault(void)
{
    // Through a variable, so that the compiler doesn't see what it is asked for.
    volatile uint64_t *volatile nowhere = (volatile uint64_t *)16;

    *nowhere = 1;
}

// Infinite recursion, up to the guard page.
static void stack_overflow(void)
{
    volatile char fill[512];

    fill[0] = 1;
    if (fill[0] != 0)
        stack_overflow();
    fill[1] = 2; // not a tail call
}

static void give_up(void)
{
    panic("crash=panic was asked for");
}

static const struct {
    const char *kind, *text;
    void (*run)(void);
} kinds[] = {
    {"triple-fault", "the page table entry of the IDT is cleared, then int3", triple_fault},
    {"page-fault", "a write to address 0x10", page_fault},
    {"stack-overflow", "infinite recursion into the stack's guard page", stack_overflow},
    {"panic", "panic() is called", give_up},
};

int crash(const char *kind)
{
    bool list = strcmp(kind, "list") == 0;

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (list)
            printk("crash=%s %s\n", kinds[i].kind, kinds[i].text);
        else if (strcmp(kind, kinds[i].kind) == 0)
            kinds[i].run();
    }
    return list ? 0 : -1;
}
