#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# GDB's `kill` with QEMU's -no-shutdown: QEMU 10.0 says that it is terminated, and stays.
#
# QEMU 7.2 ends at once. 10.0 and 11.1 print "Terminated via GDBstub", close the connection, and then treat the kill as
# a shutdown of the guest, which -no-shutdown turns into a pause. QMP's event gives the reason guest-shutdown. A script
# that debugs kernel after kernel leaves one QEMU behind for each, with its memory and its ports, and the next one can't
# listen.
# Seen with QEMU 7.2.22 (ends), 10.0.13 and 11.1.3 (stay).
# What helps: `monitor quit` in the place of `kill`; GDB then says that the connection is gone, and so is QEMU.
. "$(dirname "$0")/common.sh"

system bookworm qemu gdb as
system trixie qemu gdb

guest bookworm -S -no-shutdown
debugger bookworm >"$work/tmp/out" <<<kill
ended
seen "QEMU 7.2.22 ends by itself, with status" 0 $ended

mkfifo "$work/tmp/qmp.in" "$work/tmp/qmp.out"
exec 7<>"$work/tmp/qmp.in" 6<>"$work/tmp/qmp.out"
guest trixie -S -no-shutdown -qmp pipe:qmp
qmp() { # qmp COMMAND PATTERN: says it, and prints what matches in the first line that has it
    local line
    echo "{\"execute\": \"$1\"}" >&7
    while read -r -t 20 -u 6 line; do
        if grep -o "$2" <<<"$line"; then return; fi
    done
}
qmp qmp_capabilities '"return": {}' >"$work/tmp/out"
debugger trixie >"$work/tmp/out" <<<kill
seen "QEMU 10.0.13 says" "QEMU: Terminated via GDBstub" "$(grep -o 'QEMU: .*' "$work/tmp/qemu.out")"
seen "QEMU 10.0.13, QMP's event SHUTDOWN" '"reason": "guest-shutdown"' "$(qmp query-status '"reason": "guest-shutdown"')"
sleep 2
seen "QEMU 10.0.13, two seconds later" "still there" "$(kill -0 "$guest" && echo still there)"
seen "QEMU 10.0.13, QMP's answer" '"running": false' "$(qmp query-status '"running": false')"
qmp quit '"return": {}' >"$work/tmp/out"
ended
seen "QEMU 10.0.13 after quit, its status" 0 $ended
finish
