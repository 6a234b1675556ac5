# SPDX-License-Identifier: BSD-2-Clause
# A made-up guest with a journal: events are written into the rings as the kernel's CPUs write them.
"""Rings: a synthetic.Machine, and event() to write the next event of a CPU."""

from __future__ import annotations

import numpy as np

from synthetic import Machine, put
from synthetic_types import OPS

from ktf.kernel import journal
from ktf.kernel.layout import Layout

STEP, PLACES = 64, 8
OP = {name: number for number, name in enumerate(OPS)}


class Rings:
    """A guest whose rings hold what was written by event()."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self.layout = Layout(self.machine.types.struct("struct journal_event"))
        self.bytes = self.machine.symbol("rings")
        self.at = self.machine.symbol("journal_ring").view(np.uint64)
        self.next = 1
        self.machine.poke("struct mm", 0, journal_on=1)

    def event(self, cpu: int, op: str, **members: int) -> int:
        """Writes the next event as that CPU does; its number."""
        number = self.next
        self.next += 1
        at = (cpu * PLACES + number % PLACES) * STEP
        raw = self.bytes[at : at + STEP]
        data = self.layout.records(np.zeros(STEP, np.uint8))
        put(data, 0, seq=number * STEP, op=OP[op], **members)
        raw[:] = data.data.view(np.uint8)
        self.machine.poke("struct mm", 0, journal_seq=self.next * STEP)
        return number

    def read(self) -> journal.Journal:
        """What the module makes of it."""
        return journal.events(self.machine.session())
