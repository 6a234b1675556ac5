#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# QEMU's `dump-guest-memory -p`: a mapping that spans the VGA window at 640 KiB reads as zeros from there to its end.
#
# A kernel that maps its first megabytes with large pages is mapped across the hole at 0xa0000. With -p the core has one
# segment for that mapping, whose file part stops at the hole (FileSiz 0xa0000, MemSiz all of it). GDB gives zeros for
# the rest, without an error: the kernel itself, at 1 MiB, among it. The developer sees zeroed data and no bug.
# Seen with QEMU 7.2.22 and GDB 13.1, 10.0.13 and 16.3, 11.1.3 and 18.1, with any VGA, which a PC has by default.
# What helps: no -p; then the segments are ranges of physical memory and all of it is there. Or -vga none.
. "$(dirname "$0")/common.sh"

system sid qemu gdb as
kernel sid spans <<'EOF'
start:  movl $pdpt + 3, pml4            # 4 MiB by two large pages, at 0 and at -2 GiB
        movl $pdpt + 3, pml4 + 511 * 8
        movl $pd + 3, pdpt
        movl $pd + 3, pdpt + 510 * 8
        movl $0x83, pd
        movl $0x200083, pd + 8
        paging pml4, 0x20, 0x100
        long_mode
done:   jmp done
        .balign 8
mark:   .quad 0x1122334455667788
        .bss
        .balign 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pd:     .skip 4096
EOF
mark=$(symbol sid spans mark)
upper=0xffffffff80000000

guest sid -kernel spans -m 16M -vga std -S
before=$(debugger sid <<EOF | sed -n 's/^mark //p'
hbreak *$(symbol sid spans done)
continue
printf "mark %lx\n", *(long *)($mark + $upper)
monitor dump-guest-memory -p /tmp/paged
monitor dump-guest-memory /tmp/flat
kill
EOF
)
ended

# in_core CORE ADDRESS: the 8 bytes there, by GDB.
in_core() {
    inside sid gdb -nx -q -batch -ex "target core $1" -ex "printf \"mark %lx\\n\", *(long *)($2)" 2>&1 | sed -n 's/^mark //p'
}

seen "in the guest" 1122334455667788 "$before"
seen "in a core of -p, by its virtual address" 0 "$(in_core paged "$mark + $upper")"
seen "in a core without -p, by its physical address" 1122334455667788 "$(in_core flat "$mark")"
seen "the segment of -p, FileSiz and MemSiz" "0x0a0000 0x400000" \
    "$(inside sid readelf -lW paged | awk '$3 == "0xffffffff80000000" { print $5, $6 }')"
finish
