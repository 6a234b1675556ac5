// SPDX-License-Identifier: BSD-2-Clause
// Kernel stacks, each between two guard pages, in the window VA_STACKS.
#include "kernel/stack.h"

#include "arch/x86/layout.h"
#include "boot/image.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/frame.h"
#include "mm/vmap.h"

struct stack_info stacks[STACK_MAX];
uint32_t stack_count;

// Takes the last pages of a stack that did not become one back again.
static void unmap_pages(vaddr_t bottom, unsigned pages)
{
    while (pages-- > 0) {
        vaddr_t va = VADDR(bottom.v + (uint64_t)pages * PAGE_SIZE);
        frame_t *frame = find_kern_va_frame(vaddr_ptr(va));

        if (vunmap(NULL, va, frame) == 0)
            put_frame(frame);
    }
}

static int map_pages(vaddr_t bottom, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++) {
        frame_t *frame;
        int err = get_frame(ORDER_4K, &frame);

        if (err == 0) {
            err = vmap_kern(VADDR(bottom.v + (uint64_t)i * PAGE_SIZE), frame, VATTR_W);
            if (err != 0)
                put_frame(frame);
        }
        if (err != 0) {
            unmap_pages(bottom, i);
            return err;
        }
        // Also for QEMU, which looks at each write to a page that once held code (GRUB's) until all
        // of it is overwritten: 30 times slower.
        memset(vaddr_ptr(VADDR(bottom.v + (uint64_t)i * PAGE_SIZE)), 0, PAGE_SIZE);
    }
    return 0;
}

int stack_create(const char *name, unsigned pages, vaddr_t *top)
{
    struct stack_info *stack = &stacks[stack_count];
    uint64_t bottom, bytes = (uint64_t)pages * PAGE_SIZE;
    int err;

    if (name == NULL || top == NULL || pages == 0)
        return -EINVAL;
    if (stack_count == STACK_MAX)
        return -ENOMEM;
    // One page below for the guard; the one above is below the next stack's guard, so that neither
    // is shared.
    bottom = (stack_count == 0 ? VA_STACKS : stacks[stack_count - 1].top.v + PAGE_SIZE) + PAGE_SIZE;
    if (bytes > VA_STACKS + STACK_WINDOW_BYTES - PAGE_SIZE - bottom)
        return -ENOMEM;
    err = map_pages(VADDR(bottom), pages);
    if (err != 0)
        return err;
    stack->bottom = VADDR(bottom);
    stack->top = VADDR(bottom + bytes);
    string_copy(stack->name, name, sizeof(stack->name));
    stack_count++;
    *top = stack->top;
    return 0;
}

int stack_of(vaddr_t va)
{
    for (uint32_t i = 0; i < stack_count; i++) {
        if (va.v >= stacks[i].bottom.v && va.v < stacks[i].top.v)
            return (int)i;
    }
    if (va.v >= (uintptr_t)boot_stack_bottom && va.v < (uintptr_t)boot_stack_top)
        return (int)stack_count;
    return -1;
}

bool stack_contains(vaddr_t va)
{
    return stack_of(va) >= 0;
}

void stack_print(vaddr_t rsp)
{
    for (uint32_t i = 0; i < stack_count; i++) {
        const struct stack_info *s = &stacks[i];

        // An empty stack's pointer is its top.
        if (rsp.v >= s->bottom.v && rsp.v <= s->top.v)
            printk("  on stack '%s', 0x%lx of 0x%lx bytes used\n", s->name, s->top.v - rsp.v,
                   s->top.v - s->bottom.v);
        else if (rsp.v < s->bottom.v && s->bottom.v - rsp.v <= PAGE_SIZE)
            printk("  in the guard page below stack '%s': it has overflowed\n", s->name);
    }
    if (stack_of(rsp) == (int)stack_count)
        printk("  on the boot stack\n");
}
