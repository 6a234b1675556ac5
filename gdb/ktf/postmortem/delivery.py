# SPDX-License-Identifier: BSD-2-Clause
# What a CPU would do at its stop: whether its instruction faults, whether the fault can be delivered.
"""Processor(session, registers): faults derived from registers, instruction, IDT, TSS and page tables.

It follows the processor (SDM vol. 3, 6.8 to 6.15, 4.6): fetch, operands, then the gate, the stack, the
push of the frame. CR2 is not believed: it holds the last address of a chain, not the first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from ktf.errors import KtfError
from ktf.kernel.context import Context
from ktf.kernel.kernel import VirtualMemory
from ktf.kernel.session import Session
from ktf.memory.readers import PAGE
from ktf.x86.cpu import CR0_WP, CR4_SMAP, CR4_SMEP
from ktf.x86.division import fails
from ktf.x86.exceptions import (
    DE,
    DF,
    EXCEPTIONS,
    FETCH,
    GP,
    NP,
    PF,
    PRESENT,
    RESERVED,
    SS,
    UD,
    USER,
    WITH_ERROR,
    WRITE,
    Fault,
    doubles,
)
from ktf.x86.operands import Access, accesses, software_vector
from ktf.x86.paging import U, W, X
from ktf.x86.registers import Registers
from ktf.x86.trace import trace

RFLAGS_AC = 1 << 18
GATE, DESCRIPTOR = 16, 8  # bytes of a gate in 64-bit mode, of a code segment's descriptor
GATE_KINDS = (0x0E, 0x0F)  # interrupt and trap gate; SDM vol. 3, 3.5
IN_IDT = 2  # in an error code, SDM vol. 3, 6.13
LDT, RPL = 4, 3  # in a selector
S, CODE = 1 << 12, 1 << 11  # in a descriptor's second word, as the next two lines
SEGMENT_P, LONG, DB = 1 << 15, 1 << 21, 1 << 22
DPL_SHIFT = 13
TSS_RSP0, TSS_IST = 4, 36  # SDM vol. 3, 8.7
CHAIN_MAX, VECTORS = 6, 256
LONGEST = 15  # bytes of an instruction
U64 = (1 << 64) - 1
LOW = {"a": "rax", "b": "rbx", "c": "rcx", "d": "rdx"}


@dataclass
class Gate:
    """An entry of the IDT."""

    handler: int
    selector: int
    ist: int
    present: bool
    kind: int = 0x8E  # P, DPL and type

    @property
    def dpl(self) -> int:
        """From which ring on an instruction may ask for it."""
        return self.kind >> 5 & 3


@dataclass
class Chain:
    """Exceptions whose delivery was begun, in their order; why the last one failed, if it did."""

    faults: list[Fault] = field(default_factory=list)
    broken: Fault | None = None  # what was met while the last one was delivered
    what: str = ""  # at which thing: "IDT", "TSS", "stack of #DF (IST 1)"
    software: bool = False  # the first one was asked for, by int3 and its like

    @property
    def triple(self) -> bool:
        """True if a double fault could not be delivered."""
        return self.broken is not None and bool(self.faults) and self.faults[-1].vector == DF


class Processor:
    """One CPU with these registers, in 64-bit mode. cr2 is not used."""

    def __init__(
        self, session: Session, registers: Registers, text: str = "", size: int = 0
    ) -> None:
        self.session = session
        self.registers = registers
        self.text = text  # of the instruction, "" if nobody can tell
        self.root = registers.control["cr3"] >> 12 & 0xFF_FFFF_FFFF
        self.next_rip = registers["rip"] + size & U64
        self.memory = VirtualMemory(session.reader, self.root, session.rules)
        self.user = registers["cs"] & 3 == 3

    def value(self, name: str) -> int:
        """A register by its name in an operand."""
        if name in self.registers.general or name.endswith("_base"):
            return self.registers[name]
        if name.startswith("e") or name[1:] == "x" and name[0] in LOW:
            return self.registers["r" + name.lstrip("e")] & (
                0xFFFF_FFFF if name[0] == "e" else 0xFFFF
            )
        if name.startswith("r") and name.endswith("d"):
            return self.registers[name[:-1]] & 0xFFFF_FFFF
        raise KeyError(name)

    # --- one access --------------------------------------------------------------------------------

    def check(self, access: Access, fetch: bool = False, implicit: bool = False) -> Fault | None:
        """The fault that it ends in, None if it goes through. implicit: by the processor, for a table of its."""
        user = self.user and not implicit
        last = access.va + max(access.size, 1) - 1
        pages = {access.va, last & U64 & -PAGE if last // PAGE != access.va // PAGE else access.va}
        for va in sorted(pages):
            if not self.session.rules.is_canonical(va):
                return Fault(SS if access.stack else GP)
            found = self._page(va, access.write, fetch, user, implicit)
            if found:
                return found
        return None

    def _page(self, va: int, write: bool, fetch: bool, user: bool, implicit: bool) -> Fault | None:
        found = trace(self.session.reader, self.root, self.session.rules, va)
        error = (WRITE if write else 0) | (USER if user else 0) | (FETCH if fetch else 0)
        if found.pa is None:
            entry = found.steps[-1].entry
            return Fault(PF, error | (PRESENT | RESERVED if entry & 1 else 0), va)
        control, perm = self.registers.control, found.perm
        bad = bool(user and not perm & U) or bool(fetch and not perm & X)
        bad |= bool(write and not perm & W and (user or control["cr0"] & CR0_WP))
        if not user and perm & U:
            guarded = control["cr4"] & CR4_SMAP and (
                implicit or not self.registers["rflags"] & RFLAGS_AC
            )
            bad |= bool(fetch and control["cr4"] & CR4_SMEP) or bool(not fetch and guarded)
        return Fault(PF, error | PRESENT, va) if bad else None

    # --- the instruction -----------------------------------------------------------------------------

    def first(self) -> tuple[Fault | None, bool]:
        """What the instruction at rip ends in, None if it would go through; True if it asks for it itself."""
        fetch = self.check(Access(self.registers["rip"], 1, False), fetch=True)
        if fetch:
            return fetch, False
        vector = software_vector(self.text)
        if vector is not None:
            return Fault(vector), vector != UD
        try:
            for access in accesses(self.text, self.value, self.next_rip):
                fault = self.check(access)
                if fault:
                    return fault, False
            if fails(self.text, self.value, self.memory.read, self.next_rip):
                return Fault(DE), False
        except (KeyError, KtfError):
            pass  # an operand of a register that nobody tells, or in no RAM
        return None, False

    # --- delivery ------------------------------------------------------------------------------------

    def gate(self, vector: int) -> tuple[Gate | None, Fault | None, str]:
        """Its gate; or the fault of looking for it, and where."""
        idt = self.registers.segments["idt"]
        va = idt.base + vector * GATE & U64
        if vector * GATE + GATE - 1 > idt.limit:
            why = f"the IDT's limit is {idt.limit:#x}" if idt.limit else "the IDT's limit is 0"
            why += f", before gate {vector}" if idt.limit else ""
            return None, Fault(GP, vector * 8 + IN_IDT, why=why), "IDT"
        fault = self.check(Access(va, GATE, False), implicit=True)
        if fault:
            return None, fault, "IDT"
        low, selector, ist, kind, middle, high = struct.unpack(
            "<HHBBHI4x", self.memory.read(va, GATE)
        )
        gate = Gate(low | middle << 16 | high << 32, selector, ist & 7, bool(kind & 0x80), kind)
        name = f"gate {vector} of the IDT, at {va:#x},"
        if kind & 0x1F not in GATE_KINDS:
            why = f"{name} is no interrupt or trap gate (type {kind & 0x1F:#x})"
            return gate, Fault(GP, vector * 8 + IN_IDT, why=why), "IDT"
        if not gate.present:
            return gate, Fault(NP, vector * 8 + IN_IDT, why=f"{name} is not present"), "IDT"
        return gate, None, "IDT"

    def segment(self, gate: Gate, vector: int) -> tuple[Fault | None, str]:
        """The fault of its handler's code segment, if any, and in which table that is (SDM vol. 3, 6.14, 5.8)."""
        selector, table = gate.selector, "ldt" if gate.selector & LDT else "gdt"
        what, error = table.upper(), selector & ~RPL
        name = f"gate {vector} of the IDT names selector {selector:#x}"
        if not selector & ~RPL:
            return Fault(GP, why=f"{name}, the null selector"), what
        place, at = self.registers.segments[table], selector & ~(RPL | LDT)
        if at + DESCRIPTOR - 1 > place.limit:
            why = f"{name}, beyond the {what}'s limit {place.limit:#x}"
            return Fault(GP, error, why=why), what
        va = place.base + at & U64
        fault = self.check(Access(va, DESCRIPTOR, False), implicit=True)
        if fault:
            return fault, what
        low, high = struct.unpack("<II", self.memory.read(va, DESCRIPTOR))
        held = f"{name}, whose descriptor {high << 32 | low:#018x}"
        if not high & S or not high & CODE:
            return Fault(GP, error, why=f"{held} is of no code segment"), what
        if high >> DPL_SHIFT & 3 > self.registers["cs"] & RPL:
            return Fault(GP, error, why=f"{held} is for a less privileged ring"), what
        if not high & SEGMENT_P:
            return Fault(NP, error, why=f"{held} is not present"), what
        if not high & LONG or high & DB:
            return Fault(GP, error, why=f"{held} is of no 64-bit code"), what
        return None, what

    def stack(self, gate: Gate, vector: int) -> tuple[int, Fault | None, str]:
        """The stack pointer that the frame is pushed at, and what that stack is; or a fault of the TSS."""
        if not gate.ist and not self.user:
            return self.registers["rsp"], None, "stack"
        tss = self.registers.segments["tr"]
        offset = TSS_IST + 8 * (gate.ist - 1) if gate.ist else TSS_RSP0
        fault = self.check(Access(tss.base + offset & U64, 8, False), implicit=True)
        if fault:
            return 0, fault, "TSS"
        (rsp,) = struct.unpack("<Q", self.memory.read(tss.base + offset & U64, 8))
        name = f"IST {gate.ist} stack" if gate.ist else "RSP0 stack"
        return rsp, None, name

    def deliver(self, fault: Fault, software: bool = False) -> tuple[Fault | None, str]:
        """The fault that its delivery ends in, None if its handler is reached; and at which thing.

        software: an instruction asked for it.
        """
        try:
            gate, broken, what = self.gate(fault.vector)
            if gate is None or broken:
                return broken, what
            if software and gate.dpl < self.registers["cs"] & RPL:
                why = f"gate {fault.vector} of the IDT is not for ring 3"
                return Fault(GP, fault.vector * 8 + IN_IDT, why=why), what
            broken, what = self.segment(gate, fault.vector)
            if broken:
                return broken, what
            rsp, broken, what = self.stack(gate, fault.vector)
            if broken:
                return broken, what
            size = 40 + (8 if fault.vector in WITH_ERROR else 0)
            top = rsp & ~15
            for at in range(8, size + 8, 8):
                pushed = Access(top - at & U64, 8, True, True)
                broken = self.check(pushed, implicit=bool(gate.ist or self.user))
                if broken:
                    return broken, what
        except KtfError as e:
            return Fault(PF), str(e)
        return None, ""

    def events(self, fault: Fault) -> list[int]:
        """The vectors whose delivery at this point would end in that page fault; [] if the instruction itself does."""
        if fault.vector != PF or fault.error & (USER | FETCH) or self.first()[0] == fault:
            return []
        idt = self.registers.segments["idt"]
        vectors = range(min((idt.limit + 1) // GATE, VECTORS))
        try:
            raw = self.memory.read(idt.base, len(vectors) * GATE)
        except KtfError:
            return [v for v in vectors if self.deliver(Fault(v))[0] == fault]
        met: dict[
            bytes, Fault | None
        ] = {}  # by selector, IST and kind: gates with the same meet the same
        kinds = [raw[v * GATE + 2 : v * GATE + 6] for v in vectors]
        for v in vectors:
            if kinds[v] not in met:
                met[kinds[v]] = self.deliver(Fault(v))[0]
        return [v for v in vectors if met[kinds[v]] == fault]

    def lost(self) -> tuple[Fault | None, list[int]]:
        """Where rip is a handler that can't be executed: the fault of its first instruction, and whose handler it is.

        Then that fault leads there again, or to the next such handler, and so on for ever.
        """
        rip = self.registers["rip"]
        fault = self.check(Access(rip, 1, False), fetch=True)
        found = []
        for vector in range(EXCEPTIONS) if fault is not None else ():
            try:
                gate, broken, _ = self.gate(vector)
            except KtfError:
                continue
            if gate is not None and broken is None and gate.handler == rip:
                found.append(vector)
        return fault, found

    def chain(self) -> Chain:
        """From the instruction on, until a handler is reached or the processor gives up."""
        result = Chain()
        fault, result.software = self.first()
        while fault is not None and len(result.faults) < CHAIN_MAX:
            result.faults.append(fault)
            result.broken, result.what = self.deliver(
                fault, result.software and len(result.faults) == 1
            )
            if result.broken is None or fault.vector == DF:
                break
            fault = Fault(DF) if doubles(fault.vector, result.broken.vector) else result.broken
        return result


def processor(session: Session, context: Context, registers: Registers) -> Processor:
    """That CPU, with its instruction."""
    rip = registers["rip"]
    text, size = context.instruction(rip, _code(Processor(session, registers), rip))
    return Processor(session, registers, text, size)


def _code(one: Processor, va: int) -> bytes:
    """The bytes there by that CPU's page tables, as many as an instruction may have and as can be read."""
    for size in (LONGEST, -va % PAGE or PAGE):
        try:
            return one.memory.read(va, min(size, LONGEST))
        except KtfError:
            continue
    return b""
