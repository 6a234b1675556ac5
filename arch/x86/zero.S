// SPDX-License-Identifier: BSD-2-Clause
// page_zero(): 16 bytes a store, as wide as every x86-64 CPU has it.

    .text
    .globl page_zero
    .type page_zero, @function
// %rdi: the page. The kernel has no other use for the vector registers, so one is borrowed, and
// given back as it was: it may be a user's.
page_zero:
    subq $24, %rsp
    movups %xmm0, (%rsp)
    xorps %xmm0, %xmm0
    leaq 4096(%rdi), %rax
1:
    .set at, 0
    .rept 64
    movaps %xmm0, at(%rdi)
    .set at, at + 16
    .endr
    addq $1024, %rdi
    cmpq %rax, %rdi
    jne 1b
    movups (%rsp), %xmm0
    addq $24, %rsp
    ret
    .size page_zero, . - page_zero

    .section .note.GNU-stack, "", @progbits
