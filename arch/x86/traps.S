// SPDX-License-Identifier: BSD-2-Clause
// The stubs behind the gates of the IDT, and the accesses that may fault (probe.h).

    .text

// Exceptions for which the processor pushes an error code: 8, 10 to 14, 17, 21, 29, 30.
#define ERROR_CODE_VECTORS 0x60227d00

    .balign 16
    .globl vector_stubs
    .type vector_stubs, @function
vector_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector >= 32 || !((ERROR_CODE_VECTORS >> (vector & 31)) & 1)
    pushq $0
    .endif
    pushq $vector
    jmp trap_common
    .set vector, vector + 1
    .endr
    .size vector_stubs, . - vector_stubs

// With the call frame information of a signal frame, so that GDB's backtrace crosses the exception.
    .balign 16
    .type trap_common, @function
trap_common:
    .cfi_startproc
    .cfi_signal_frame
    .cfi_def_cfa %rsp, 56
    .cfi_offset %rip, -40
    .cfi_offset %rsp, -16
    .macro save reg
    pushq %\reg
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %\reg, 0
    .endm
    save rax
    save rbx
    save rcx
    save rdx
    save rsi
    save rdi
    save rbp
    save r8
    save r9
    save r10
    save r11
    save r12
    save r13
    save r14
    save r15
    cld
    movq %rsp, %rdi
    call trap_handle
    .macro restore reg
    popq %\reg
    .cfi_adjust_cfa_offset -8
    .cfi_restore %\reg
    .endm
    restore r15
    restore r14
    restore r13
    restore r12
    restore r11
    restore r10
    restore r9
    restore r8
    restore rbp
    restore rdi
    restore rsi
    restore rdx
    restore rcx
    restore rbx
    restore rax
    addq $16, %rsp // vector, error code
    .cfi_adjust_cfa_offset -16
    iretq
    .cfi_endproc
    .size trap_common, . - trap_common

// A pair for trap_handle: a fault at the first address goes on at the second.
    .macro fixup from, to
    .pushsection .extable, "a"
    .balign 8
    .quad \from, \to
    .popsection
    .endm

// int probe_read(vaddr_t va, uint64_t *out)
    .globl probe_read
    .type probe_read, @function
probe_read:
    .cfi_startproc
1:  movq (%rdi), %rax
    movq %rax, (%rsi)
    xorl %eax, %eax
    ret
    fixup 1b, probe_failed
    .cfi_endproc
    .size probe_read, . - probe_read

// int probe_write(vaddr_t va, uint64_t value)
    .globl probe_write
    .type probe_write, @function
probe_write:
    .cfi_startproc
1:  movq %rsi, (%rdi)
    xorl %eax, %eax
    ret
    fixup 1b, probe_failed
    .cfi_endproc
    .size probe_write, . - probe_write

// int probe_exec(vaddr_t va): the fault's address is va itself, so the pair is found by the return address.
    .globl probe_exec
    .type probe_exec, @function
probe_exec:
    .cfi_startproc
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
0:  call *%rdi
1:  xorl %eax, %eax
    popq %rbp
    .cfi_def_cfa %rsp, 8
    ret
2:  .cfi_def_cfa %rbp, 16
    movq %rbp, %rsp
    popq %rbp
    .cfi_def_cfa %rsp, 8
    jmp probe_failed
    fixup 0b, 2b // a target that isn't canonical
    fixup 1b, 2b
    .cfi_endproc
    .size probe_exec, . - probe_exec

    .type probe_failed, @function
probe_failed:
    .cfi_startproc
    movl $-1, %eax
    ret
    .cfi_endproc
    .size probe_failed, . - probe_failed

// void user_enter(const struct user_frame *frame, void *kernel_stack): from ring 3 the processor comes back
// on the stack that is stored there, and user_trap() then at user_left.
    .globl user_enter
    .type user_enter, @function
user_enter:
    .cfi_startproc
    .cfi_undefined %rip // no backtrace across: the frame is pushed by hand
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rsi)
    pushq 56(%rdi) // ss
    pushq 48(%rdi) // rsp
    pushq 40(%rdi) // rflags
    pushq 32(%rdi) // cs
    pushq 24(%rdi) // rip
    movq 16(%rdi), %rdx
    movq 8(%rdi), %rsi
    movq (%rdi), %rdi
    xorl %eax, %eax
    xorl %ebx, %ebx
    xorl %ecx, %ecx
    xorl %ebp, %ebp
    xorl %r8d, %r8d
    xorl %r9d, %r9d
    xorl %r10d, %r10d
    xorl %r11d, %r11d
    xorl %r12d, %r12d
    xorl %r13d, %r13d
    xorl %r14d, %r14d
    xorl %r15d, %r15d
    iretq
    .globl user_left
user_left:
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
    .cfi_endproc
    .size user_enter, . - user_enter

// _Noreturn void stack_switch(vaddr_t top, void (*entry)(void))
    .globl stack_switch
    .type stack_switch, @function
stack_switch:
    .cfi_startproc
    .cfi_undefined %rip // the backtrace ends here, GDB's too
    movq %rdi, %rsp
    xorl %ebp, %ebp
    call *%rsi
    ud2
    .cfi_endproc
    .size stack_switch, . - stack_switch

    .section .note.GNU-stack, "", @progbits
