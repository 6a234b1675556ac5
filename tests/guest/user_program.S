// SPDX-License-Identifier: BSD-2-Clause
// What tests/guest/user.c runs in ring 3, copied to a page of its own.

    .section .rodata
    .globl user_program
user_program:
    cmpl $1, %edi
    jb 1f // USER_READ
    je 2f // USER_WRITE
    cmpl $3, %edi
    jb 3f // USER_JUMP
    je 4f // USER_PUSH
    hlt
1:  movq (%rsi), %rax
    int $0x80
2:  movq %rdx, (%rsi)
    int $0x80
3:  jmp *%rsi
4:  pushq %rdx
    popq %rax
    int $0x80
    .globl user_program_end
user_program_end:

    .section .note.GNU-stack, "", @progbits
