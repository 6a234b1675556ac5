# SPDX-License-Identifier: BSD-2-Clause
# Which of the kernel's CPUs a CPU of the machine is, and which start, run or are lost: db.cpus, and the rules on them.
"""Tests of ktf.cpus on the made-up guest, with a second CPU beside its first one."""

from __future__ import annotations

import unittest
from dataclasses import replace

import numpy as np
from synthetic import Machine
from synthetic_types import SYMBOLS

from ktf.commands_check import examine
from ktf.cpus import Cpus
from ktf.database import Database
from ktf.findings import Report
from ktf.registers import Registers
from ktf.rules import RULES
from ktf.session import Session

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


if __name__ == "__main__":
    unittest.main()
