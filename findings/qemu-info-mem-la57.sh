#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# QEMU's `info mem` does not print what is mapped under 5-level paging.
#
# The same tables below another level: with 4 levels `info mem` prints the range that they map. With 5 levels it takes
# entries of a PDPT and of a page directory that are present for empty ones and follows those that are not, to physical
# address 0. Here it computes for seconds and then prints nothing, without an error. It reads as "nothing is mapped" to
# the developer whose kernel has just set CR4.LA57. From GDB, `monitor info mem` may end in "Ignoring packet error", since
# GDB waits for two seconds only. `info tlb` does print the mapping.
# Seen with QEMU 7.2.22, 10.0.13 and 11.1.3.
# What helps: `info tlb`, or the tables themselves.
. "$(dirname "$0")/common.sh"

system sid qemu gdb as
for levels in 4 5; do
    kernel sid levels$levels <<EOF
start:  movl \$pml4 + 3, pml5
        movl \$pdpt + 3, pml4
        movl \$pd + 3, pdpt
        movl \$0x83, pd                  # one large page
        paging pml$levels, $([ $levels = 5 ] && echo 0x1020 || echo 0x20), 0x100
        long_mode
done:   jmp done
        .bss
        .balign 4096
pml5:   .skip 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pd:     .skip 4096
EOF
    guest sid -kernel levels$levels -cpu max -S
    debugger sid >"$work/tmp/out" <<EOF
hbreak *$(symbol sid levels$levels done)
continue
echo tlb\n
monitor info tlb
echo mem\n
monitor info mem
echo end\n
kill
EOF
    ended
    seen "$levels levels, info tlb" "0000000000000000: 0000000000000000 --P-A---W" \
        "$(sed -n '/^tlb$/,/^mem$/p' "$work/tmp/out" | sed '1d;$d')"
    [ $levels = 5 ] && wanted= || wanted='0000000000000000-0000000000200000 0000000000200000 -rw'
    seen "$levels levels, info mem" "$wanted" "$(sed -n '/^mem$/,/^end$/p' "$work/tmp/out" | sed '1d;$d')"
done
finish
