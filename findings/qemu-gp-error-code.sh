#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# QEMU 7.2, long mode: the error code of #GP for a vector beyond the IDT's limit names the wrong vector.
#
# The SDM: bits 3 to 15 of the error code are the vector, bit 1 says that it is one of the IDT: vector * 8 + 2. QEMU 7.2
# pushes vector * 16 + 2 in long mode. `int $0x80` with a short IDT then reads like a fault of a gate 0x100, which does
# not exist, and `-d int` logs the same code. A handler that decodes it prints twice the vector.
# Seen with QEMU 7.2.22 under TCG; 10.0.13 and 11.1.3 push vector * 8 + 2.
# What helps: 7.2 only: halve the vector when it is more than the IDT's limit allows and even.
. "$(dirname "$0")/common.sh"

system bookworm qemu gdb as
system trixie qemu gdb
kernel bookworm short-idt <<'EOF'
start:  movl $pdpt + 3, pml4            # the first 2 MiB one to one
        movl $pd + 3, pdpt
        movl $0x83, pd
        paging pml4, 0x20, 0x100
        mov $handler, %eax
        mov %ax, gate
        movl $0x8e000008, gate + 2
        shr $16, %eax
        mov %ax, gate + 6
        long_mode
        mov $stack, %esp
        lidt idtr
        int $0x80
handler:
        hlt
        jmp handler
idtr:   .word 14 * 16 - 1               # #GP's gate, 13, is the last
        .quad idt
        .bss
        .balign 4096
idt:    .skip 13 * 16
gate:   .skip 16
        .balign 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pd:     .skip 4096
        .skip 4096
stack:
EOF
at=$(symbol bookworm short-idt handler)
for suite in bookworm trixie; do
    guest $suite -kernel short-idt -S -d int -D int.log
    code=$(debugger $suite <<EOF | sed -n 's/^code //p'
hbreak *$at
continue
printf "code %lx\n", *(long *)\$rsp
kill
EOF
    )
    ended
    logged=$(sed -n 's/.* v=0d e=\([0-9a-f]*\) .*/\1/p' "$work/tmp/int.log" | tail -n 1)
    case $suite in
    bookworm) name='QEMU 7.2.22' wanted=802 ;;
    trixie) name='QEMU 10.0.13' wanted=402 ;;
    esac
    seen "$name, int 0x80 beyond the IDT, on the stack" $wanted "$code"
    seen "$name, int 0x80 beyond the IDT, in -d int" 0$wanted "$logged"
done
finish
