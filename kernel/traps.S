// SPDX-License-Identifier: BSD-2-Clause
// The stubs behind the gates of the IDT, and the way into ring 3 and back.

    .text

// Exceptions for which the processor pushes an error code: 8, 10 to 14, 17, 21, 29, 30.
#define ERROR_CODE_VECTORS 0x60227d00

// With the call frame information of a signal frame, from the first instruction on: GDB's backtrace crosses the
// exception wherever in here a CPU is stopped. `more` is what lies on the stack below the processor's own five words.
    .macro processor_frame more
    .cfi_def_cfa %rsp, 40 + \more
    .cfi_offset %rip, -40
    .cfi_offset 51, -32 // cs, by its number in DWARF
    .cfi_offset 49, -24 // rflags
    .cfi_offset %rsp, -16
    .cfi_offset 52, -8 // ss
    .endm

    .balign 16
    .globl vector_stubs
    .type vector_stubs, @function
vector_stubs:
    .cfi_startproc
    .cfi_signal_frame
    .set vector, 0
    .rept 256
    .balign 16
    .if vector >= 32 || !((ERROR_CODE_VECTORS >> (vector & 31)) & 1)
    processor_frame 0
    pushq $0
    .cfi_adjust_cfa_offset 8
    .else
    processor_frame 8
    .endif
    pushq $vector
    .cfi_adjust_cfa_offset 8
    jmp trap_common
    .set vector, vector + 1
    .endr
    .cfi_endproc
    .size vector_stubs, . - vector_stubs

    .balign 16
    .type trap_common, @function
trap_common:
    .cfi_startproc
    .cfi_signal_frame
    processor_frame 16 // and the vector
    .macro save reg
    pushq %\reg
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %\reg, 0
    .endm
    .irp reg, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    save \reg
    .endr
    cld
    movq %rsp, %rdi
    call trap_handle
    .macro restore reg
    popq %\reg
    .cfi_adjust_cfa_offset -8
    .cfi_restore %\reg
    .endm
    .irp reg, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax
    restore \reg
    .endr
    addq $16, %rsp // vector, error code
    .cfi_adjust_cfa_offset -16
    iretq
    .cfi_endproc
    .size trap_common, . - trap_common

// void user_enter(const struct user_frame *frame, void *kernel_stack): from ring 3 the processor comes back
// on the stack that is stored there, and user_trap() then at user_left.
    .globl user_enter
    .type user_enter, @function
user_enter:
    .cfi_startproc
    .irp reg, rbx, rbp, r12, r13, r14, r15
    save \reg
    .endr
    movq %rsp, (%rsi)
    .irp offset, 56, 48, 40, 32, 24 // ss, rsp, rflags, cs, rip
    pushq \offset(%rdi)
    .cfi_adjust_cfa_offset 8
    .endr
    movq 16(%rdi), %rdx
    movq 8(%rdi), %rsi
    movq (%rdi), %rdi
    .irp reg, eax, ebx, ecx, ebp, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d
    xorl %\reg, %\reg
    .endr
    iretq
    .globl user_left
user_left:
    .cfi_def_cfa_offset 56
    .irp reg, r15, r14, r13, r12, rbp, rbx
    restore \reg
    .endr
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
