#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# QEMU's exit status is 0 after a triple fault with -no-reboot, and after a guest's panic.
#
# -no-reboot is the usual way to let a crash end QEMU. It then ends as after a power-off, with status 0 and no word on
# stderr. So it does when the guest reports a panic through pvpanic. A test in CI that trusts the status passes with a
# kernel that crashes at its first instruction.
# Seen with QEMU 7.2.22, 10.0.13 and 11.1.3.
# What helps: let the good end alone have a status of its own (isa-debug-exit), -action panic=exit-failure, or QMP's events.
. "$(dirname "$0")/common.sh"

system sid qemu gdb as
kernel sid triple-fault <<'EOF'
start:  lidt none
        int3
none:   .word 0
        .long 0
EOF
kernel sid panics <<'EOF'
start:  mov $0x505, %edx
        mov $1, %al                     # pvpanic: the guest has panicked
        outb %al, (%dx)
stay:   hlt
        jmp stay
EOF
guest sid -kernel triple-fault -no-reboot
ended
seen "a triple fault, -no-reboot" 0 $ended
guest sid -kernel panics -device pvpanic
ended
seen "a panic" 0 $ended
guest sid -kernel panics -device pvpanic -action panic=exit-failure
ended
seen "a panic, -action panic=exit-failure" 1 $ended
seen "what QEMU printed" "" "$(cat "$work/tmp/qemu.out")"
finish
