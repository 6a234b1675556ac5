// SPDX-License-Identifier: BSD-2-Clause
// Into ring 3 by iretq; the next exception or int $0x80 from there comes back.
#include "kernel/user.h"

#include "arch/x86/cpu.h"
#include "arch/x86/tlb.h"
#include "kernel/gdt.h"
#include "kernel/idt.h"
#include "lib/string.h"

enum {
    RFLAGS_FIXED = 1 << 1, // all else off: interrupts, alignment checks
    RING_3 = 3,
};

// What user_enter() pops for iretq, behind the registers that are passed.
struct user_frame {
    uint64_t rdi, rsi, rdx;
    uint64_t rip, cs, rflags, rsp, ss;
};

/* Saves the callee's registers, stores the stack pointer in *kernel_stack, goes to ring 3. Comes
 * back at user_left, with that stack pointer. traps.S. */
void user_enter(const struct user_frame *frame, void *kernel_stack);
extern char user_left[];

// One CPU at a time.
static struct user_exit last;
static bool running;

struct user_exit user_run(vaddr_t entry, vaddr_t stack, uint64_t rdi, uint64_t rsi, uint64_t rdx)
{
    struct user_frame frame = {rdi,
                               rsi,
                               rdx,
                               entry.v,
                               SEL_USER_CODE | RING_3,
                               RFLAGS_FIXED,
                               stack.v,
                               SEL_USER_DATA | RING_3};

    uint64_t flags = interrupts_save();

    idt_allow_user(VECTOR_USER_EXIT);
    running = true;
    user_enter(&frame, tss_kernel_stack());
    interrupts_restore(flags);
    return last;
}

bool user_trap(struct trap_frame *frame)
{
    if (!running || (frame->cs & RING_3) != RING_3)
        return false;
    running = false;
    last = (struct user_exit){
        .vector = frame->vector,
        .error = frame->error,
        .address = frame->vector == VECTOR_PF ? read_cr2() : 0,
        .rip = frame->rip,
        .rax = frame->rax,
    };
    frame->rip = (uintptr_t)user_left;
    frame->cs = SEL_KERNEL_CODE;
    frame->ss = SEL_KERNEL_DATA;
    frame->rflags = RFLAGS_FIXED;
    memcpy(&frame->rsp, tss_kernel_stack(), sizeof(frame->rsp));
    return true;
}
