#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# isa-debug-exit with -no-shutdown: QEMU 7.2 ends with the guest's status, 10.0 and 11.1 pause and keep it.
#
# A kernel's test writes N to this device and QEMU ends with the status 2N+1. -no-shutdown is there to keep the machine
# for a debugger after a crash. With both, QEMU 7.2 ends. 10.0 stays, paused in the state `shutdown`, and its process
# has that status only once somebody says `quit`. A test runner that waits for the process then waits until its limit, and
# a debugger sees SIGQUIT, as after a triple fault.
# Seen with QEMU 7.2.22 (ends), 10.0.13 and 11.1.3 (pause).
# What helps: wait for QMP's event SHUTDOWN, whose reason is guest-shutdown, and send `quit`. The status is then right.
. "$(dirname "$0")/common.sh"

system bookworm qemu gdb as
system trixie qemu gdb
kernel bookworm exits <<'EOF'
start:  mov $0xf4, %edx
        mov $0x10, %al
        outb %al, (%dx)
stay:   hlt
        jmp stay
EOF
exit_device=(-kernel exits -device 'isa-debug-exit,iobase=0xf4,iosize=4' -no-shutdown)

guest bookworm "${exit_device[@]}"
ended
seen "QEMU 7.2.22 ends by itself, with status" 33 $ended

guest trixie "${exit_device[@]}" -S
debugger trixie >"$work/tmp/out" <<'EOF'
continue
monitor info status
monitor quit
EOF
ended
seen "QEMU 10.0.13, GDB sees" SIGQUIT "$(sed -n 's/.*received signal \([A-Z]*\),.*/\1/p' "$work/tmp/out")"
seen "QEMU 10.0.13, state" 'VM status: paused (shutdown)' "$(grep -o 'VM status: .*)' "$work/tmp/out")"
seen "QEMU 10.0.13, status after quit" 33 $ended
finish
