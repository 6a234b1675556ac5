# SPDX-License-Identifier: BSD-2-Clause
# The exceptions that a CPU is inside of: their frames as the kernel's entry code saved them on the stack.
"""saved(session, context, kernel, registers): from the outermost one on; found by the unwinder, pure otherwise.

Neither the registers nor a panic's record need tell of them: a handler that faults itself leaves several.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ktf.errors import KtfError
from ktf.kernel.context import Context
from ktf.kernel.kernel import Kernel
from ktf.kernel.session import Session
from ktf.postmortem.delivery import processor
from ktf.x86.exceptions import EXCEPTIONS, NMI, PF, Fault
from ktf.x86.registers import GENERAL, Registers


@dataclass(frozen=True)
class Saved:
    """One frame: the fault, the registers of the code that it interrupted, its address, how far in the backtrace it stands."""

    fault: Fault
    registers: Registers
    va: int
    depth: int = 0


def read_frame(kernel: Kernel, registers: Registers, va: int, depth: int = 0) -> Saved | None:
    """The frame at va on a stack of the CPU with these registers; None if it can't be read."""
    try:
        layout = kernel.layout("struct trap_frame")
        row = layout.records(kernel.read(va, layout.size))
    except KtfError:
        return None
    general = {name: row.value(name, 0) for name in GENERAL}
    cs = replace(registers.segments["cs"], selector=row.value("cs", 0))
    segments = {**registers.segments, "cs": cs}
    found = replace(registers, general=general, segments=segments)
    return Saved(Fault(row.value("vector", 0), row.value("error", 0)), found, va, depth)


def saved(session: Session, context: Context, kernel: Kernel, registers: Registers) -> list[Saved]:
    """All of that CPU, interrupts and NMIs too, the outermost first; a page fault's address where it is known."""
    unwound = context.unwound(registers.number)
    found = []
    for depth, (_, va) in reversed(list(enumerate(unwound))):
        one = read_frame(kernel, registers, va, depth) if va else None
        if one is not None:
            found.append(one)
    for i, one in enumerate(found):
        if one.fault.vector == PF:
            address = _address(session, context, one)
            if address is None and i == len(found) - 1:
                address = registers.control["cr2"]
            found[i] = replace(one, fault=replace(one.fault, address=address))
    return found


def exceptions(found: list[Saved]) -> list[Saved]:
    """Those of them that are faults of the code."""
    return [s for s in found if s.fault.vector < EXCEPTIONS and s.fault.vector != NMI]


def _address(session: Session, context: Context, one: Saved) -> int | None:
    """By the instruction's operands: CR2 holds the last page fault's address."""
    first = processor(session, context, one.registers).first()[0]
    return first.address if first is not None and first.vector == PF else None
