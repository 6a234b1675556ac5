# SPDX-License-Identifier: BSD-2-Clause
# The package behind the ktf commands: a guest's bytes -> tables and frames as arrays -> rules -> text and JSON.
"""Page tables and frames of a stopped guest, read, decoded and checked.

The way of the data, from the bottom up; a package imports only what stands before it:

    errors, findings   what can go wrong, and what was found wrong
    memory             whose memory, and physical pages as arrays
    x86                page tables, registers, exceptions
    kernel             our kernel's objects, and a Session: all of them at one stop
    rules  show        what must hold; text and JSON
    cores  acpi        ELF cores; ACPI's tables
    postmortem         why the guest stopped
    commands           parse, call, print
    debugger           all that talks to gdb
"""
