# SPDX-License-Identifier: BSD-2-Clause
# The CPUs of a stop by the kernel's numbers, which need not be QEMU's, and which of them run, start, or are lost.
"""Cpus(session, kernel, online): db.cpus.

The kernel's number of a CPU is its number on the bus, QEMU's counts threads: `-smp 6,sockets=2,cores=3` makes 0 1 2 4 5 6
of 0 to 5. GS base, GDTR and TR tell which one a CPU is; one that has none of them yet keeps QEMU's number if it is free.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from ktf.errors import KtfError
from ktf.kernel.kernel import Kernel
from ktf.kernel.session import Session
from ktf.x86.cpu import Cpu
from ktf.x86.registers import Registers

RFLAGS_IF = 1 << 9
# The register that leads to a CPU's element of the array of that name.
OWN = {"gs": "percpu", "gdt": "gdt", "tr": "tss"}
# What runs on a CPU that is online alone.
LATE = ("smp_idle_loop", "cpu_park")


class Cpus:
    """every: all of them. registers: by number; problem: why there are none. room: how many the kernel has room for."""

    def __init__(self, session: Session, kernel: Kernel, online: np.ndarray) -> None:
        self.room = len(online)
        self.problem = ""
        self._online = online
        self._late = [s for s in map(kernel.types.symbol, LATE) if s is not None]
        found: list[Registers] = []
        try:
            found = session.registers
        except KtfError as e:
            self.problem = str(e)
        numbers = self._numbers(kernel, found)
        mine = {r.number: numbers[r.number] for r in found}
        self.registers = {mine[r.number]: replace(r, number=mine[r.number]) for r in found}
        self._index = {number: index for index, number in mine.items()}
        self.every = [replace(c, number=mine.get(c.number, c.number)) for c in session.cpus]

    def _numbers(self, kernel: Kernel, found: list[Registers]) -> dict[int, int]:
        """By QEMU's number. A CPU that can't be one of the kernel's gets a number behind theirs."""
        votes = {r.number: self._votes(kernel, r) for r in found}
        wanted = {i: [*sorted(v, key=lambda n: (-v[n], n != i, n)), i] for i, v in votes.items()}
        numbers: dict[int, int] = {}
        # Those that most speaks for come first, and of these the one with QEMU's number.
        for i in sorted(votes, key=lambda i: (-votes[i][wanted[i][0]], wanted[i][0] != i, i)):
            free = [n for n in wanted[i] if n not in numbers.values()]
            numbers[i] = free[0] if free else self.room + i
        return numbers

    def _votes(self, kernel: Kernel, registers: Registers) -> Counter[int]:
        """How many of its registers lead to what is CPU n's."""
        votes: Counter[int] = Counter()
        for name, array in OWN.items():
            symbol = kernel.types.symbol(array)
            at = registers.segments[name].base
            if self.room and symbol is not None and symbol.va <= at < symbol.va + symbol.size:
                number, rest = divmod(at - symbol.va, symbol.size // self.room)
                votes[number] += rest == 0
        return +votes

    def index(self, number: int) -> int:
        """QEMU's number of the kernel's CPU."""
        return self._index.get(number, number)

    def is_online(self, cpu: Cpu) -> bool:
        """Whether mm.cpu[] says so."""
        return cpu.number < self.room and bool(self._online[cpu.number])

    def running(self) -> list[Cpu]:
        """Those that page and that the kernel has set up."""
        return [c for c in self.every if not c.paging_problem() and self.is_online(c)]

    def starting(self) -> set[int]:
        """Numbers of those that page, are not online, and are where a CPU starts, as far as is known."""
        off = [c for c in self.every if not c.paging_problem() and not self.is_online(c)]
        return {c.number for c in off if not self.is_past_start(c)}

    def is_past_start(self, cpu: Cpu) -> bool:
        """Whether it was online already, by what it does: a CPU starts in ring 0, with interrupts off."""
        registers = self.registers.get(cpu.number)
        if registers is None:
            return False
        late = any(s.va <= cpu.rip < s.va + s.size for s in self._late)
        return late or bool(registers["rflags"] & RFLAGS_IF or registers["cs"] & 3)

    def name(self, cpu: Cpu) -> str:
        """For messages."""
        if cpu.number < self.room:
            return f"CPU {cpu.number}"
        return f"QEMU's CPU {cpu.number - self.room}, which is none of the kernel's"
