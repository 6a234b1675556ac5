# SPDX-License-Identifier: BSD-2-Clause
# What a processor does at an instruction that faults, by the manual (SDM vol. 3, chapters 4 and 6), on made-up CPUs.
"""Tests of ktf.delivery and ktf.exceptions: faults and error codes, stacks, double and triple faults."""

from __future__ import annotations

import struct
import unittest

from synthetic_cpu import (
    CR0,
    CR4,
    DATA,
    HOLE,
    IDT,
    IDT_PAGES,
    IST1,
    IST2,
    PAGE,
    RODATA,
    RSP0,
    STACK,
    TEXT,
    TSS,
    USER_DATA,
    USER_RODATA,
    USER_TEXT,
    Computer,
)

from ktf.postmortem.delivery import Chain, Processor
from ktf.x86.exceptions import BP, DE, DF, GP, NMI, PF, SS, UD, Fault, doubles
from ktf.x86.paging import NX, P, RW, US

# Bits of a page fault's error code: SDM vol. 3, 4.7.
PRESENT, WRITE, USER, RESERVED, FETCH = 1, 2, 4, 8, 16
AC = 1 << 18
NON_CANONICAL = 0x8000_0000_0000
TS, NP, AC_CHECK, MC = 10, 11, 17, 18
CONTRIBUTORY = (DE, TS, NP, SS, GP)
Access = tuple[str, int, dict[str, int], "int | None"]
READ, STORE = "mov (%rax),%rdx", "mov %rdx,(%rax)"

# What is done at which address; registers besides; the error code, None if it goes through. In ring 0:
KERNEL: tuple[Access, ...] = (
    (READ, DATA, {}, None),
    (STORE, DATA, {}, None),
    (READ, HOLE, {}, 0),
    (STORE, HOLE, {}, WRITE),
    (READ, RODATA, {}, None),
    (STORE, RODATA, {}, PRESENT | WRITE),
    (STORE, RODATA, {"cr0": CR0 & ~(1 << 16)}, None),  # WP off
    (READ, USER_DATA, {}, PRESENT),  # SMAP
    (STORE, USER_DATA, {}, PRESENT | WRITE),
    (STORE, USER_DATA, {"rflags": AC}, None),
    (STORE, USER_RODATA, {"rflags": AC}, PRESENT | WRITE),
    (STORE, USER_DATA, {"cr4": CR4 & ~(1 << 21)}, None),
    (READ, DATA + PAGE - 4, {}, None),  # the next page can be read, too
    (STORE, DATA + PAGE - 4, {}, PRESENT | WRITE),
    (READ, RODATA + PAGE - 4, {}, 0),
)
RING3: tuple[Access, ...] = (
    (READ, USER_DATA, {}, None),
    (STORE, USER_DATA, {}, None),
    (STORE, USER_RODATA, {}, PRESENT | WRITE | USER),
    (STORE, USER_RODATA, {"cr0": CR0 & ~(1 << 16)}, PRESENT | WRITE | USER),
    (READ, DATA, {}, PRESENT | USER),
    (STORE, DATA, {}, PRESENT | WRITE | USER),
    (READ, HOLE, {}, USER),
    (STORE, HOLE, {}, WRITE | USER),
)
# Where rip is; in ring 3 or not; registers; the error code.
FETCHES: tuple[tuple[int, bool, dict[str, int], int | None], ...] = (
    (TEXT, False, {}, None),
    (0, False, {}, FETCH),
    (DATA, False, {}, PRESENT | FETCH),
    (USER_TEXT, False, {}, PRESENT | FETCH),  # SMEP
    (USER_TEXT, False, {"rflags": AC}, PRESENT | FETCH),
    (USER_TEXT, False, {"cr4": CR4 & ~(1 << 20)}, None),
    (USER_TEXT, True, {}, None),
    (USER_DATA, True, {}, PRESENT | USER | FETCH),
    (TEXT, True, {}, PRESENT | USER | FETCH),
    (HOLE, True, {}, USER | FETCH),
)


