# SPDX-License-Identifier: BSD-2-Clause
# Which of the kernel's CPUs a CPU of the machine is, and which start, run or are lost: db.cpus, and the rules on them.
"""Tests of ktf.cpus on the made-up guest, with a second CPU beside its first one."""

from __future__ import annotations

import unittest
from dataclasses import replace

import numpy as np
from synthetic import Machine
from synthetic_model import STACKS
from synthetic_types import SYMBOLS

from ktf.rules.examine import examine
from ktf.kernel.cpus import Cpus
from ktf.kernel.database import Database
from ktf.findings import Report
from ktf.x86.registers import Registers
from ktf.rules.table import RULES
from ktf.kernel.session import Session

HEALTHY = Machine()
ROOM = 64
OWN = {"gs": ("percpu", 104), "gdt": ("gdt", 64), "tr": ("tss", 104)}
RFLAGS_IF = 1 << 9


def of(mine: Registers, index: int, **numbers: int) -> Registers:
    """QEMU's CPU of that index, whose registers lead to what is of the CPUs with these numbers; all others are 0."""
    segments = dict(mine.segments)
    for name, (symbol, size) in OWN.items():
        base = SYMBOLS[symbol][0] + size * numbers[name] if name in numbers else 0
        segments[name] = replace(segments[name], base=base, selector=0x28 * (name in numbers))
    return replace(mine, number=index, segments=segments)


def with_second(m: Machine, rip: int = 0, rflags: int = 2, **numbers: int) -> Session:
    """The guest and QEMU's CPU 1, whose kernel has it as CPU 1 unless told otherwise."""
    session = m.session()
    first = session.registers[0]
    second = of(first, 1, **(numbers or {"gs": 1, "gdt": 1}))
    second = replace(second, general={**first.general, "rflags": rflags})
    session.cpus.append(replace(session.cpu, number=1, rip=rip))
    session.registers.append(second)
    return session


class NumberTests(unittest.TestCase):
    """By the majority of GS base, GDTR and TR."""

    def numbers(self, *votes: dict[str, int]) -> list[int]:
        """Of QEMU's CPUs 0, 1, ..."""
        session = HEALTHY.session()
        own = session.registers[0]
        session.registers[:] = [of(own, i, **numbers) for i, numbers in enumerate(votes)]
        session.cpus[:] = [replace(session.cpu, number=i) for i in range(len(votes))]
        cpus = Cpus(session, session.need_kernel(), np.zeros(ROOM, bool))
        return [c.number for c in cpus.every]

    def test_numbers(self) -> None:
        """A hole behind 1; the last one was never started."""
        mine = [{"gs": n, "gdt": n, "tr": n} for n in range(8)]
        self.assertEqual(self.numbers(*mine[:3]), [0, 1, 2])
        self.assertEqual(self.numbers(*mine[:2], *mine[3:5]), [0, 1, 3, 4])
        self.assertEqual(self.numbers(*mine[:2], *mine[3:5], {}), [0, 1, 3, 4, ROOM + 4])

    def test_broken(self) -> None:
        """One register of another CPU, or none that tells: QEMU's number where that is free."""
        mine = [{"gs": n, "gdt": n, "tr": n} for n in range(8)]
        self.assertEqual(self.numbers(mine[0], {**mine[1], "gs": 2}, mine[2]), [0, 1, 2])
        self.assertEqual(self.numbers(mine[0], {}, mine[2]), [0, 1, 2])
        self.assertEqual(self.numbers(mine[0], mine[2], mine[2]), [0, 1, 2])
        self.assertEqual(self.numbers(mine[0], {"gs": 2, "gdt": 1}, {}), [0, 1, 2])


