# SPDX-License-Identifier: BSD-2-Clause
# What ktf-postmortem says of refused accesses, of callers, and of exceptions that no gate leads on from.
"""Tests of ktf.denied, ktf.caller, ktf.intlog.excerpt and of the gates and code segments in ktf.delivery."""

from __future__ import annotations

import struct
import unittest

import numpy as np

from fake_guest import Memory
from ktf.postmortem.caller import behind_call
from ktf.postmortem.delivery import Processor
from ktf.postmortem.denied import RFLAGS_AC, denied
from ktf.x86.exceptions import BP, DF, FETCH, GP, NP, PF, PRESENT, USER, WRITE, Fault
from ktf.postmortem.intlog import excerpt, last_chain
from ktf.x86.paging import P, RW, U, W, X
from ktf.x86.registers import CONTROL, GENERAL, SEGMENTS, Registers, Segment
from ktf.x86.cpu import CR4_SMAP, CR4_SMEP

IDT, GDT, STACK, LIMIT = 0x10000, 0x11000, 0x12000, 0xFFF
CODE64, DATA, CODE32 = 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF
NOT_THERE, RING3 = CODE64 & ~(1 << 47), CODE64 | 3 << 45


def registers(cs: int = 8, idt_limit: int = LIMIT, cr4: int = 0x20, rflags: int = 2) -> Registers:
    """Those of a CPU whose tables lie where Machine puts them."""
    general = {n: 0 for n in GENERAL} | {"rsp": STACK + 0x800, "rflags": rflags}
    segments = {n: Segment(0, 0, 0, 0) for n in SEGMENTS}
    segments |= {"cs": Segment(cs, 0, 0, 0), "idt": Segment(0, IDT, idt_limit, 0)}
    segments["gdt"] = Segment(0, GDT, 0x3F, 0)
    control = {n: 0 for n in CONTROL} | {"cr0": 0x80010011, "cr4": cr4, "cr3": 0}
    return Registers(0, general, segments, control, 0xD00)


class Delivery(unittest.TestCase):
    """Gates and descriptors in page tables of our own."""

    def setUp(self) -> None:
        self.memory = Memory(64)
        for i, va in enumerate((IDT, GDT, STACK)):
            self.memory.map(va, (32 + i) << 12, P | RW)
        for i, descriptor in enumerate((0, CODE64, DATA, CODE32, NOT_THERE, RING3)):
            self.memory.entries(33)[i] = descriptor
        for vector in range(32):
            self.gate(vector)

    def gate(self, vector: int, selector: int = 8, kind: int = 0x8E) -> None:
        """Its gate leads to 0x1000."""
        raw = struct.pack("<HHBBHI4x", 0x1000, selector, 0, kind, 0, 0)
        self.memory.entries(32)[2 * vector : 2 * vector + 2] = np.frombuffer(raw, np.uint64)

    def deliver(self, vector: int, **changes: int) -> tuple[Fault | None, str]:
        """What the delivery of that exception meets. software=1: asked for by an instruction."""
        software = bool(changes.pop("software", 0))
        mine = registers(**changes)
        mine.control["cr3"] = self.memory.root << 12
        return Processor(self.memory.session(), mine).deliver(Fault(vector), software)

    def meets(self, why: str, what: str, fault: Fault, vector: int = BP, **changes: int) -> None:
        """That fault, error code included, with that reason."""
        found, at = self.deliver(vector, **changes)
        self.assertEqual((found, at), (fault, what))
        self.assertIn(why, found.why if found else "")

    def test_healthy(self) -> None:
        """All reach their handlers."""
        for vector in (BP, GP, DF, PF):
            self.assertIsNone(self.deliver(vector)[0])

    def test_limit(self) -> None:
        """No gate, or not all of it, is within the IDT."""
        self.meets("the IDT's limit is 0", "IDT", Fault(GP, 8 * BP + 2), idt_limit=0)
        self.meets("limit is 0x86, before gate 8", "IDT", Fault(GP, 66), DF, idt_limit=0x86)
        self.assertIsNone(self.deliver(DF, idt_limit=0x8F)[0])

    def test_gate(self) -> None:
        """Of another type, not present, not for ring 3."""
        self.gate(BP, kind=0x8C)
        self.meets("is no interrupt or trap gate", "IDT", Fault(GP, 26))
        self.gate(BP, kind=0x0E)
        self.meets("is not present", "IDT", Fault(NP, 26))
        self.gate(BP)
        found, _ = self.deliver(BP, software=1, cs=0x2B)
        self.assertEqual(found, Fault(GP, 26))

    def test_selector(self) -> None:
        """Of nothing, beyond the GDT, of code that is not 64-bit code for the kernel."""
        for selector, why, fault in (
            (0, "the null selector", Fault(GP)),
            (0x6B68, "selector 0x6b68, beyond the GDT's limit 0x3f", Fault(GP, 0x6B68)),
            (0x10, "is of no code segment", Fault(GP, 0x10)),
            (0x18, "is of no 64-bit code", Fault(GP, 0x18)),
            (0x20, "is not present", Fault(NP, 0x20)),
            (0x28, "is for a less privileged ring", Fault(GP, 0x28)),
        ):
            self.gate(BP, selector)
            self.meets(why, "LDT" if selector & 4 else "GDT", fault)

    def test_gdt_gone(self) -> None:
        """The page of the GDT is not mapped."""
        self.memory.map(GDT, 0, 0)
        self.assertEqual(self.deliver(BP), (Fault(PF, 0, GDT + 8), "GDT"))


