// SPDX-License-Identifier: BSD-2-Clause
// What each CPU needs before it can take an exception: segments, a task state, stacks.
#include "kernel/gdt.h"
#include "kernel/smp.h"
#include "kernel/stack.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/printk.h"

enum {
    KERNEL_STACK_PAGES = 4,
    IST_STACK_PAGES = 2,
};

static uint64_t kernel_stack[CPU_MAX];

// Each stack whose gate or task needs one; running out of memory here is the end.
static vaddr_t create(uint32_t cpu, const char *what, unsigned pages)
{
    char name[16];
    vaddr_t top;
    int err;

    snprintk(name, sizeof(name), "cpu%u%s", cpu, what);
    err = stack_create(name, pages, &top);
    if (err != 0)
        panic("no stack '%s': %s", name, error_name(err));
    return top;
}

void cpu_stacks_create(uint32_t cpu)
{
    kernel_stack[cpu] = create(cpu, "", KERNEL_STACK_PAGES).v;
    tss_set_ist(cpu, IST_DOUBLE_FAULT, create(cpu, " #DF", IST_STACK_PAGES));
    tss_set_ist(cpu, IST_NMI, create(cpu, " NMI", IST_STACK_PAGES));
    tss_set_ist(cpu, IST_MACHINE_CHECK, create(cpu, " #MC", IST_STACK_PAGES));
}

vaddr_t cpu_stack(uint32_t cpu)
{
    return VADDR(kernel_stack[cpu]);
}

void cpu_tables_init(void)
{
    gdt_init();
    tss_init();
}
