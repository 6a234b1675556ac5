# SPDX-License-Identifier: BSD-2-Clause
# One address: the walk level by level, what limits its rights, its memory type, the frame at its end.
"""Lookup: `ktf-maps VA`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ktf.commands.command import Args, Context, json_line
from ktf.errors import KtfError, UsageError
from ktf.kernel.session import Session
from ktf.kernel.spaces import Space
from ktf.show import maps
from ktf.x86.memtype import NAMES, pat_index
from ktf.x86.paging import ADDRESS, PS, U, W, X, leaf_pa
from ktf.x86.trace import Step, Trace, trace


def find_spaces(session: Session, name: str | None) -> list[Space]:
    """The spaces with that name, all if there is none; KtfError that lists them if it is unknown."""
    if name == "cr3":
        return [session.cr3_space()]
    spaces = session.spaces().spaces
    if name is None:
        return spaces
    found = [s for s in spaces if s.name == name]
    if not found:
        names = ", ".join(dict.fromkeys([*(s.name for s in spaces), "cr3"]))
        raise KtfError(f"no address space {name}; there are: {names}")
    return found


class Lookup:
    """ktf-maps VA."""

    def __init__(self, context: Context, session: Session, args: Args) -> None:
        self.context = context
        self.session = session
        self.args = args
        if any(s.name == args.rest[0] for s in session.spaces().spaces):
            raise UsageError(f"{args.rest[0]} is an address space: --space {args.rest[0]}")
        va = context.evaluate(args.rest[0])
        name = args.value("--space")
        if name is None:
            roots = {s.root: s for s in reversed(session.spaces().spaces)}
            self.space = roots.get(session.cpu.root, session.cr3_space())
        else:
            self.space = find_spaces(session, name)[0]
        self.found = trace(session.reader, self.space.root, session.rules, va)
        self.types, self.unknown = session.memory_types()

    def show(self) -> None:
        """Text or JSON."""
        if self.args.has("--json"):
            self.context.write(json_line("ktf-maps", **self._values()))
        else:
            self.context.write("".join(f"{line}\n" for line in self._lines()))

    def _end(self) -> tuple[str, str, str]:
        """Memory type and page size of the leaf, and what makes the type."""
        step = self.found.steps[-1]
        entry, level = np.array([step.entry], np.uint64), np.array([step.level])
        pa = leaf_pa(entry, level)
        code = int(self.types.of(entry, level, pa)[0])
        own = NAMES[int(self.types.of_entry(entry, level)[0])]
        how = f"{own} by the entry (PAT {int(pat_index(entry, level)[0])})"
        if self.types.mtrr is None:
            how += ", MTRRs not known"
        else:
            memory = int(self.types.mtrr.sets(pa, level)[0])
            names = [NAMES[m] for m in range(8) if memory >> m & 1]
            how += f", {' and '.join(names)} by the MTRRs"
        return NAMES[code], maps.PAGES[step.level], how

    def _values(self) -> dict[str, Any]:
        found, database = self.found, self.session.database()
        mapped = found.pa is not None
        memtype, page, how = self._end() if mapped else (None, None, None)
        kind = None
        if found.pa is not None and database is not None:
            number = database.kind_of_mfns(np.array([found.pa >> 12], np.uint64))
            kind = database.kind_names.get(int(number[0]), "?")
        return {
            "space": self.space.name,
            "va": f"{found.va:#x}",
            "mapped": mapped,
            "pa": None if found.pa is None else f"{found.pa:#x}",
            "perm": maps.perm_text(found.perm) if mapped else None,
            "type": memtype,
            "type_by": how,
            "page": page,
            "kind": kind,
            "problem": found.problem or None,
            "limits": {n: found.limits(b) for n, b in RIGHTS} if mapped else None,
            "walk": [step_values(s) for s in found.steps],
        }

    def _lines(self) -> Iterator[str]:
        found, session = self.found, self.session
        head = f"{found.va:#x} in {self.space.name}: root table {self.space.root:#x}"
        yield f"{head}, {session.rules.levels} levels"
        symbol = self.context.source(found.va)
        if symbol:
            yield f"this is {symbol}"
        if session.rules.is_canonical(found.va):
            yield "level table        index entry              rights"
            for step in found.steps:
                yield _step_line(step)
        if found.pa is None:
            yield _not_mapped(found)
        else:
            memtype, page, how = self._end()
            rights = maps.perm_text(found.perm)
            yield f"physical address {found.pa:#x}, {rights}, {memtype}, {page} page"
            yield f"memory type {memtype}: {how}"
            yield from _limits(found)
            database = session.database()
            if database is not None:
                yield database.frame_line(found.pa >> 12)
        for note in session.notes:
            yield f"! {note}"


RIGHTS = (("w", W), ("x", X), ("u", U))


def step_values(step: Step) -> dict[str, Any]:
    return {
        "level": step.level,
        "table": f"{step.table:#x}",
        "index": step.index,
        "entry": f"{step.entry:#x}",
        "perm": maps.perm_text(step.perm),
        "problem": step.problem or None,
    }


def _step_line(step: Step) -> str:
    head = f"{step.level:>5} {step.table:#012x} {step.index:>5} {step.entry:#018x} "
    if step.problem:
        return f"{head} {step.problem}"
    target = (step.entry & ADDRESS) >> 12
    goal = f"{maps.PAGES[step.level]} page" if step.leaf else f"table {target:#x}"
    return f"{head} {maps.perm_text(step.perm)}  {goal}"


def _not_mapped(found: Trace) -> str:
    step = found.steps[-1]
    if step.problem == "not a canonical address":
        return f"not mapped: {found.va:#x} is {step.problem}"
    large = " (PS)" if step.entry & PS and step.level > 1 else ""
    return (
        f"not mapped: the walk ends at level {step.level}, entry {step.index} of table "
        f"{step.table:#x} is {step.entry:#x}{large}: {step.problem}"
    )


def _limits(found: Trace) -> Iterator[str]:
    """Which levels take away which rights."""
    words = {"w": "written", "x": "executed", "u": "reached by user code"}
    for name, bit in RIGHTS:
        levels = found.limits(bit)
        if levels:
            where = ", ".join(map(str, levels))
            yield f"can't be {words[name]}: level{'s' if len(levels) > 1 else ''} {where}"
