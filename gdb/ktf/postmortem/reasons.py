# SPDX-License-Identifier: BSD-2-Clause
# Why an access to an address failed: what the walk, the rules, the stacks and the journal say of it.
"""Reasons(session, context, stop): why() is the strongest evidence there is; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ktf.errors import KtfError
from ktf.findings import Report
from ktf.kernel import journal
from ktf.kernel.context import Context
from ktf.kernel.database import Database
from ktf.kernel.session import Session
from ktf.memory.readers import PAGE
from ktf.postmortem.denied import denied
from ktf.postmortem.stop import Stop
from ktf.rules.examine import examine
from ktf.rules.stacks import Stacks
from ktf.rules.table import RULES
from ktf.show.past import Past
from ktf.x86.exceptions import PF, PRESENT, Fault
from ktf.x86.operands import U64
from ktf.x86.paging import PAGES, perm_text, NX
from ktf.x86.trace import Trace, trace

OVERFLOW = 1 << 20  # so far below its end RSP is still of that stack
NULL_BYTES = 1 << 16  # an address below was made from a null pointer
ENTRY_RULES = (
    "T5",
    "P5",
    "P3",
    "T1",
    "T2",
    "P1",
    "T6",
)  # on what an entry should be, strongest first
SHARED_RULES = ("T4", "P4")  # somebody else maps this frame


@dataclass
class Reason:
    """Why an access failed, and the rule that is broken there (None: none, the access itself was wrong)."""

    text: str
    rule: str | None = None


class Reasons(Past):
    """The frame database and the journal at one stop, asked by address. What can't be read is named in notes."""

    def __init__(self, session: Session, context: Context, stop: Stop) -> None:
        super().__init__(session, context)
        self.registers = stop.registers
        self.root = stop.registers.control["cr3"] >> 12 & 0xFF_FFFF_FFFF
        self.notes: list[str] = []
        self.report = Report()
        if session.kernel is not None:
            self._read_database()
        else:
            why = "these are not the symbols of a KTF kernel"
            if session.types is not None:
                why = stop.no_tables or "the kernel has none yet"
            self.notes.append(f"no frame database, no journal: {why}")

    def _read_database(self) -> None:
        try:
            self.db = Database(self.session)
            self.report = examine(self.session, list(RULES))[0]
        except KtfError as e:
            self.notes.append(f"no frame database: {e}")
        try:
            self.journal = journal.events(self.session)
            self.notes += self.journal.notes
        except KtfError as e:
            self.notes.append(f"no journal: {e}")

    def walk(self, va: int) -> Trace:
        """Through the CPU's own tables."""
        return trace(self.session.reader, self.root, self.session.rules, va & U64)

    def why(self, va: int, fault: Fault | None = None) -> Reason:
        """Why an access to va fails, from the strongest evidence on."""
        walk = self.walk(va)
        for reason in self._reasons(va, walk, fault):
            return reason
        if walk.pa is None:
            cut = f" ({self.session.cut})" if self.session.cut and "RAM" in walk.problem else ""
            return Reason(f"{walk.problem} at level {walk.steps[-1].level}{cut}")
        return Reason(f"mapped {perm_text(walk.perm)}")

    def _reasons(self, va: int, walk: Trace, fault: Fault | None) -> Iterator[Reason]:
        yield from self._dead_root()
        if walk.pa is None:
            yield from self._root_entry(walk)
            yield from self._shared_table(walk)
            yield from self._wrong_entry(va, walk, f" ({walk.problem})")
            yield from self._guard(va)
            yield from self._unmapped(va)
            if va < NULL_BYTES:
                yield Reason("a null pointer: page 0 is never mapped" if va < PAGE else "near null")
            yield from self._elsewhere(va)
            if self.journal is not None:
                kept = len(self.journal)
                yield Reason(
                    f"nothing is mapped there, and none of the {kept:,} events kept unmaps it"
                )
            return
        if fault is not None and fault.vector == PF and fault.error & PRESENT:
            forbidden = self._forbidden(walk, fault)
            for wrong in self._wrong_entry(va, walk, ""):
                yield Reason(f"{forbidden.text}; {wrong.text}", wrong.rule)
            yield forbidden

    def _dead_root(self) -> Iterator[Reason]:
        """CR3 is no root any more. Where the spaces can't be read nobody knows."""
        rows = self.db.spaces.rows if self.db is not None else []
        if self.db is None or not rows or self.root in (self._kernel_root, *(s.mfn for s in rows)):
            return
        text = f"CR3 is {self.root << 12:#x}, which is no address space's root"
        yield Reason(f"{text}: {self.history(self.root)}", "C1")

    @cached_property
    def _kernel_root(self) -> int | None:
        """The table that the kernel itself runs on, as it has noted down; None if that can't be read."""
        kernel = self.session.kernel
        symbol = kernel.types.symbol("kernel_cr3") if kernel is not None else None
        if kernel is None or symbol is None:
            return None
        try:
            return int.from_bytes(kernel.read(symbol.va, 8), "little") >> 12 or None
        except KtfError:
            return None

    def _root_entry(self, walk: Trace) -> Iterator[Reason]:
        """The kernel's root leads nowhere, and what it should say stands where it led to."""
        step = walk.steps[-1]
        unread = self.db is None or not self.db.spaces.rows
        if not unread or step.table != self._kernel_root or step.level != self.session.rules.levels:
            return
        said = f"entry {step.index} of the kernel's root table {step.table:#x} is {step.entry:#x}"
        idt = self.walk(self.registers.segments["idt"].base)
        yield Reason(f"{said} ({walk.problem})", "C2" if idt.pa is None else None)

    def _shared_table(self, walk: Trace) -> Iterator[Reason]:
        """A table of the walk that something else may write."""
        for step in walk.steps:
            bad = [v for rule in SHARED_RULES for v in self.report.kept.get(rule, [])]
            for v in bad:
                if v.mfn == step.table and v.va is not None and v.level == 1:
                    text = (
                        f"its level {step.level} table {step.table:#x} can be written at {v.va:#x}"
                    )
                    past = self._last(self._journal_of(step.table), ("put", "unmap"))
                    text += f", though {past}" if past else ""
                    yield Reason(f"{text}; the entry is {walk.steps[-1].entry:#x}", v.rule)

    def _wrong_entry(self, va: int, walk: Trace, problem: str) -> Iterator[Reason]:
        """The entry is not what its record says, or no entry at all: the last, or where all are there any that limits."""
        for step in walk.steps[-1:] if walk.pa is None else walk.steps[::-1]:
            size = 1 << 12 + 9 * (step.level - 1)
            said = (
                f"the level {step.level} entry of table {step.table:#x} is {step.entry:#x}{problem}"
            )
            if walk.pa is None and step.entry & NX and not self.session.rules.nxe:
                yield Reason(f"{said}: EFER.NXE is 0, which makes NX a reserved bit", "C2")
            for rule in ENTRY_RULES:
                for v in self.report.kept.get(rule, []):
                    here = v.va is not None and v.va & -size == va & -size & U64
                    if here and v.level == step.level:
                        more = f"; {v.message}" if rule == "P5" else ""
                        yield Reason(f"{said}: overwritten{more}", rule)

    def _guard(self, va: int) -> Iterator[Reason]:
        """The page below or above a stack."""
        if self.db is None:
            return
        stacks = Stacks(self.db)
        for i in range(len(stacks)):
            bottom, top = int(stacks.bottom[i]), int(stacks.top[i])
            if bottom - PAGE <= va < bottom:
                rsp = self.registers.general["rsp"]
                if bottom - OVERFLOW <= rsp < bottom + PAGE:
                    yield Reason(f"stack '{stacks.names[i]}' has overflowed into its guard page")
                else:
                    yield Reason(f"the guard page below stack '{stacks.names[i]}'")
            elif top <= va < top + PAGE:
                yield Reason(f"the guard page above stack '{stacks.names[i]}'")

    def _unmapped(self, va: int) -> Iterator[Reason]:
        """The code that took the mapping away."""
        if self.journal is None:
            return
        found = self.journal.of_va(va & -PAGE & U64, PAGE)
        names = [found.op_names[int(row["op"])] for row in found.rows]
        for row, name in reversed(list(zip(found.rows, names))):
            gone = name in ("put_range", "put_frames") or name == "unmap" and not row["count"]
            if not gone and name != "shootdown":
                return  # it was mapped again
            if gone:
                yield Reason(f"{self._tell(row)} ({self.since(row, va)})")

    def _elsewhere(self, va: int) -> Iterator[Reason]:
        """It was mapped: in another address space, for here nothing is. Events do not say in which."""
        found = self.journal.of_va(va & -PAGE & U64, PAGE) if self.journal is not None else None
        told = self._last(found, ("map", "map_range", "map_frames"))
        if told:
            yield Reason(f"nothing is mapped there in this address space; {told}, in another one")

    def _forbidden(self, walk: Trace, fault: Fault) -> Reason:
        """The page is there, but not for this."""
        page = f"{PAGES[walk.steps[-1].level]} page {perm_text(walk.perm)}"
        kind = ""
        if self.db is not None and walk.pa is not None:
            kind = self.db.kind_name(int(self.db.kind_of_mfns(np.array([walk.pa >> 12]))[0]))
        of = f" of {kind}" if kind else ""
        return Reason(denied(f"{page}{of}", walk.perm, fault, self.registers))

    def stack_name(self, va: int) -> str:
        """ " 'cpu0 #DF'" if va lies on that stack."""
        if self.db is None:
            return ""
        stacks = Stacks(self.db)
        for i in range(len(stacks)):
            if int(stacks.bottom[i]) <= va < int(stacks.top[i]):
                return f" '{stacks.names[i]}'"
        return ""