class Words(unittest.TestCase):
    """Sentences and what they rest on."""

    def test_denied(self) -> None:
        """The access's own word, and the guard that is on."""
        guarded = registers(cr4=CR4_SMAP | CR4_SMEP)
        allowed = registers(cr4=CR4_SMAP | CR4_SMEP, rflags=RFLAGS_AC)
        for perm, error, mine, words in (
            (W, USER, guarded, "a page, which ring 3 may not touch"),
            (W, USER | WRITE, guarded, "a page, which ring 3 may not touch"),
            (W, 0, guarded, "allows it now"),
            (0, WRITE, guarded, "may not be written"),
            (W, FETCH, guarded, "may not be executed"),
            (U | W, 0, guarded, "a user page, and the kernel may not touch it: SMAP is on"),
            (U | X, FETCH, guarded, "SMEP is on"),
            (U, WRITE, allowed, "a page, which may not be written"),
            (U, USER | WRITE, guarded, "a page, which may not be written"),
        ):
            said = denied("page", perm, Fault(PF, error | PRESENT, 0), mine)
            self.assertIn(words, said, (perm, error))

    def test_calls(self) -> None:
        """All forms of a near call; what only looks like one."""
        for code in (
            "e8 00 01 00 00",
            "ff d0",
            "41 ff d3",
            "ff 10",
            "ff 14 c5",
            "ff 15 00 00 00 00",
            "ff 14 25 00 00 00 00",
            "ff 54 24 08",
            "41 ff 94 24 00 01 00 00",
            "ff 50 18",
        ):
            raw = bytes.fromhex(code)
            self.assertEqual(behind_call(b"\x90" * (8 - len(raw)) + raw), code != "ff 14 c5", code)
        for code in ("90" * 8, "ff e0", "ff 20", "e8 00 00 00", "ff c0", "ff 50", "00" * 8, ""):
            self.assertFalse(behind_call(bytes.fromhex(code)), code)

    def test_excerpt(self) -> None:
        """What is kept of a log tells the same chain."""
        form = (
            "{:6}: v={:02x} e={:04x} i=0 cpl=0 IP=0008:{:016x} pc={:016x} "
            "SP=0010:{:016x} CR2={:016x}\nRAX=0 RBX=0\n"
        )
        told = [(14, 2, 0x1000, 0x2000, 0x10), (8, 0, 0x1000, 0x2000, 0x10), (3, 0, 0x5, 0x6, 0)]
        log = "".join(
            form.format(i, v, e, ip, ip, sp, cr2) for i, (v, e, ip, sp, cr2) in enumerate(told)
        )
        kept = excerpt(log * 20, [(0x1000, 0x2000), (0x7, 0x8)])
        self.assertNotIn("v=03", kept)
        self.assertNotIn("RAX", kept)
        self.assertLess(len(kept), len(log) * 9)
        chain = last_chain(log, 0x1000, 0x2000)
        self.assertEqual(chain, [Fault(PF, 2, 0x10), Fault(DF)])
        self.assertEqual(last_chain(kept, 0x1000, 0x2000), chain)


if __name__ == "__main__":
    unittest.main()