class Faults(unittest.TestCase):
    """Whether an instruction faults, and how."""

    def setUp(self) -> None:
        self.computer = Computer()

    def first(self, text: str, user: bool = False, **registers: int) -> Fault | None:
        """Of the instruction at rip."""
        mine = self.computer.cpu(user=user, **registers)
        return Processor(self.computer.session(mine), mine, text, 2).first()[0]

    def test_accesses(self) -> None:
        """Error codes of reads and writes, in both rings."""
        for user, cases in ((False, KERNEL), (True, RING3)):
            for text, va, registers, error in cases:
                with self.subTest(user=user, text=text, va=hex(va), registers=registers):
                    at = va if va % PAGE == 0 else (va & -PAGE) + PAGE
                    found = self.first(text, user, rax=va, **registers)
                    self.assertEqual(found, None if error is None else Fault(PF, error, at))

    def test_fetches(self) -> None:
        """Error codes of what is executed."""
        for rip, user, registers, error in FETCHES:
            with self.subTest(rip=hex(rip), user=user, registers=registers):
                found = self.first("nop", user, rip=rip, **registers)
                self.assertEqual(found, None if error is None else Fault(PF, error, rip))

    def test_reserved(self) -> None:
        """A bit that must be 0, in an entry that is present."""
        self.computer.memory.map(DATA, 1 << 45, P | RW | NX)  # MAXPHYADDR is 40
        self.assertEqual(self.first(STORE, rax=DATA), Fault(PF, PRESENT | WRITE | RESERVED, DATA))

    def test_upper_levels(self) -> None:
        """A right counts only if all levels give it."""
        va = 5 << 39
        self.computer.memory.map(va, self.computer.pa[DATA], P | RW | US, upper=P | US)
        self.assertEqual(self.first(STORE, True, rax=va), Fault(PF, PRESENT | WRITE | USER, va))
        self.assertIsNone(self.first(READ, True, rax=va))

    def test_canonical(self) -> None:
        """#GP, by way of the stack #SS, never a page fault."""
        self.assertEqual(self.first(READ, rax=NON_CANONICAL), Fault(GP))
        self.assertEqual(self.first(STORE, rax=0x6B6B6B6B6B6B6B6B), Fault(GP))
        self.assertEqual(self.first(READ, rax=NON_CANONICAL - 1).vector, PF)  # type: ignore[union-attr]
        self.assertEqual(self.first("push %rdx", rsp=NON_CANONICAL + 8), Fault(SS))
        self.assertEqual(self.first("ret", rsp=0x4141414141414141), Fault(SS))
        self.assertEqual(self.first("nop", rip=0x6B6B6B6B6B6B6B6B), Fault(GP))

    def test_operands(self) -> None:
        """Every register of an address counts."""
        hole = Fault(PF, WRITE, HOLE)
        self.assertEqual(
            self.first("mov %rdx,(%rax,%rcx,8)", rax=DATA, rcx=(HOLE - DATA) >> 3), hole
        )
        self.assertIsNone(self.first("mov %rdx,(%rax,%rcx,8)", rax=HOLE, rcx=(DATA - HOLE) >> 3))
        offset = HOLE - TEXT - 2
        self.assertEqual(self.first(f"mov %rdx,{offset:#x}(%rip)"), hole)
        self.assertEqual(self.first("mov %rdx,%gs:0x10", gs_base=HOLE - 0x10), hole)
        self.assertEqual(self.first("mov %rdx,(%eax)", rax=HOLE | 1 << 40), hole)
        self.assertEqual(self.first("mov %rdx,0x8(%r9d)", r9=HOLE - 8 | 1 << 40), hole)
        self.assertIsNone(self.first("mov %rdx,(%xyz)", rax=HOLE))  # not guessed

    def test_division(self) -> None:
        """#DE comes of what the operands hold, after what comes of reading them."""
        self.assertEqual(self.first("div %rcx", rax=1), Fault(DE))
        self.assertIsNone(self.first("div %rcx", rax=1, rcx=1))
        self.computer.write(DATA, struct.pack("<II", 0, 3))
        self.assertEqual(self.first("idivl (%rbx)", rax=1, rbx=DATA), Fault(DE))
        self.assertIsNone(self.first("idivl 0x4(%rbx)", rax=1, rbx=DATA))
        self.assertEqual(self.first("idivl (%rbx)", rbx=HOLE), Fault(PF, 0, HOLE))
        mine = self.computer.cpu(idt_limit=0)
        chain = Processor(self.computer.session(mine), mine, "div %rcx", 2).chain()
        self.assertEqual([f.vector for f in chain.faults], [DE, DF])

    def test_asked_for(self) -> None:
        """int3 and int $n are the instruction's own wish; ud2 is a fault."""
        for text, vector, software in (
            ("int3", BP, True),
            ("int $0x2", NMI, True),
            ("ud2", UD, False),
        ):
            mine = self.computer.cpu()
            found = Processor(self.computer.session(mine), mine, text, 2).first()
            self.assertEqual(found, (Fault(vector), software))


