# SPDX-License-Identifier: BSD-2-Clause
# One address: the walk level by level, what limits its rights, its memory type, the frame at its end.
"""Lookup: `ktf-maps VA`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ktf.commands.command import Args, json_line
from ktf.errors import KtfError, UsageError
from ktf.kernel.context import Context
from ktf.kernel.database import database_of
from ktf.kernel.session import Session
from ktf.kernel.spaces import Space
from ktf.show.steps import RIGHTS, limits, not_mapped, step_line, step_values
from ktf.x86.memtype import NAMES, pat_index
from ktf.x86.paging import PAGES, leaf_pa, perm_text
from ktf.x86.trace import trace


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
        return NAMES[code], PAGES[step.level], how

    def _values(self) -> dict[str, Any]:
        found, database = self.found, database_of(self.session)
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
            "perm": perm_text(found.perm) if mapped else None,
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
                yield step_line(step)
        if found.pa is None:
            yield not_mapped(found)
        else:
            memtype, page, how = self._end()
            rights = perm_text(found.perm)
            yield f"physical address {found.pa:#x}, {rights}, {memtype}, {page} page"
            yield f"memory type {memtype}: {how}"
            yield from limits(found)
            database = database_of(session)
            if database is not None:
                yield database.frame_line(found.pa >> 12)
        for note in session.notes:
            yield f"! {note}"
