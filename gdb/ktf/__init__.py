# SPDX-License-Identifier: BSD-2-Clause
# The package behind the ktf commands: a guest's bytes -> tables and frames as arrays -> rules -> text and JSON.
"""Page tables and frames of a stopped guest, read, decoded and checked.

Only target, register, stops, alarm, expressions, settings and printers talk to gdb. The way of the data, one module a step:

    target    registers, symbols, types, monitor     qemu      whose memory, found how
    readers   physical pages as arrays               layout    structs as columns
    paging    walks over page tables                 kernel    the kernel's objects by virtual address
    spaces    address spaces                         session   all of it, for one command at one stop
    maps      ranges, text, JSON                     commands  parse, call, print
"""