class StartTests(unittest.TestCase):
    """A CPU that is not online yet, and one that is not any more."""

    def examine(self, session: Session) -> tuple[Report, str]:
        """All rules, and all that is counted."""
        report = examine(session, list(RULES))[0]
        return report, "\n".join(v.text() for v in report.all(RULES))

    def test_lock(self) -> None:
        """It takes map_lock to be online."""
        for name, values in (("held", {"owner": 2}), ("inside", {"owner": 2, "inside": 2})):
            with self.subTest(name):
                m = HEALTHY.twin()
                m.mm_struct("map_lock", **values)
                report, text = self.examine(with_second(m))
                self.assertEqual(text, "")
                self.assertEqual([h.cpu for h in report.held], [1])
                m.mm_row("cpu", 1, "flushed", 1)
                self.assertEqual(self.examine(with_second(m))[1], "")
                self.assertIn("B1: CPU 1 is not online", self.examine(m.session())[1])
                self.assertIn("A3: mm.map_lock is held by 0x2", self.examine(m.session())[1])
        m = HEALTHY.twin()
        m.mm_struct("map_lock", sleepers=2)
        self.assertEqual(self.examine(with_second(m))[1], "")
        self.assertIn("A4: mm.map_lock", self.examine(m.session())[1])

    def test_lost(self) -> None:
        """What only runs on a CPU that is online says that it was."""
        late = SYMBOLS["cpu_park"][0]
        for values in ({"rip": late + 1}, {"rflags": RFLAGS_IF | 2}):
            text = self.examine(with_second(HEALTHY.twin(), **values))[1]
            self.assertRegex(text, "^C1: .*CPU 1: mm.cpu.. says that it is not online, but it runs")
            self.assertEqual(text.count("\n"), 0)
        self.assertEqual(self.examine(with_second(HEALTHY.twin()))[1], "")

    def test_number(self) -> None:
        """The kernel's number counts: its CPU 4 is QEMU's CPU 1."""
        m = HEALTHY.twin()
        m.mm_struct("map_lock", owner=5)
        report, text = self.examine(with_second(m, gs=4, gdt=4))
        self.assertEqual((text, [h.cpu for h in report.held]), ("", [4]))
        self.assertIn("A3: mm.map_lock is held by 0x5", self.examine(with_second(m))[1])
        db = Database(with_second(m, gs=4, gdt=4))
        self.assertEqual((sorted(db.cpus.registers), db.cpus.index(4)), ([0, 4], 1))


class OwnTests(unittest.TestCase):
    """What a CPU has of its own; single registers are in test_rules."""

    def test_stacks(self) -> None:
        """An exception has led to a stack of the IST; ring 3 is left for the CPU's own one."""
        m = HEALTHY.twin()
        table, index = m.entry_at(1, STACKS[1][1] - 4096, 1)
        m.words[int(m.words[table, index]) >> 12 & 0xFFFFFF, 512 - 4] = 8
        self.assertEqual(examine(m.session(rsp=STACKS[1][1] - 0x100), list(RULES))[0].total(), 0)
        user = {"rsp": 0x1000, "user": 1}
        m.rows("tss", "struct tss")["rsp"][0, 0] = STACKS[0][1]
        self.assertEqual(examine(m.session(None, **user), list(RULES))[0].total(), 0)
        m.rows("tss", "struct tss")["rsp"][0, 0] = STACKS[2][1]
        text = examine(m.session(None, **user), list(RULES))[0].kept["C2"][0].message
        self.assertIn("on stack 'cpu0 NMI', should be on 'cpu0'", text)

    def test_other_stack(self) -> None:
        """A stack of another CPU's; the boot stack is the first CPU's."""
        m = HEALTHY.twin()
        m.rows("stacks", "struct stack_info")["name"][0] = b"cpu3"
        said = [v.message for v in examine(m.session(), list(RULES))[0].kept["C2"]]
        self.assertIn("on stack 'cpu3', which is another CPU's", " ".join(said))

    def test_gates(self) -> None:
        """No gate has its stack: wrong once the first CPU is set up."""
        m = HEALTHY.twin()
        m.rows("idt", "struct idt_gate")["ist"] = 0
        said = [v.message for v in examine(m.session(), list(RULES))[0].kept["C2"]]
        self.assertEqual([t.split(":")[0] for t in said], ["vector 2", "vector 8", "vector 18"])
        m.symbol("ipi_ready")[0] = 0
        self.assertEqual(examine(m.session(), list(RULES))[0].total(), 0)

    def test_cr3_low(self) -> None:
        """PCD in CR3."""
        m = HEALTHY.twin()
        report = examine(m.session(m.session().cpu.cr3 | 0x10), list(RULES))[0]
        self.assertIn("the root's address alone", report.kept["C1"][0].message)
        self.assertEqual(report.total(), 1)


if __name__ == "__main__":
    unittest.main()