class Delivery(unittest.TestCase):
    """Gates, stacks, and what comes of a delivery that fails."""

    def setUp(self) -> None:
        self.computer = Computer()

    def deliver(
        self, vector: int, user: bool = False, **registers: int
    ) -> tuple[Fault | None, str]:
        """What the delivery of that exception ends in, and at which thing."""
        mine = self.computer.cpu(user=user, **registers)
        return Processor(self.computer.session(mine), mine).deliver(Fault(vector))

    def chain(self, text: str, **registers: int) -> Chain:
        """From that instruction on."""
        mine = self.computer.cpu(**registers)
        return Processor(self.computer.session(mine), mine, text, 2).chain()

    def vectors(self, chain: Chain) -> list[int]:
        """Of its exceptions."""
        return [fault.vector for fault in chain.faults]

    def test_healthy(self) -> None:
        """Every exception reaches its handler, from both rings."""
        for vector in range(32):
            for user in (False, True):
                self.assertIsNone(self.deliver(vector, user)[0], (vector, user))

    def test_stacks(self) -> None:
        """IST before RSP0 before the stack that is; each by its own word of the TSS."""
        for vector, user, base, name in (
            (PF, False, STACK, "stack"),
            (PF, True, RSP0, "RSP0 stack"),
            (DF, False, IST1, "IST 1 stack"),
            (DF, True, IST1, "IST 1 stack"),
            (NMI, False, IST2, "IST 2 stack"),
        ):
            with self.subTest(vector=vector, user=user):
                self.computer = Computer()
                self.computer.unmap(base)
                top = base + (0x800 if base == STACK else PAGE)
                self.assertEqual(self.deliver(vector, user), (Fault(PF, WRITE, top - 8), name))
                self.computer = Computer()
                self.computer.unmap(*{STACK, IST1, IST2, RSP0} - {base})
                self.assertIsNone(self.deliver(vector, user)[0])

    def test_frame(self) -> None:
        """It is pushed from the next lower multiple of 16 on."""
        for vector in (UD, PF):
            for above in (48, 63):
                self.assertIsNone(self.deliver(vector, rsp=STACK + above)[0])
            found = self.deliver(vector, rsp=STACK + 47)[0]
            self.assertEqual(found, Fault(PF, WRITE, STACK - 8))

    def test_bad_stacks(self) -> None:
        """Not canonical, read-only, of ring 3"""
        self.assertEqual(self.deliver(PF, rsp=NON_CANONICAL + 16)[0], Fault(SS))
        self.assertEqual(
            self.deliver(PF, rsp=RODATA + 0x800)[0], Fault(PF, PRESENT | WRITE, RODATA + 0x7F8)
        )
        self.assertEqual(
            self.deliver(PF, rsp=USER_DATA + 0x800)[0],
            Fault(PF, PRESENT | WRITE, USER_DATA + 0x7F8),
        )

    def test_tss_gone(self) -> None:
        """The address that is read is that of the stack's own word."""
        self.computer.unmap(TSS)
        self.assertEqual(self.deliver(DF), (Fault(PF, 0, TSS + 36), "TSS"))
        self.assertEqual(self.deliver(NMI), (Fault(PF, 0, TSS + 44), "TSS"))
        self.assertEqual(self.deliver(PF, user=True), (Fault(PF, 0, TSS + 4), "TSS"))
        self.assertIsNone(self.deliver(PF)[0])

    def test_events(self) -> None:
        """Which event's delivery meets a fault that the instruction does not make."""

        def events(text: str, fault: Fault, **registers: int) -> list[int]:
            mine = self.computer.cpu(**registers)
            return Processor(self.computer.session(mine), mine, text, 2).events(fault)

        self.computer.unmap(IST2)
        pushed = Fault(PF, WRITE, IST2 + PAGE - 8)
        self.assertEqual(events("nop", pushed), [NMI])
        self.assertEqual(events(STORE, pushed, rax=IST2 + PAGE - 8), [])  # its own
        self.assertEqual(events("nop", Fault(PF, 0, IST2 + PAGE - 8)), [])
        self.assertEqual(events("nop", Fault(PF, WRITE, IST2 + PAGE - 24)), [])
        self.computer.unmap(IDT_PAGES[1])
        self.assertEqual(events("nop", Fault(PF, 0, IDT + PF * 16)), [PF])
        self.computer.unmap(TSS)
        self.assertEqual(events("nop", Fault(PF, 0, TSS + 44)), [NMI])

    def test_idt_limit(self) -> None:
        """A gate counts only if all of its 16 bytes lie within the limit."""
        for vector in (0, DF, PF):
            self.assertIsNone(self.deliver(vector, idt_limit=vector * 16 + 15)[0])
            for limit in (0, vector * 16, vector * 16 + 14):
                found, what = self.deliver(vector, idt_limit=limit)
                assert found is not None
                self.assertEqual((found.vector, found.error & ~1), (GP, vector * 8 + 2))
                self.assertEqual(what, "IDT")

    def test_gates(self) -> None:
        """A gate that is not present; a page of the IDT that is gone, where only its own gates count."""
        self.computer.gate(UD, kind=0x0E)
        found, what = self.deliver(UD)
        assert found is not None
        self.assertEqual((found.vector, found.error & ~1, what), (NP, UD * 8 + 2, "IDT"))
        self.computer.unmap(IDT_PAGES[1])
        self.assertEqual(self.deliver(PF), (Fault(PF, 0, IDT + PF * 16), "IDT"))
        self.assertIsNone(self.deliver(GP)[0])

    def test_doubles(self) -> None:
        """SDM vol. 3, 6.15: every pair of classes."""
        benign = (1, NMI, BP, 4, 5, UD, 7, 9, 16, AC_CHECK, MC, 19)
        for first in (*benign, *CONTRIBUTORY, PF):
            for second in (*benign, *CONTRIBUTORY, PF):
                wanted = first in CONTRIBUTORY and second in CONTRIBUTORY
                wanted |= first == PF and second in (*CONTRIBUTORY, PF)
                self.assertEqual(doubles(first, second), wanted, (first, second))

    def test_page_fault_then_page_fault(self) -> None:
        """A stack that has overflowed: #DF, which its own stack takes."""
        chain = self.chain("push %rax", rsp=STACK)
        self.assertEqual(chain.faults, [Fault(PF, WRITE, STACK - 8), Fault(DF)])
        self.assertIsNone(chain.broken)
        self.assertFalse(chain.triple)

    def test_page_fault_then_contributory(self) -> None:
        """#NP at the gate of #PF makes #DF."""
        self.computer.gate(PF, kind=0x0E)
        chain = self.chain(READ, rax=HOLE)
        self.assertEqual(self.vectors(chain), [PF, DF])
        self.assertFalse(chain.triple)

    def test_contributory_then_page_fault(self) -> None:
        """One after the other: the page fault is delivered in its turn."""
        self.computer.unmap(IDT_PAGES[0])
        chain = self.chain(READ, rax=NON_CANONICAL)
        self.assertEqual(chain.faults, [Fault(GP), Fault(PF, 0, IDT + GP * 16)])
        self.assertIsNone(chain.broken)

    def test_contributory_twice(self) -> None:
        """#GP whose gate is not present: #DF."""
        self.computer.gate(GP, kind=0x0E)
        self.assertEqual(self.vectors(self.chain(READ, rax=NON_CANONICAL)), [GP, DF])

    def test_benign_first(self) -> None:
        """Whatever meets #BP is delivered for itself."""
        self.computer.gate(BP, kind=0x0E)
        chain = self.chain("int3")
        self.assertEqual(self.vectors(chain), [BP, NP])
        self.assertTrue(chain.software)
        self.assertIsNone(chain.broken)

    def test_triple(self) -> None:
        """No IDT: each kind of first exception has its own way down."""
        cases: tuple[tuple[str, dict[str, int], list[int]], ...] = (
            ("int3", {}, [BP, GP, DF]),
            (READ, {"rax": HOLE}, [PF, DF]),
            (READ, {"rax": NON_CANONICAL}, [GP, DF]),
            ("ud2", {}, [UD, GP, DF]),
        )
        for text, registers, wanted in cases:
            chain = self.chain(text, idt_limit=0, **registers)
            self.assertEqual(self.vectors(chain), wanted, text)
            assert chain.broken is not None
            self.assertEqual((chain.broken.vector, chain.what), (GP, "IDT"))
            self.assertTrue(chain.triple)

    def test_triple_stack(self) -> None:
        """The double fault's own stack is gone."""
        self.computer.unmap(IST1)
        chain = self.chain("push %rax", rsp=STACK)
        self.assertEqual(self.vectors(chain), [PF, DF])
        self.assertEqual(chain.broken, Fault(PF, WRITE, IST1 + PAGE - 8))
        self.assertEqual(chain.what, "IST 1 stack")
        self.assertTrue(chain.triple)

    def test_nothing(self) -> None:
        """An instruction that goes through has no chain."""
        self.assertEqual(self.chain("nop").faults, [])


if __name__ == "__main__":
    unittest.main()
