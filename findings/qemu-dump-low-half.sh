#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# QEMU's `dump-guest-memory -p`, long mode: each address of the lower half is written as one of the upper half.
#
# The walk behind -p sets bits 48 to 63 of every virtual address, whatever bit 47 is. What is mapped at 4 MiB gets a segment at
# 0xffff000000400000, an address that can't even exist with 4 levels. GDB then can't read it: user programs, an identity
# mapping, the stack of early code. The upper half, where Linux is, is right, so it is not noticed at once.
# Seen with QEMU 7.2.22, 10.0.13 and 11.1.3.
# What helps: no -p, and a page walk of your own over physical memory.
. "$(dirname "$0")/common.sh"

system sid qemu gdb as
kernel sid low <<'EOF'
start:  movl $pdpt + 3, pml4            # the first 2 MiB one to one, 2 MiB more at 4 MiB
        movl $pd + 3, pdpt
        movl $0x83, pd
        movl $0x200083, pd + 16
        paging pml4, 0x20, 0x100
        long_mode
        mov $0x400000, %ebx
        movl $0x11223344, (%rbx)
done:   jmp done
        .bss
        .balign 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pd:     .skip 4096
EOF
guest sid -kernel low -m 16M -S
before=$(debugger sid <<EOF | sed -n 's/^mark //p'
hbreak *$(symbol sid low done)
continue
printf "mark %x\n", *(int *)0x400000
monitor dump-guest-memory -p /tmp/paged
kill
EOF
)
ended
seen "in the guest, at 0x400000" 11223344 "$before"
seen "in the core, the segment of the frame at 0x200000" 0xffff000000400000 \
    "$(inside sid readelf -lW paged | awk '$1 == "LOAD" && $4 == "0x0000000000200000" { print $3 }')"
seen "in the core, GDB at 0x400000" "Cannot access memory at address 0x400000" \
    "$(inside sid gdb -nx -q -batch -ex 'target core paged' -ex 'x/wx 0x400000' 2>&1 | grep -o "Cannot.*")"
finish
