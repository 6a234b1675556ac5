#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# QEMU's `info tlb`, 32-bit paging: physical addresses that are wrong, with nothing that says so.
#
# PAE: an entry that is not executable (NX, bit 63) is shown with this bit inside of its physical address. PSE-36: a 4 MiB
# page above 4 GiB is shown without the upper bits of its address, so two pages seem to map the same memory. A script or a
# developer that checks which frames are mapped where takes a wrong alias, or none, for the truth.
# Seen with QEMU 7.2.22, 10.0.13 and 11.1.3. The paging itself is right, and so is `gva2gpa` of the same monitor.
# What helps: read the tables, or ask gva2gpa page by page.
. "$(dirname "$0")/common.sh"

system sid qemu gdb as
kernel sid pae <<'EOF'
start:  movl $pd + 1, pdpt
        movl $0x83, pd                  # 2 MiB pages: the first is one to one
        movl $0x400083, pd + 8          # the second is at 4 MiB, not executable
        movl $0x80000000, pd + 12
        paging pdpt, 0x20, 0x800
done:   jmp done
        .bss
        .balign 4096
pdpt:   .skip 4096
pd:     .skip 4096
EOF
kernel sid pse36 <<'EOF'
start:  movl $0x83, pd                  # 4 MiB pages: the first is one to one
        movl $0x2083, pd + 4            # the second is at 4 GiB: its bit 13 is bit 32 of the address
        paging pd, 0x10
done:   jmp done
        .bss
        .balign 4096
pd:     .skip 4096
EOF

# shows KERNEL ADDRESS: the physical address of a page as `info tlb` has it, and as gva2gpa has it.
shows() {
    guest sid -kernel "$1" -m 5G -cpu max -S
    debugger sid >"$work/tmp/out" <<EOF
hbreak *$(symbol sid "$1" done)
continue
monitor info tlb
monitor gva2gpa 0x$2
kill
EOF
    ended
    echo "$(sed -n "s/^0*$2: \([0-9a-f]*\) .*/\1/p" "$work/tmp/out") $(sed -n 's/^gpa: //p' "$work/tmp/out")"
}

seen "PAE, not executable, info tlb and gva2gpa" "8000000000400000 0x400000" "$(shows pae 200000)"
seen "PSE-36, info tlb and gva2gpa" "0000000000000000 0x100000000" "$(shows pse36 400000)"
finish
