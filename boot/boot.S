// SPDX-License-Identifier: BSD-2-Clause
// Entry from GRUB2 (multiboot2, 32-bit protected mode, paging off) up to kernel_main in long mode.
//
// Everything here but the stack is linked at its physical address, in sections of its own (.boot.*): it is gone
// from the address space as soon as the memory manager has loaded its own page tables.

#include "arch/x86/layout.h"

#define MB2_MAGIC_HEADER 0xe85250d6
#define MB2_MAGIC_LOADER 0x36d76289
#define MB2_OPTIONAL     1

#define CR0_PG    0x80000000
#define CR4_PAE   0x20
#define MSR_EFER  0xc0000080
#define EFER_LME  0x100
#define EFER_NXE  0x800
#define CPUID_LM  0x20000000 // leaf 0x80000001, EDX
#define CPUID_NX  0x00100000

#define COM1      0x3f8
#define BOOT_STACK_SIZE 16384

    .section .boot.header, "a"
    .balign 8
mb2_header:
    .long MB2_MAGIC_HEADER
    .long 0 // i386
    .long mb2_header_end - mb2_header
    .long -(MB2_MAGIC_HEADER + 0 + (mb2_header_end - mb2_header))

    // Information request: without a memory map there is no point in starting.
    .balign 8
1:  .short 1, 0
    .long 2f - 1b
    .long 6 // memory map
2:
    // Wanted, but not needed: command line, modules, the ACPI root pointers.
    .balign 8
1:  .short 1, MB2_OPTIONAL
    .long 2f - 1b
    .long 1, 3, 14, 15
2:
    // Modules page-aligned, so that each has its frames to itself.
    .balign 8
    .short 6, 0
    .long 8
    .balign 8
    .short 0, 0 // end
    .long 8
mb2_header_end:

    .section .boot.text, "ax"
    .code32
    .globl boot_start
    .type boot_start, @function
boot_start:
    cli
    cld
    movl $bad_loader, %esi
    cmpl $MB2_MAGIC_LOADER, %eax
    jne boot_fail
    movl %ebx, %edi // first argument of kernel_main; CPUID and the MSRs leave it alone

    movl $bad_cpu, %esi
    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb boot_fail
    movl $0x80000001, %eax
    cpuid
    andl $(CPUID_LM | CPUID_NX), %edx
    cmpl $(CPUID_LM | CPUID_NX), %edx
    jne boot_fail

    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $boot_l4, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $(EFER_LME | EFER_NXE), %eax
    wrmsr
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    lgdt boot_gdtr
    ljmp $0x08, $boot_long

// Too early for printk: the text at ESI goes out through COM1 as the firmware left it.
boot_fail:
    lodsb
    testb %al, %al
    jz 3f
    movb %al, %bl
    movl $100000, %ecx // an absent port must not keep us here
    movw $(COM1 + 5), %dx
1:  inb %dx, %al
    testb $0x20, %al
    jnz 2f
    loop 1b
2:  movb %bl, %al
    movw $COM1, %dx
    outb %al, %dx
    jmp boot_fail
3:  cli
    hlt
    jmp 3b

    .code64
boot_long:
    .cfi_startproc
    .cfi_undefined %rip // the backtrace ends here
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movq $boot_stack_top, %rsp
    xorl %ebp, %ebp // the kernel's own, too
    movl %edi, %edi // physical address of the multiboot2 information, upper half clear
    movq $kernel_main, %rax
    call *%rax
1:  cli
    hlt
    jmp 1b
    .cfi_endproc
    .size boot_start, . - boot_start

    .section .boot.data, "aw"
bad_loader:
    .asciz "KTF: not started by a multiboot2 boot loader\n"
bad_cpu:
    .asciz "KTF: this processor lacks long mode or NX\n"

    .balign 8
    .globl boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff // 64-bit code
    .quad 0x00cf93000000ffff // data
boot_gdtr:
    .short boot_gdtr - boot_gdt - 1
    .long boot_gdt

// Page tables, finished by the linker: nothing has to be computed before paging is on.
#define TABLE 0x03 // present, writable
#define LARGE 0x83 // the same, 2 MiB page

    .balign 4096
    .globl boot_l4
boot_l4:
    .quad boot_l3_low + TABLE
    .fill 510, 8, 0
    .quad boot_l3_high + TABLE
boot_l3_low: // the first 4 GiB at their own addresses
    .quad boot_l2_low + TABLE
    .quad boot_l2_low + 0x1000 + TABLE
    .quad boot_l2_low + 0x2000 + TABLE
    .quad boot_l2_low + 0x3000 + TABLE
    .fill 508, 8, 0
boot_l2_low:
    .set page, 0
    .rept 2048
    .quad (page << 21) + LARGE
    .set page, page + 1
    .endr

// The last 512 GiB: the image (the first GiB of memory again), and the start of each window for metadata, whose
// L1 tables are in arch/x86/boot_window.S.
#define L3_INDEX(va) (((va) >> 30) & 511)
#define L2_INDEX(va) (((va) >> 21) & 511)
boot_l3_high:
    .fill L3_INDEX(VA_FRAMES) - 0, 8, 0
    .quad boot_l2_frames + TABLE
    .fill L3_INDEX(VA_MAPPINGS) - L3_INDEX(VA_FRAMES) - 1, 8, 0
    .quad boot_l2_mappings + TABLE
    .fill L3_INDEX(VA_WINDOW) - L3_INDEX(VA_MAPPINGS) - 1, 8, 0
    .quad boot_l2_window + TABLE
    .fill L3_INDEX(VA_SHADOWS) - L3_INDEX(VA_WINDOW) - 1, 8, 0
    .quad boot_l2_shadows + TABLE
    .fill L3_INDEX(VA_SMALL) - L3_INDEX(VA_SHADOWS) - 1, 8, 0
    .quad boot_l2_small + TABLE
    .fill L3_INDEX(VA_IMAGE) - L3_INDEX(VA_SMALL) - 1, 8, 0
    .quad boot_l2_low + TABLE
    .fill 511 - L3_INDEX(VA_IMAGE), 8, 0
boot_l2_frames:
    .quad boot_l1_frames + TABLE
    .fill 511, 8, 0
boot_l2_mappings:
    .quad boot_l1_mappings + TABLE
    .fill 511, 8, 0
boot_l2_window:
    .quad boot_l1_window + TABLE
    .fill 511, 8, 0
boot_l2_shadows:
    .quad boot_l1_shadows + TABLE
    .fill 511, 8, 0
boot_l2_small:
    .fill L2_INDEX(VA_NODES) - 0, 8, 0
    .quad boot_l1_nodes + TABLE
    .fill L2_INDEX(VA_TABLES) - L2_INDEX(VA_NODES) - 1, 8, 0
    .quad boot_l1_tables + TABLE
    .fill L2_INDEX(VA_SPACES) - L2_INDEX(VA_TABLES) - 1, 8, 0
    .quad boot_l1_spaces + TABLE
    .fill 511 - L2_INDEX(VA_SPACES), 8, 0

// The stack is part of the image: it must still be there when the boot page tables are not.
    .section .bss.boot_stack, "aw", @nobits
    .balign 4096
    .globl boot_stack_bottom, boot_stack_top
boot_stack_bottom:
    .skip BOOT_STACK_SIZE
boot_stack_top:

    .section .note.GNU-stack, "", @progbits
