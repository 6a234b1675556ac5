# SPDX-License-Identifier: BSD-2-Clause
# A made-up CPU with all that exceptions need: page tables, IDT, GDT, TSS, stacks; to be broken in one place.
"""Computer: page tables and tables of one kernel without frames. Stopped: a command's context at its stop."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np

from fake_guest import Memory, Plain

from ktf.x86.paging import NX, P, RW, US
from ktf.x86.registers import CONTROL, GENERAL, SEGMENTS, Registers, Segment
from ktf.kernel.session import Session
from ktf.x86.cpu import Cpu

PAGE = 4096
TEXT, DATA, RODATA = 0x100000, 0x101000, 0x102000
USER_TEXT, USER_DATA, USER_RODATA = 0x400000, 0x401000, 0x402000
STACK, IST1, IST2, RSP0 = 0x110000, 0x120000, 0x130000, 0x140000  # each one page, below it nothing
GDT, TSS, HOLE = 0x150000, 0x151000, 0x160000
IDT = 0x171000 - 14 * 16  # the gate of #PF is the first one in its second page
IDT_PAGES = (0x170000, 0x171000)
KERNEL_CS, USER_CS = 0x8, 0x23
CR0, CR4 = 0x80010011, 0x300020  # PG, WP; SMAP, SMEP, PAE
MAPPED = {
    TEXT: P,
    DATA: P | RW | NX,
    RODATA: P | NX,
    USER_TEXT: P | US,
    USER_DATA: P | RW | US | NX,
    USER_RODATA: P | US | NX,
    **dict.fromkeys((STACK, IST1, IST2, RSP0, GDT, TSS, *IDT_PAGES), P | RW | NX),
}


class Computer:
    """Its memory; any number of CPUs use it."""

    def __init__(self) -> None:
        self.memory = Memory(64)
        self.pa: dict[int, int] = {}
        for i, (va, flags) in enumerate(MAPPED.items()):
            self.pa[va] = (40 + i) * PAGE
            self.memory.map(va, self.pa[va], flags)
        code, data, user_code = 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00AFFB000000FFFF
        self.write(GDT, struct.pack("<5Q", 0, code, data, 0x00CFF3000000FFFF, user_code))
        for vector in range(32):
            self.gate(vector)
        self.gate(8, ist=1)
        self.gate(2, ist=2)
        # Each word of the TSS another stack: only the right offset gives the right one.
        tops = [RSP0 + PAGE, HOLE + 0x1000, HOLE + 0x2000, 0, IST1 + PAGE, IST2 + PAGE]
        tops += [HOLE + 0x1000 * i for i in range(3, 8)]
        self.write(TSS, struct.pack("<I11Q", 0, *tops))

    def write(self, va: int, data: bytes) -> None:
        """Into the page there, behind all page tables."""
        at = self.pa[va & -PAGE] + va % PAGE
        self.memory.words.view(np.uint8).reshape(-1)[at : at + len(data)] = list(data)

    def gate(self, vector: int, ist: int = 0, kind: int = 0x8E, selector: int = KERNEL_CS) -> None:
        """Writes one: its handler is in TEXT."""
        raw = struct.pack("<HHBBHI4x", TEXT & 0xFFFF, selector, ist, kind, TEXT >> 16, 0)
        self.write(IDT + vector * 16, raw)

    def unmap(self, *vas: int) -> None:
        """Takes these pages away."""
        for va in vas:
            self.memory.map(va, 0, 0)

    def cpu(self, number: int = 0, user: int = False, **changed: int) -> Registers:
        """Registers by name; "idt_limit"."""
        general = {**dict.fromkeys(GENERAL, 0), "rip": TEXT, "rsp": STACK + 0x800, "rflags": 2}
        control = {**dict.fromkeys(CONTROL, 0), "cr0": CR0, "cr4": CR4}
        control["cr3"] = self.memory.root * PAGE
        if user:
            general.update(rip=USER_TEXT, rsp=USER_DATA + 0x800)
        for values in (general, control):
            values.update({name: value for name, value in changed.items() if name in values})
        segments = {name: Segment(0, 0, 0, 0) for name in SEGMENTS}
        segments["cs"] = Segment(USER_CS if user else KERNEL_CS, 0, 0, 0)
        segments["gs"] = Segment(0, changed.get("gs_base", 0), 0, 0)
        segments["gdt"] = Segment(0, GDT, 39, 0)
        segments["idt"] = Segment(0, IDT, changed.get("idt_limit", 32 * 16 - 1), 0)
        segments["tr"] = Segment(0x28, TSS, 103, 0)
        return Registers(number, general, segments, control, 0xD00)

    def session(self, *cpus: Registers, selected: int = 0) -> Session:
        """A stop of these CPUs."""
        mine = list(cpus)
        known = [
            Cpu(r.number, r["cr0"], r["cr2"], r["cr3"], r["cr4"], r.efer, r["rip"], r["rsp"])
            for r in mine
        ]
        return Session(known, selected, self.memory.reader, phys_bits=40, registers=lambda: mine)


class Stopped(Plain):
    """QEMU's word for the machine, its log, and the instructions by their addresses (2 bytes each)."""

    def __init__(
        self, session: Session, code: dict[int, str], status: str = "", log: str = ""
    ) -> None:
        super().__init__(session)
        self.code, self.status, self.log = code, status, log

    def instruction(self, va: int, code: bytes = b"") -> tuple[str, int]:
        """Of those that it knows."""
        return (self.code[va], 2) if va in self.code else ("", 0)

    def vm_status(self) -> str:
        """As it was told."""
        return self.status

    def fault_log(self) -> str:
        """As it was told."""
        return self.log


def real_mode(registers: Registers) -> Registers:
    """The same CPU before it was started."""
    return replace(registers, control={**registers.control, "cr0": 0x10, "cr3": 0}, efer=0)
