// SPDX-License-Identifier: BSD-2-Clause
// spin_wake() for spin_unlock(), whose callers' registers all stay as they are.

    .text

// In: r11 the lock.
    .balign 16
    .globl spin_wake_saving
    .type spin_wake_saving, @function
spin_wake_saving:
    .cfi_startproc
    .macro save reg
    pushq %\reg
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %\reg, 0
    .endm
    .macro restore reg
    popq %\reg
    .cfi_adjust_cfa_offset -8
    .cfi_restore %\reg
    .endm
    save rax
    save rcx
    save rdx
    save rsi
    save rdi
    save r8
    save r9
    save r10
    movq %r11, %rdi
    call spin_wake
    restore r10
    restore r9
    restore r8
    restore rdi
    restore rsi
    restore rdx
    restore rcx
    restore rax
    ret
    .cfi_endproc
    .size spin_wake_saving, . - spin_wake_saving

    .section .note.GNU-stack, "", @progbits
