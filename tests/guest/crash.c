// SPDX-License-Identifier: BSD-2-Clause
// crash=KIND: ways to go down, each the honest consequence of a bug.
#include "tests/guest/crash.h"

#include "arch/x86/cpu.h"
#include "mm/table.h"
#include "kernel/idt.h"
#include "kernel/stack.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "tests/guest/test.h"

// What stands before it is called, not jumped to as the last thing that a function does.
#define KEEP_FRAME() __asm__ volatile("")

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

// The same by a call that should never have been made: the journal knows who made it.
static void idt_unmapped(void)
{
    crash_unmap(ptr_vaddr(idt));
    __asm__ volatile("int3");
}

static void page_fault(void)
{
    // Through a variable, so that the compiler doesn't see what it is asked for.
    volatile uint64_t *volatile nowhere = (volatile uint64_t *)16;

    *nowhere = 1;
}

static void null_call(void)
{
    void (*volatile nobody)(void) = NULL;

    nobody();
    KEEP_FRAME();
}

static void write_text(void)
{
    *(volatile uint32_t *)(uintptr_t)&null_call = 0xcccccccc;
}

// Bytes that are a function, on a page that is not executable.
static void exec_data(void)
{
    crash_page(NULL, CRASH_VA, VATTR_W);
    *(volatile uint8_t *)vaddr_ptr(CRASH_VA) = 0xc3; // ret
    ((void (*)(void))vaddr_ptr(CRASH_VA))();
    KEEP_FRAME();
}

static void smap(void)
{
    space_t *space;

    if (!(read_cr4() & CR4_SMAP))
        panic("crash=smap needs a CPU with SMAP: CPU=max has it");
    if (space_create("user", &space))
        panic("crash: no address space");
    crash_page(space, CRASH_USER, VATTR_W | VATTR_U);
    if (space_switch(space))
        panic("crash: the space can't be loaded");
    *(volatile uint64_t *)vaddr_ptr(CRASH_USER) = 1;
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

// Then there is no stack for the double fault either.
static void ist_unmapped(void)
{
    for (uint32_t i = 0; i < stack_count; i++)
        if (strcmp(stacks[i].name, "cpu0 #DF") == 0)
            crash_unmap(VADDR(stacks[i].top.v - PAGE_SIZE));
    stack_overflow();
}

// The processor's frame of a page fault fits on the stack, what its entry code saves does not.
static void stack_full(void)
{
    for (uint32_t i = 0; i < stack_count; i++)
        if (strcmp(stacks[i].name, "cpu0") == 0)
            __asm__ volatile("movq %0, %%rsp\n\tmovq $1, 16" : : "r"(stacks[i].bottom.v + 0x70));
}

// An address bit that the CPU does not have. SDM vol. 3, 4.5.4: reserved.
static void reserved_bit(void)
{
    struct pt_walk w;

    if (mm.phys_limit > PG_ADDR)
        panic("crash=reserved-bit needs a CPU with fewer than 52 address bits");
    crash_page(NULL, CRASH_VA, VATTR_W);
    pt_walk(kernel_space(), CRASH_VA, 1, &w);
    table_entries(w.slot)[w.index] |= mm.phys_limit;
    *(volatile uint64_t *)vaddr_ptr(CRASH_VA) = 1;
}

static void give_up(void)
{
    panic("crash=panic was asked for");
}

static const struct {
    const char *kind, *text;
    void (*run)(void);
} kinds[] = {
    {"null-call", "a call through a null pointer", null_call},
    {"use-after-unmap", "a buffer is read after it was unmapped and put", crash_use_after_unmap},
    {"write-text", "a write to the kernel's own text", write_text},
    {"exec-data", "a call into a page that is not executable", exec_data},
    {"smap", "a user page is written by the kernel, without stac", smap},
    {"stack-overflow", "infinite recursion into the stack's guard page", stack_overflow},
    {"stack-full", "a page fault where the stack has room for half of its registers", stack_full},
    {"reserved-bit", "an entry with a reserved bit, then a write through it", reserved_bit},
    {"table-reuse", "a page is put while an entry lives on, and is written as a page table",
     crash_table_reuse},
    {"idt-unmapped", "the page of the IDT is unmapped, then int3", idt_unmapped},
    {"ist-unmapped", "the stack of the double fault is unmapped, then a stack overflow",
     ist_unmapped},
    {"dead-cr3", "the page tables of a destroyed space are loaded", crash_dead_cr3},
    {"wild-store", "a wild store hits an entry, which is noticed 100,000 instructions later",
     crash_wild_store},
    {"cpu2", "a buffer is read after it was unmapped, on CPU 2", crash_cpu2},
    {"no-idt", "an IDT without gates is loaded, then a division by zero, on the last CPU",
     crash_no_idt},
    {"dead-report", "the page of the IDT is unmapped, then a panic with a bad string",
     crash_dead_report},
    {"root-entry", "the kernel's entry of its top-level table is cleared", crash_root_entry},
    {"poison-call", "a call through a pointer that is junk", crash_poison_call},
    {"nmi-stack", "the stack of the NMI is unmapped, then an NMI comes", crash_nmi_stack},
    {"triple-fault", "the page table entry of the IDT is cleared, then int3", triple_fault},
    {"page-fault", "a write to address 0x10", page_fault},
    {"panic", "panic() is called", give_up},
    {"two-faults", "a write to address 0x10, while CPU 1 faults with the console's lock",
     crash_two_faults},
    {"panic-in-panic", "all CPUs panic, each with a message that can't be read",
     crash_panic_in_panic},
    {"panic-state", "what the kernel writes down in a panic is unmapped, then a write to 0x10",
     crash_panic_state},
    {"apic-unmapped", "the local APIC is unmapped, then a write to 0x10", crash_apic_unmapped},
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
