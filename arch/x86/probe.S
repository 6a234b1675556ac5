// SPDX-License-Identifier: BSD-2-Clause
// Accesses that may fault (probe.h).

    .text

// A pair for the handler of exceptions: a fault at the first address goes on at the second.
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

    .section .note.GNU-stack, "", @progbits
