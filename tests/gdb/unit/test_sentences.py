# SPDX-License-Identifier: BSD-2-Clause
# The first line of ktf-postmortem for made-up CPUs, without symbols but those of one function.
"""Tests of ktf.postmortem's sentences: callers, refused accesses, what could not be delivered, what nobody tells."""

from __future__ import annotations

import struct
import unittest

from synthetic_cpu import DATA, IDT, IDT_PAGES, STACK, TEXT, Computer, Stopped

from ktf.postmortem.delivery import Chain
from ktf.kernel.machine_end import Asked
from ktf.x86.exceptions import BP, DF, GP, PF, PRESENT, USER, Fault
from ktf.postmortem.story import Inquest
from ktf.postmortem.saved import Saved
from ktf.kernel.session import Session
from ktf.postmortem.stop import Stop, find_stop

JUNK = 0x6B6B6B6B6B6B6B6B
CALLED, JUMPED = TEXT + 0x20, TEXT + 0x40  # behind a call, behind something else


class Named(Stopped):
    """Knows one function, which is all of the text's page."""

    def source(self, va: int) -> str:
        """See command.Context."""
        return f"f+{va - TEXT} at f.c:{va - TEXT}" if 0 <= va - TEXT < 4096 else ""


class Sentences(unittest.TestCase):
    """cause.text."""

    def setUp(self) -> None:
        self.computer = Computer()
        self.computer.write(CALLED - 2, b"\xff\xd0")
        self.computer.write(DATA + 0x1E, b"\xff\xd0")

    def tell(self, fault: Fault, top: int = 0, kind: str = "panic", **registers: int) -> str:
        """Of a CPU that met this fault; top: what lies on its stack."""
        self.computer.write(STACK + 0x800, struct.pack("<Q", top))
        mine = self.computer.cpu(0, **registers)
        session = self.computer.session(mine)
        return self.cause(session, Stop(kind, mine, Chain([fault])))

    def cause(self, session: Session, stop: Stop) -> str:
        """The sentence."""
        return Inquest(session, Named(session, {}), stop).cause.text

    def test_caller(self) -> None:
        """Only code behind a call is a caller."""
        wild = Fault(PF, 16, 0)
        self.assertIn("#PF executing 0x0, called in f at f.c:31: ", self.tell(wild, CALLED, rip=0))
        for top in (JUMPED, DATA + 0x20, 0, JUNK, 5):
            self.assertIn("#PF executing 0x0: ", self.tell(wild, top, rip=0))

    def test_astray(self) -> None:
        """The same of an address that is none."""
        for top, caller in ((CALLED, ", called in f at f.c:31"), (JUMPED, "")):
            said = self.tell(Fault(GP), top, rip=JUNK)
            self.assertEqual(said, f"#GP executing {JUNK:#x}{caller}: not a canonical address")
        self.assertEqual(self.tell(Fault(GP), CALLED, rip=TEXT), "#GP in f at f.c:0")

    def test_ring_3(self) -> None:
        """Reading what is the kernel's."""
        said = self.tell(Fault(PF, PRESENT | USER, DATA), user=True)
        self.assertIn(f"#PF reading {DATA:#x} at 0x400000: a 4K page rw--", said)
        self.assertIn("which ring 3 may not touch", said)

    def test_undelivered(self) -> None:
        """The first exception where it meets what the last one meets; else the last."""
        cpu = self.computer.cpu(0, idt_limit=0)
        session = self.computer.session(cpu)
        code = {TEXT: "int3"}
        stop = find_stop(session, Stopped(session, code, "shutdown"))
        self.assertEqual(
            self.cause(session, stop),
            "#BP (int3) in f at f.c:0; #BP can't be delivered: the IDT's limit is 0",
        )
        self.computer.gate(8, selector=0x10)
        self.computer.gate(BP, selector=0x6B68)
        self.computer.gate(GP, kind=0)
        cpu = self.computer.cpu(0)
        session = self.computer.session(cpu)
        stop = find_stop(session, Stopped(session, code, "shutdown"))
        self.assertEqual([f.vector for f in stop.chain.faults], [BP, GP, DF])
        said = self.cause(session, stop)
        self.assertIn("#BP can't be delivered: gate 3 of the IDT names selector 0x6b68", said)
        self.computer.gate(BP, kind=0)
        said = self.cause(session, find_stop(session, Stopped(session, code, "shutdown")))
        self.assertIn("#DF can't be delivered: gate 8 of the IDT names selector 0x10", said)
        self.computer.unmap(*IDT_PAGES)
        said = self.cause(session, find_stop(session, Stopped(session, code, "shutdown")))
        self.assertIn(f"#BP can't be delivered: the IDT at {IDT + BP * 16:#x}: not present", said)

    def test_inside(self) -> None:
        """What was being handled, and what came up in handling it, has its own place and reason."""
        mine, other = self.computer.cpu(0, rip=TEXT + 4), self.computer.cpu(0, rip=TEXT + 8)
        session = self.computer.session(mine)
        second = [Saved(Fault(PF, 2, 0x20), other, 0), Saved(Fault(PF, 2, 0x30), other, 0)]
        said = self.cause(session, Stop("panic", mine, Chain([Fault(PF, 0, 0x10)]), inner=second))
        self.assertRegex(
            said,
            r"^#PF reading 0x10 in f at f\.c:4: .*; handling that met #PF writing 0x20 in f at f\.c:8: ",
        )
        said = self.cause(session, Stop("stopped", mine, outer=[Saved(Fault(GP), other, 0)]))
        self.assertRegex(said, "is stopped in f at f.c:4.*; it was handling #GP in f at f.c:8$")
        stop = Stop("stopped", mine, outer=second)
        values = Inquest(session, Named(session, {}), stop).values()
        self.assertEqual([f["address"] for f in values["chain"]], ["0x20", "0x30"])

    def test_not_told(self) -> None:
        """Never healthy where nobody has said so."""
        for status, words in (
            ("", "nothing here tells whether the guest has crashed: CPU 0 is stopped in f"),
            (
                "shutdown",
                "the machine is off, by an exit, a reset or a power-off, or a triple fault",
            ),
            ("debug", "no exception: the guest is stopped in f"),
        ):
            session = self.computer.session(self.computer.cpu(0))
            stop = find_stop(session, Stopped(session, {}, status))
            self.assertIn(words, self.cause(session, stop))

    def test_asked(self) -> None:
        """A kernel that has asked for its end; a port that was just written; a triple fault that only the log knows."""
        self.computer.write(TEXT + 0x80, b"\xe6\xf4" + b"\x90" * 8 + b"\xef")
        mine = self.computer.cpu(0, rip=TEXT + 0x82)
        session = self.computer.session(mine)
        for asked, words in (
            (Asked("exit", 33, True), "ended by itself, with success (QEMU's exit status 33)"),
            (Asked("exit", 35, False), "ended by itself, as a failure (QEMU's exit status 35)"),
            (Asked("power-off"), "switched the machine off"),
        ):
            said = self.cause(session, Stop(asked.kind, mine, asked=asked))
            self.assertEqual(said, f"the guest has {words}: CPU 0 is stopped in f at f.c:130")
        for at, words in (
            (0x82, ", and has just written 0x0 to port 0xf4"),
            (0x8B, ", and has just written 0x0 to port 0x0"),
            (0x86, ""),
        ):
            mine = self.computer.cpu(0, rip=TEXT + at, rax=0x100, rdx=0x10000)
            said = self.cause(session, Stop("shutdown", mine))
            self.assertTrue(said.endswith(f"is stopped in f at f.c:{at}{words}"), said)
        said = self.cause(session, Stop("shutdown", mine, logged_triple=True))
        self.assertIn("a triple fault, by QEMU's log, of which no CPU's registers", said)


if __name__ == "__main__":
    unittest.main()
