#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# GDB with a multiboot kernel's file, which is ELF32, can't attach to qemu-system-x86_64.
#
# QEMU's -kernel takes a multiboot kernel as ELF32 only, even if it is to run in long mode. With that file GDB settles
# on i386, rejects the description of registers that the stub sends, and then finds its answer too long: `target remote`
# fails with "Remote 'g' packet reply is too long". Without a file it attaches. The message names neither the file nor
# the way out.
# Seen with GDB 13.1, 16.3 and 18.1, QEMU 7.2.22, 10.0.13 and 11.1.3.
# What helps: `set architecture i386:x86-64` before `target remote`, or the 64-bit file of the same kernel.
. "$(dirname "$0")/common.sh"

system sid qemu gdb as
kernel sid loops <<'EOF'
start:  jmp start
EOF
guest sid -kernel loops -S

# attach OPTION...: what comes of it: the pc, or the error without its numbers.
attach() {
    debugger sid "$@" <<'EOF' | sed -n "s/^pc //p; s/^\\(Remote 'g' packet reply is too long\\).*/\\1/p"
printf "pc %lx\n", $pc
disconnect
EOF
}

seen "without a file, pc" fff0 "$(attach)"
seen "with the ELF32 file" "Remote 'g' packet reply is too long" "$(attach -iex 'file loops')"
seen "with it and set architecture, pc" fff0 "$(attach -iex 'file loops' -iex 'set architecture i386:x86-64')"
seen "with the ELF64 file of the same code, pc" fff0 "$(attach -iex 'file loops.elf64')"
debugger sid >"$work/tmp/out" <<<kill
ended
finish
