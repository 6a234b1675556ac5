# SPDX-License-Identifier: BSD-2-Clause
# A stopped guest, taken out of GDB once: its types, registers and a copy of its memory, to be broken at will.
"""freeze(target, memory) inside GDB makes Facts; Frozen(facts, memory) is the guest that they were of.

Frozen.session() is what Target.session() is inside GDB, and the code behind it is the same: layouts, readers, rules.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import numpy as np
from array_reader import ArrayReader

from ktf.kernel.backtrace import Backtrace
from ktf.errors import KtfError
from ktf.kernel.kernel import Segment
from ktf.kernel.layout import Symbol, TypeDesc, Types
from ktf.memory.readers import RamMap, RamRange
from ktf.x86.registers import Registers
from ktf.kernel.session import Session
from ktf.x86.cpu import Cpu

if TYPE_CHECKING:
    from ktf.debugger.target import Target

T = TypeVar("T")
NOT_THERE = "not there"


@dataclass
class Facts:
    """What the symbols and the CPUs say. answers: of layout.Types, by method and name; a KtfError is kept as its text."""

    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    cpus: list[Cpu] = field(default_factory=list)
    selected: int = 0
    registers: list[Registers] = field(default_factory=list)
    backtraces: dict[int, Backtrace] = field(default_factory=dict)  # by CPU
    phys_bits: int | None = None
    image: list[Segment] = field(default_factory=list)
    ranges: list[RamRange] = field(default_factory=list)  # one after the other in the copy


class Recorder:
    """layout.Types that remembers what it was asked."""

    def __init__(self, types: Types, answers: dict[tuple[str, str], Any]) -> None:
        self.types = types
        self.answers = answers

    def _ask(self, method: str, name: str) -> Any:
        try:
            self.answers[method, name] = getattr(self.types, method)(name)
        except KtfError as e:
            self.answers[method, name] = str(e)
            raise
        return self.answers[method, name]

    def struct(self, name: str) -> TypeDesc:
        """See layout.Types."""
        return self._ask("struct", name)

    def enum(self, name: str) -> dict[str, int]:
        """See layout.Types."""
        return self._ask("enum", name)

    def constant(self, name: str) -> int:
        """See layout.Types."""
        return self._ask("constant", name)

    def symbol(self, name: str) -> Symbol | None:
        """See layout.Types."""
        return self._ask("symbol", name)


class Remembered:
    """layout.Types from what a Recorder wrote down. Whatever was not asked then is a mistake of ours."""

    def __init__(self, answers: dict[tuple[str, str], Any]) -> None:
        self.answers = answers

    def _say(self, method: str, name: str, kind: type[T]) -> T:
        answer = self.answers[method, name]
        if isinstance(answer, str):
            raise KtfError(answer)
        assert isinstance(answer, kind)
        return answer

    def struct(self, name: str) -> TypeDesc:
        """See layout.Types."""
        return self._say("struct", name, TypeDesc)

    def enum(self, name: str) -> dict[str, int]:
        """See layout.Types."""
        return self._say("enum", name, dict)

    def constant(self, name: str) -> int:
        """See layout.Types."""
        return self._say("constant", name, int)

    def symbol(self, name: str) -> Symbol | None:
        """See layout.Types."""
        return self.answers["symbol", name]


def freeze(
    target: Target, look: Callable[[Session], object], also: Iterable[tuple[str, str]], path: str
) -> Facts:
    """Takes the guest that GDB has stopped; its memory goes to a file. look: asks for all types that will be needed.

    also: (method, name) of types and symbols that it does not ask for.
    """
    session = target.session()
    facts = Facts(cpus=session.cpus, selected=session.cpu.number, phys_bits=session.phys_bits)
    assert session.types is not None
    session.types = Recorder(session.types, facts.answers)
    look(session)
    for method, name in also:
        getattr(session.types, method)(name)
    facts.registers, facts.image = session.registers, session.image
    facts.backtraces = {cpu.number: session.unwind(cpu.number) for cpu in session.cpus}
    facts.ranges = session.reader.ram.ranges
    with open(path, "wb") as f:
        for r in facts.ranges:
            f.write(session.reader.read(r.start, r.end - r.start))
    return facts


class Frozen:
    """A guest whose memory is this process's own: what is written stays here."""

    def __init__(self, facts: Facts, path: str) -> None:
        self.facts = facts
        with open(path, "rb") as f:
            self.memory = np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
        places: list[np.ndarray] = []
        at = 0
        for r in facts.ranges:
            places.append(self.memory[at : at + r.end - r.start])
            at += r.end - r.start
        self.reader = ArrayReader(RamMap(facts.ranges), places)
        self.cr3: dict[int, int] = {}  # by CPU: what its CR3 is instead

    def session(self) -> Session:
        """As Target.session()."""
        facts = self.facts
        cpus = [
            replace(cpu, cr3=self.cr3[cpu.number]) if cpu.number in self.cr3 else cpu
            for cpu in facts.cpus
        ]
        types = Remembered(facts.answers)
        args = cpus, facts.selected, self.reader, types, facts.image, facts.phys_bits
        return Session(*args, lambda: facts.registers, lambda n: facts.backtraces[n])

    def bytes_at(self, pa: int, size: int) -> np.ndarray:
        """Memory, to be written; within one range."""
        at = 0
        for r in self.facts.ranges:
            if r.start <= pa and pa + size <= r.end:
                return self.memory[at + pa - r.start : at + pa - r.start + size]
            at += r.end - r.start
        raise KtfError(f"{pa:#x}: no memory")
