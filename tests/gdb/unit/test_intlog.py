# SPDX-License-Identifier: BSD-2-Clause
# QEMU's log of exceptions: lines of other CPUs, of other times, cut ones, none at all.
"""Tests of ktf.intlog."""

from __future__ import annotations

import unittest

from ktf.x86.exceptions import BP, DF, GP, PF, Fault
from ktf.postmortem.intlog import excerpt, last_chain, parse, triple_fault

RIP, RSP = 0xFFFFFFFF80231AAB, 0xFFFFFFC034004F78
# What stands behind each line in the log, cut to some of it.
STATE = """RAX=0000000000000000 RBX=ffffffc034004fb0 RCX=0000000000000000 RDX=00000000000003f8
RIP=ffffffff80231aab RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
IDT=     ffffffff80248000 00000fff
CR0=80010011 CR2=ffffffff80248030 CR3=0000000000112000 CR4=00300820
"""


def line(
    vector: int,
    error: int = 0,
    cr2: int | None = None,
    rip: int = RIP,
    rsp: int = RSP,
    software: bool = False,
) -> str:
    """As QEMU 7.2 prints it; cr2 for a page fault, where others have RAX."""
    last = f"CR2={cr2:016x}" if cr2 is not None else "env->regs[R_EAX]=000000000000006b"
    return (
        f"     3: v={vector:02x} e={error:04x} i={int(software)} cpl=0 IP=0008:{rip:016x} "
        f"pc={rip:016x} SP=0010:{rsp:016x} {last}\n{STATE}"
    )


class Lines(unittest.TestCase):
    """parse()."""

    def test_fields(self) -> None:
        """Vector, error code, CR2 of a page fault alone, rip and rsp, who asked."""
        text = line(PF, 2, 0x1000) + "check_exception old: 0xe new 0xe\n" + line(BP, software=True)
        first, second = parse(text)
        self.assertEqual(first.fault, Fault(PF, 2, 0x1000))
        self.assertEqual((first.rip, first.rsp, first.software), (RIP, RSP, False))
        self.assertEqual((second.fault, second.software), (Fault(BP), True))

    def test_beyond_the_idt(self) -> None:
        """#GP's error code where the IDT ends before the vector: QEMU 7.2 counts 16 bytes a vector, others 8, as the SDM."""
        for error in (BP * 16 + 2, BP * 8 + 2):
            chain = last_chain(line(BP, software=True) + line(GP, error) + line(DF), RIP, RSP)
            self.assertEqual(chain, [Fault(BP), Fault(GP, BP * 8 + 2), Fault(DF)])

    def test_other_codes(self) -> None:
        """Other error codes stay: of another place, of no vector before it, of a segment's selector."""
        for text, error in (
            (line(GP, 0x32), 0x32),
            (line(BP, rip=RIP + 1) + line(GP, 0x32), 0x32),
            (line(BP) + line(GP, 0x30), 0x30),
            (line(PF, 2, 0x1000) + line(GP, 0x32), 0x32),
        ):
            self.assertEqual(parse(text)[-1].fault.error, error)

    def test_triple_fault(self) -> None:
        """QEMU's own line, not the words in another one; not one before the machine was started anew. A core keeps it."""
        log = line(DF) + "Triple fault\n"
        again = log + "CPU Reset (CPU 0)\nRAX=0000000000000000\n" + line(BP)
        for text, down in (
            (log, True),
            (log + line(PF, 2, 0x1000, rip=RIP + 8), True),  # of another CPU
            ("CPU Reset (CPU 1)\n" + log, True),
            (again, False),
            (again + log, True),
            (line(DF) + "no Triple fault\n", False),
        ):
            self.assertEqual(triple_fault(text), down, text)
            self.assertEqual(triple_fault(excerpt(text, [])), down, text)

    def test_cut(self) -> None:
        """A line that begins before the text or ends behind it says nothing; those between count."""
        whole = line(PF, 2, 0x1000).splitlines()[0]
        for start in range(7, 60):
            self.assertEqual(parse(whole[start:] + "\n" + STATE), [])
        for end in range(len(whole) - 45):
            self.assertEqual(parse(whole[:end]), [])
        found = parse(whole[20:] + "\n" + line(GP, 0x10) + whole[:50])
        self.assertEqual([one.fault for one in found], [Fault(GP, 0x10)])

    def test_noise(self) -> None:
        """Empty, without exceptions, random."""
        for text in ("", "\n", STATE, "CPU Reset (CPU 0)\n" + STATE, "v=0e e=0002\n", "\0\ufffd\n"):
            self.assertEqual(parse(text), [])
            self.assertEqual(last_chain(text, RIP, RSP), [])


class Chains(unittest.TestCase):
    """last_chain()."""

    OVERFLOW = [Fault(PF, 2, 0x1000), Fault(DF)]

    def overflow(self) -> str:
        """The lines of a #PF that ends in #DF."""
        return line(PF, 2, 0x1000) + line(DF)

    def test_order(self) -> None:
        """First exception first; what came before it elsewhere is left out."""
        text = line(PF, 0, 0x5000, rip=RIP - 64) + self.overflow()
        self.assertEqual(last_chain(text, RIP, RSP), self.OVERFLOW)
        text = line(BP, software=True) + line(PF, 0, 0x4030) + line(DF)
        self.assertEqual(last_chain(text, RIP, RSP), [Fault(BP), Fault(PF, 0, 0x4030), Fault(DF)])

    def test_interrupts(self) -> None:
        """Interrupts of other CPUs between the lines do not cut the chain."""
        other = line(0xF0, rip=RIP - 0x400, rsp=RSP - 0x8000)
        text = other + line(PF, 2, 0x1000) + other + line(DF) + other
        self.assertEqual(last_chain(text, RIP, RSP), self.OVERFLOW)

    def test_other_cpu(self) -> None:
        """The same instruction on another stack is another CPU's."""
        other = line(PF, 2, 0x9000, rsp=RSP - 0x8000) + line(DF, rsp=RSP - 0x8000)
        self.assertEqual(last_chain(self.overflow() + other, RIP, RSP), self.OVERFLOW)
        self.assertEqual(last_chain(other, RIP, RSP), [])

    def test_other_place(self) -> None:
        """The same stack at another instruction is another time."""
        self.assertEqual(last_chain(self.overflow(), RIP + 2, RSP), [])

    def test_earlier_runs(self) -> None:
        """Of an instruction that faulted before, and went on, only the last time counts."""
        early = line(PF, 2, 0x1000)
        self.assertEqual(last_chain(early + self.overflow(), RIP, RSP), self.OVERFLOW)
        early = line(PF, 2, 0x2000)
        self.assertEqual(last_chain(early * 20 + self.overflow(), RIP, RSP), self.OVERFLOW)

    def test_whole_runs_before(self) -> None:
        """A log that QEMU went on to write after a reset holds the same end twice."""
        self.assertEqual(last_chain(self.overflow() * 2, RIP, RSP), self.OVERFLOW)

    def test_long(self) -> None:
        """Megabytes of the past are not looked at, and don't hide the end."""
        text = line(0xF0, rip=1) * 5000 + self.overflow()
        self.assertEqual(last_chain(text, RIP, RSP), self.OVERFLOW)


if __name__ == "__main__":
    unittest.main()
