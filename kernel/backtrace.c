// SPDX-License-Identifier: BSD-2-Clause
// Who called whom, by frame pointers, without trusting any of them.
#include "kernel/backtrace.h"

#include "arch/x86/probe.h"
#include "boot/image.h"
#include "kernel/stack.h"
#include "lib/printk.h"

enum {
    DEPTH_MAX = 32,
};

static void print_entry(unsigned depth, uint64_t address)
{
    printk("  #%-2u 0x%016lx%s\n", depth, address,
           in_image_text(address) ? "" : " (not in the kernel's text)");
}

void backtrace_print(uint64_t rip, uint64_t rbp)
{
    unsigned depth = 0;

    printk("backtrace:\n");
    if (rip != 0)
        print_entry(depth++, rip);
    for (; depth < DEPTH_MAX; depth++) {
        uint64_t next, address;

        if (rbp == 0)
            return; // where stacks begin
        if (!IS_ALIGNED(rbp, 8) || !stack_contains(VADDR(rbp)) || !stack_contains(VADDR(rbp + 8))) {
            printk("  (ends: frame pointer 0x%lx is on no stack)\n", rbp);
            return;
        }
        // Even a known stack may have lost its page.
        if (probe_read(VADDR(rbp), &next) != 0 || probe_read(VADDR(rbp + 8), &address) != 0) {
            printk("  (ends: the stack at 0x%lx can't be read)\n", rbp);
            return;
        }
        print_entry(depth, address);
        if (next != 0 && next <= rbp && stack_of(VADDR(next)) == stack_of(VADDR(rbp))) {
            printk("  (ends: frame pointer 0x%lx leads back to 0x%lx)\n", rbp, next);
            return;
        }
        rbp = next;
    }
    printk("  (ends after %d steps)\n", DEPTH_MAX);
}
