// SPDX-License-Identifier: BSD-2-Clause
// Where the other CPUs start: real mode on a low page, straight into long mode on the boot page tables, then
// the kernel's.

#include "arch/x86/layout.h"

#define CR0_VALUE 0x80010011 // PG, WP, ET, PE
#define CR4_PAE   0x20
#define MSR_EFER  0xc0000080
#define EFER_BITS 0x900 // LME, NXE

// Copied to the low page, whose number is the start-up command's: CS:IP is page:0.
    .section .rodata
    .balign 16
    .globl ap_trampoline, ap_trampoline_end
    .code16
ap_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl gdtr - ap_trampoline
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $boot_l4, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_BITS, %eax
    wrmsr
    movl $CR0_VALUE, %eax
    movl %eax, %cr0
    ljmpl $0x08, $ap_long
gdtr:
    .short 3 * 8 - 1
    .long boot_gdt
ap_trampoline_end:

    .section .boot.text, "ax"
    .code64
ap_long:
    movq $ap_high, %rax
    jmp *%rax

// A CPU that nobody expects, or too late, stops here: its number on the bus says which one it is.
    .text
    .type ap_high, @function
ap_high:
    .cfi_startproc
    .cfi_undefined %rip // the backtrace ends here
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $1, %eax
    cpuid
    shrl $24, %ebx
    movl %ebx, %edi
    movq ap_cr3, %rax
    movq %rax, %cr3
1:  xorl %esp, %esp
    xchgq ap_stack(, %rdi, 8), %rsp // taken by one CPU, once
    testq %rsp, %rsp
    jz 2f
    xorl %ebp, %ebp // the kernel's own backtrace ends here
    call ap_main
2:  cli
    hlt
    jmp 2b
    .cfi_endproc
    .size ap_high, . - ap_high

    .section .note.GNU-stack, "", @progbits
