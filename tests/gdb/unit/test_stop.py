# SPDX-License-Identifier: BSD-2-Clause
# Which CPU went down, and by what chain: on made-up CPUs that stand where no symbols are.
"""Tests of ktf.stop."""

from __future__ import annotations

import unittest
from dataclasses import replace

from synthetic_cpu import HOLE, IST1, STACK, TEXT, USER_TEXT, Computer, Stopped, real_mode
from test_intlog import line

from ktf.errors import NotYet
from ktf.x86.exceptions import BP, DF, GP, PF, Fault
from ktf.x86.paging import NX, P
from ktf.x86.registers import Registers
from ktf.postmortem.stop import Stop, find_stop

PUSH, IDLE = TEXT, TEXT + 0x100
CODE = {PUSH: "push %rax", IDLE: "nop", TEXT + 0x200: "int3"}
OVERFLOW = [Fault(PF, 2, STACK - 8), Fault(DF)]


class Stops(unittest.TestCase):
    """find_stop()."""

    def setUp(self) -> None:
        self.computer = Computer()
        self.computer.unmap(IST1)  # an overflow is a triple fault now

    def idle(self, number: int) -> Registers:
        """A CPU that waits."""
        return self.computer.cpu(number, rip=IDLE)

    def down(self, number: int, **changed: int) -> Registers:
        """A CPU whose stack has overflowed."""
        return self.computer.cpu(number, **{"rip": PUSH, "rsp": STACK, **changed})

    def find(
        self, *cpus: Registers, selected: int = 0, status: str = "shutdown", log: str = ""
    ) -> Stop:
        """The stop of these CPUs."""
        session = self.computer.session(*cpus, selected=selected)
        return find_stop(session, Stopped(session, CODE, status, log))

    def test_every_cpu(self) -> None:
        """Whichever of four it was, whichever is selected."""
        for bad in range(4):
            for selected in range(4):
                with self.subTest(bad=bad, selected=selected):
                    cpus = [self.down(i) if i == bad else self.idle(i) for i in range(4)]
                    stop = self.find(*cpus, selected=selected)
                    self.assertEqual((stop.kind, stop.cpu), ("triple-fault", bad))
                    self.assertEqual(stop.chain.faults, OVERFLOW)
                    self.assertTrue(stop.chain.triple)
                    self.assertEqual(stop.text, "push %rax")

    def test_core(self) -> None:
        """The same where nobody tells how the machine stood."""
        stop = self.find(self.idle(0), self.idle(1), self.down(2), status="")
        self.assertEqual((stop.kind, stop.cpu), ("triple-fault", 2))

    def test_not_started(self) -> None:
        """A CPU without page tables is no CPU that failed."""
        stop = self.find(real_mode(self.idle(0)), self.idle(1), self.down(2), selected=1)
        self.assertEqual((stop.kind, stop.cpu), ("triple-fault", 2))
        stop = self.find(self.down(0), real_mode(self.idle(1)))
        self.assertEqual((stop.kind, stop.cpu), ("triple-fault", 0))

    def test_fault_that_is_handled(self) -> None:
        """A CPU at an instruction that faults, and whose handler is there, did not go down."""
        faulting = self.computer.cpu(0, rip=PUSH, rsp=HOLE)
        self.computer = Computer()
        stop = self.find(faulting, self.computer.cpu(1, rip=TEXT + 0x200, idt_limit=0))
        self.assertEqual(stop.cpu, 1)
        self.assertEqual([f.vector for f in stop.chain.faults], [BP, GP, DF])

    def test_running(self) -> None:
        """A guest that is well."""
        stop = self.find(self.idle(0), self.idle(1), selected=1, status="debug")
        self.assertEqual((stop.kind, stop.cpu, stop.chain.faults), ("stopped", 1, []))

    def test_lost(self) -> None:
        """A CPU at a handler that can't be executed, whichever is selected; not at other bad places, nor where it can."""
        self.computer.memory.map(TEXT, self.computer.pa[TEXT], P | NX)
        for selected in (0, 1):
            cpus = [self.computer.cpu(0, rip=USER_TEXT), self.computer.cpu(1, rip=TEXT)]
            stop = self.find(*cpus, selected=selected, status="debug")
            self.assertEqual((stop.kind, stop.cpu, stop.lost), ("stopped", 1, list(range(32))))
            self.assertEqual(stop.chain.faults, [Fault(PF, 17, TEXT)])
        self.assertEqual(self.find(self.idle(0), status="debug").lost, [])
        self.computer = Computer()
        self.assertEqual(self.find(self.computer.cpu(0), status="debug").lost, [])

    def test_log(self) -> None:
        """QEMU's log is believed: the chain is its, and so is the CPU."""
        log = line(PF, 2, STACK - 8, PUSH, STACK) + line(DF, 0, None, PUSH, STACK)
        stop = self.find(self.idle(0), self.down(1), log=log)
        self.assertEqual((stop.cpu, stop.chain.faults, stop.logged), (1, OVERFLOW, True))

    def test_log_alone(self) -> None:
        """Registers say nothing of a machine check, or of an NMI's way down."""
        log = line(0x12, 0, None, IDLE, STACK + 0x700) + line(DF, 0, None, IDLE, STACK + 0x700)
        cpus = [self.idle(0), self.idle(1), self.computer.cpu(2, rip=IDLE, rsp=STACK + 0x700)]
        stop = self.find(*cpus, log=log)
        self.assertEqual((stop.kind, stop.cpu, stop.logged), ("triple-fault", 2, True))
        self.assertEqual([f.vector for f in stop.chain.faults], [0x12, DF])

    def test_log_of_another_stack(self) -> None:
        """Lines of the same instruction on another stack are another CPU's: here the chain is derived."""
        log = line(PF, 2, HOLE, PUSH, HOLE) + line(DF, 0, None, PUSH, HOLE)
        stop = self.find(self.idle(0), self.down(1), log=log)
        self.assertEqual((stop.cpu, stop.chain.faults, stop.logged), (1, OVERFLOW, False))

    def test_log_of_another_time(self) -> None:
        """Exceptions that were handled before are no chain of this stop."""
        log = line(PF, 2, HOLE, IDLE, STACK + 0x800)
        stop = self.find(self.idle(0), self.down(1), log=log)
        self.assertEqual((stop.cpu, stop.chain.faults), (1, OVERFLOW))

    def test_no_delivery(self) -> None:
        """No chain is known: it was the CPU that could deliver no double fault, if the machine is said to be down."""
        self.computer = Computer()
        cpus = [self.idle(0), self.idle(1), self.computer.cpu(2, rip=IDLE, idt_limit=0)]
        stop = self.find(*cpus)
        self.assertEqual((stop.kind, stop.cpu, stop.chain.faults), ("triple-fault", 2, []))
        assert stop.chain.broken is not None
        self.assertEqual(stop.chain.broken.why, "the IDT's limit is 0")
        stop = self.find(*cpus, status="")
        self.assertEqual((stop.kind, stop.cpu, stop.told), ("stopped", 2, False))
        stop = self.find(*cpus, status="debug")
        self.assertEqual((stop.kind, stop.cpu, stop.told), ("stopped", 0, True))

    def test_rest(self) -> None:
        """All CPUs stand where they can't go on, for a table that they share: the one that does not rest has failed."""
        for bad in range(4):
            for selected in range(4):
                cpus = [replace(self.down(i), halted=i != bad) for i in range(4)]
                stop = self.find(*cpus, selected=selected)
                self.assertEqual((stop.kind, stop.cpu, stop.alike), ("triple-fault", bad, []))
                self.assertEqual(self.find(*cpus, selected=selected, status="").cpu, bad)

    def test_cr2(self) -> None:
        """Of two that run, the one whose CR2 is the chain's address."""
        cpus = [self.down(i) for i in range(3)]
        cpus[2] = replace(cpus[2], control={**cpus[2].control, "cr2": OVERFLOW[0].address or 0})
        for selected in range(3):
            stop = self.find(*cpus, selected=selected)
            self.assertEqual((stop.cpu, stop.alike), (2, []))

    def test_alike(self) -> None:
        """Nothing tells them apart: the first one, whichever is selected, and that is said."""
        for selected in range(3):
            stop = self.find(self.idle(0), self.down(1), self.down(2), selected=selected)
            self.assertEqual((stop.cpu, stop.alike), (1, [2]))

    def test_logged_counts_more(self) -> None:
        """A CPU that rests, and is in the log: an interrupt ended it."""
        log = line(PF, 2, STACK - 8, PUSH, STACK) + line(DF, 0, None, PUSH, STACK)
        mine = replace(self.down(2), halted=True)
        stop = self.find(self.idle(0), self.down(1, rsp=STACK + 8), mine, log=log)
        self.assertEqual((stop.cpu, stop.logged), (2, True))

    def test_off(self) -> None:
        """A machine that is off, with CPUs that are well: QEMU's log may know of a triple fault all the same."""
        self.computer = Computer()
        for log, known in (("", False), ("Triple fault\n", True)):
            cpus = [replace(self.idle(i), halted=i != 1) for i in range(3)]
            stop = self.find(*cpus, log=log)
            self.assertEqual((stop.kind, stop.cpu, stop.logged_triple), ("shutdown", 1, known))

    def test_not_told(self) -> None:
        """CPUs that are well: off by other means, or nobody knows."""
        self.computer = Computer()
        for status, kind, told in (("shutdown", "shutdown", True), ("", "stopped", False)):
            stop = self.find(self.idle(0), self.idle(1), selected=1, status=status)
            self.assertEqual((stop.kind, stop.cpu, stop.told), (kind, 1, told))

    def test_other_paging(self) -> None:
        """A CPU that was started and has no page tables of 64-bit mode now."""
        self.computer = Computer()
        idle = self.idle(1)
        for name, value, why in (("cr4", 0, "32-bit paging"), ("cr0", 1, "paging is off")):
            odd = replace(idle, control={**idle.control, name: value})
            stop = self.find(self.idle(0), odd, real_mode(self.idle(2)))
            self.assertEqual((stop.kind, stop.cpu), ("triple-fault", 1))
            self.assertIn(why, stop.no_tables)
            stop = self.find(odd, selected=1)
            self.assertEqual((stop.kind, stop.cpu), ("triple-fault", 1))
            with self.assertRaisesRegex(NotYet, why):
                self.find(odd, selected=1, status="debug")

    def test_selected_is_off(self) -> None:
        """The selected CPU was never started: another one's way of paging serves."""
        off, well, bad = real_mode(self.idle(0)), self.idle(1), self.down(2)
        session = self.computer.session(off, well, bad).by_paging()
        self.assertEqual((session.cpu.number, session.selected), (1, 0))
        stop = find_stop(session, Stopped(session, CODE, "shutdown"))
        self.assertEqual((stop.kind, stop.cpu), ("triple-fault", 2))

    def test_own_page_tables(self) -> None:
        """Each CPU is judged by its own CR3."""
        lost = self.computer.cpu(1, rip=IDLE)
        lost = replace(lost, control={**lost.control, "cr3": 0x3F000})
        stop = self.find(self.idle(0), lost)
        self.assertEqual(stop.cpu, 1)
        self.assertEqual(stop.chain.faults, [Fault(PF, 16, IDLE), Fault(DF)])


if __name__ == "__main__":
    unittest.main()
