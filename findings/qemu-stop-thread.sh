#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# QEMU with several CPUs: after a triple fault GDB selects a CPU that has nothing to do with it.
#
# QEMU 10.0's stub reports the stop for the last CPU, whichever failed. When the first one of four fails and the others were
# never started, GDB selects thread 4: `bt` and `info registers` show an idle CPU in the firmware. 7.2 reports the first
# CPU, whichever failed. The kernel developer reads the registers of the wrong CPU. A guest's panic is reported alike.
# Seen with QEMU 7.2.22 (the first CPU), 10.0.13 and 11.1.3 (the last CPU).
# What helps: look at all threads and decide by their registers; `-d int,cpu_reset` logs which CPU it was.
. "$(dirname "$0")/common.sh"

system bookworm qemu gdb as
system trixie qemu gdb
kernel bookworm first-fails <<'EOF'
start:  lidt none
fails:  int3
none:   .word 0
        .long 0
EOF
kernel bookworm last-fails <<'EOF'
start:  mov $code, %esi                 # to the page at which the other CPU starts
        mov $0x8000, %edi
        mov $end - code, %ecx
        rep movsb
        movl $3 << 24, 0xfee00310       # to the local APIC with ID 3: INIT, then SIPI with that page
        movl $0x4500, 0xfee00300
        movl $3 << 24, 0xfee00310
        movl $0x4608, 0xfee00300
spin:   pause
        jmp spin
        .code16
code:   lidtw %cs:none - code
        int3
none:   .word 0
        .long 0
end:
EOF

# stops SUITE KERNEL ADDRESS: which thread GDB selects after the fault, and which one is at the address that failed.
stops() {
    guest "$1" -kernel "$2" -smp 4 -no-reboot -no-shutdown -S
    debugger "$1" >"$work/tmp/out" <<'EOF'
continue
printf "selected %d\n", $_thread
thread apply all -q printf "thread %d is at %lx\n", $_thread, $pc
monitor quit
EOF
    ended
    echo "selects $(sed -n 's/^selected //p' "$work/tmp/out"), failed $(sed -n "s/^thread \(.*\) is at $3\$/\1/p" "$work/tmp/out")"
}

first=$(printf '%x' "$(symbol bookworm first-fails fails)")
last=6 # the int3, behind an lidt of 6 bytes
seen "QEMU 7.2.22, CPU 0 fails" "selects 1, failed 1" "$(stops bookworm first-fails "$first")"
seen "QEMU 7.2.22, CPU 3 fails" "selects 1, failed 4" "$(stops bookworm last-fails $last)"
seen "QEMU 10.0.13, CPU 0 fails" "selects 4, failed 1" "$(stops trixie first-fails "$first")"
seen "QEMU 10.0.13, CPU 3 fails" "selects 4, failed 4" "$(stops trixie last-fails $last)"
finish
