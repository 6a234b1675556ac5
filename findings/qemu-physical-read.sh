#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# QEMU's gdbstub in physical-memory mode: a read across the end of RAM is zeros in 10.0, and is refused whole in 11.1.
#
# Up to 10.0 the stub gives zeros for an address at which there is no memory, so an empty page cannot be told from a page
# that is not there. 11.1 answers E14, also to a read that begins in RAM: the bytes that exist are not given. A script
# that reads memory in blocks of equal size loses the last block, or stops, once QEMU is upgraded.
# Seen with QEMU 7.2.22 and 10.0.13 (zeros) and 11.1.3 (E14). The monitor's `xp` refuses in all of them.
# What helps: take the ranges of RAM from `info mtree -f`, and let no read leave one.
. "$(dirname "$0")/common.sh"

for suite in trixie sid; do
    system $suite qemu gdb
    guest $suite -m 16M -S
    debugger $suite >"$work/tmp/$suite.out" <<'EOF'
maint packet Qqemu.PhyMemMode:1
echo last\n
maint packet mfffff8,8
echo across\n
maint packet mfffff8,10
echo behind\n
maint packet m1000000,8
echo monitor\n
monitor xp/1gx 0x1000000
kill
EOF
    ended
done

# answer SUITE WORD: what the stub said to the packet after this word.
answer() {
    sed -n "/^$2\$/,/^received/s/^received: //p" "$work/tmp/$1.out"
}

seen "QEMU 10.0.13, the last 8 bytes of RAM" '"0000000000000000"' "$(answer trixie last)"
seen "QEMU 10.0.13, 8 bytes of RAM and 8 behind it" '"00000000000000000000000000000000"' "$(answer trixie across)"
seen "QEMU 10.0.13, 8 bytes behind RAM" '"0000000000000000"' "$(answer trixie behind)"
seen "QEMU 11.1.3, the last 8 bytes of RAM" '"0000000000000000"' "$(answer sid last)"
seen "QEMU 11.1.3, 8 bytes of RAM and 8 behind it" '"E14"' "$(answer sid across)"
seen "QEMU 11.1.3, 8 bytes behind RAM" '"E14"' "$(answer sid behind)"
for suite in trixie sid; do
    seen "$suite, xp behind RAM" 1 "$(grep -c 'Cannot access memory' "$work/tmp/$suite.out")"
done
finish
