# SPDX-License-Identifier: BSD-2-Clause
# From a violation to the bytes to be watched, and from the writes that were seen to the one that did it.
"""What `make culprit` needs to know; pure (tests/campaigns/culprit_gdb.py runs the guest).

    watches(session, report)       # what to watch, each with all addresses through which it can be written
    broken(report, watch)          # whether its violation is there
    culprit(states)                # number of the write after which it stayed broken
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ktf.errors import KtfError
from ktf.findings import Report, Violation
from ktf.kernel import journal
from ktf.kernel.database import POOLS, Database
from ktf.kernel.session import Session
from ktf.memory.readers import PAGE
from ktf.rules.table import RULES
from ktf.x86.operands import U64
from ktf.x86.paging import ACCESSED, DIRTY, W
from ktf.x86.trace import trace

RULES_WATCHED = 6  # the first violation of so many rules is followed
ENTRY = "entry"
COUNTS = "counts of order"
ALIASES = 64  # addresses of one page that are watched


@dataclass
class Watch:
    """size bytes at physical address pa; vas: where they can be written; violations: what is wrong with them."""

    name: str
    pa: int
    size: int
    vas: list[int]
    violations: list[Violation] = field(default_factory=list)
    entry: bool = False  # of a page table: the CPU itself sets its accessed and dirty bits
    busy: bool = False  # written all the time

    def same(self, before: bytes, after: bytes) -> bool:
        """True if nobody wrote: what the CPU sets by itself does not count."""
        if not self.entry:
            return before == after
        one, other = int.from_bytes(before, "little"), int.from_bytes(after, "little")
        return (one | ACCESSED | DIRTY) == (other | ACCESSED | DIRTY)

    def json(self) -> dict[str, Any]:
        """For the next run, which another GDB makes."""
        return {
            "name": self.name,
            "pa": self.pa,
            "size": self.size,
            "vas": self.vas,
            "entry": self.entry,
            "busy": self.busy,
            "violations": [
                [v.rule, v.message, v.space, v.va, v.level, v.mfn] for v in self.violations
            ],
        }

    @staticmethod
    def of(values: dict[str, Any]) -> Watch:
        """Back from JSON."""
        found = [
            Violation(rule, message, space, va, level, None, mfn)
            for rule, message, space, va, level, mfn in values["violations"]
        ]
        names = ("name", "pa", "size", "vas", "entry", "busy")
        return Watch(violations=found, **{name: values[name] for name in names})


def watches(session: Session, report: Report) -> list[Watch]:
    """What the first violation of each broken rule is about."""
    db = Database(session)
    found: dict[tuple[int, int], Watch] = {}
    if not db.spaces.rows:
        return []  # no tables to find anything by
    kept = [report.kept[rule][0] for rule in RULES if report.kept.get(rule)]
    for violation in kept[:RULES_WATCHED]:
        for name, pa, size in _places(db, violation):
            if not session.reader.ram.holds(np.array([pa // PAGE], np.uint64))[0]:
                continue
            key = (pa, size)
            if key not in found:
                found[key] = Watch(name, pa, size, list(_aliases(session, pa)))
                found[key].entry = name.startswith(ENTRY)
                found[key].busy = name.startswith(COUNTS)
            found[key].violations.append(violation)
    return list(found.values())


def _places(db: Database, v: Violation) -> Iterator[tuple[str, int, int]]:
    """Name, physical address and size of each thing that a violation is about."""
    if v.va is None and v.mfn is None:
        yield from _counts(db, v)
    if v.rule == "C2":
        yield from _descriptors(db, v)
    if v.va is not None:
        inside = _object(db, v.va) if v.space is None else None
        if inside is not None:
            yield inside
        else:
            yield from _entry(db, v)
    if v.mfn is not None:
        index = int(db.frames.find(np.array([v.mfn]))[0])
        if index:
            size = db.layout("frame_t").size
            va = db.pool("ARENA_FRAMES").va(index)
            pa = _physical(db, va)
            if pa is not None:
                yield f"descriptor of frame {v.mfn:#x}", pa, size


def _counts(db: Database, v: Violation) -> Iterator[tuple[str, int, int]]:
    """The row of struct mm that a violation about an order is about."""
    order, kernel = re.match(r"order (\d+):", v.message), db.session.need_kernel()
    symbol, rows = kernel.types.symbol("mm"), kernel.layout("struct mm").dtype.fields
    if order is None or symbol is None or rows is None or "order" not in rows:
        return
    kind, offset = rows["order"][:2]
    pa = kernel.image_pa(symbol.va + offset + int(order[1]) * kind.base.itemsize)
    if pa is not None and int(order[1]) < kind.shape[0]:
        yield f"{COUNTS} {order[1]}", pa, kind.base.itemsize


def _descriptors(db: Database, v: Violation) -> Iterator[tuple[str, int, int]]:
    """The gate of the IDT and the descriptor of the GDT that a violation names by vector and selector."""
    cpu = re.match(r"CPU (\d+): ", v.message)
    mine = [r for r in db.session.registers if cpu is not None and r.number == int(cpu[1])]
    for word, table, size in (("vector", "idt", 16), ("selector", "gdt", 8)):
        found = re.search(rf"\b{word} (0x[0-9a-f]+|\d+)", v.message)
        if found is None or not mine:
            continue
        at = int(found[1], 0) * 16 if table == "idt" else int(found[1], 0) & ~7
        base, limit = mine[0].segments[table].base, mine[0].segments[table].limit
        size = 16 if "TSS" in v.message else size  # its descriptor is a double one
        pa = _physical(db, base + at & U64)
        if pa is not None and at + size - 1 <= limit:
            yield f"the {table.upper()}'s bytes for {word} {found[1]}", pa, size


def _object(db: Database, va: int) -> tuple[str, int, int] | None:
    """The object of an arena in which an address lies."""
    for name, (_, label) in POOLS.items():
        pool = db.pool(name)
        if pool.base <= va < pool.base + pool.pages * PAGE:
            pa = _physical(db, va)
            size = min(db.layout(POOLS[name][0]).size, PAGE - va % PAGE)
            return None if pa is None else (f"one of the {label} at {va:#x}", pa, size)
    return None


def _physical(db: Database, va: int) -> int | None:
    return trace(db.reader, db.spaces.rows[0].mfn, db.rules, va).pa


def _entry(db: Database, v: Violation) -> Iterator[tuple[str, int, int]]:
    """The page-table entry for an address: of the level that is given, else where the walk ends."""
    assert v.va is not None
    roots = {row.name: row.mfn for row in db.spaces.rows}
    name = v.space or db.spaces.rows[0].name
    if name not in roots:
        return
    found = trace(db.reader, roots[name], db.rules, v.va)
    steps = [s for s in found.steps if s.level == v.level] or found.steps[-1:]
    for step in steps:
        if found.problem == "not a canonical address":
            return
        what = f"{ENTRY} of level {step.level} for {v.va:#x} in {name}"
        yield what, step.table * PAGE + step.index * 8, 8


def _aliases(session: Session, pa: int) -> Iterator[int]:
    """Every address that maps the page of pa writable now, or did as far as the journal knows."""
    seen: set[int] = set()
    for va in [*_mapped(session, pa), *_were_mapped(session, pa)]:
        if va not in seen and len(seen) < ALIASES:
            seen.add(va)
            yield va


def _mapped(session: Session, pa: int) -> Iterator[int]:
    for space in session.spaces().spaces:
        leaves = session.walk(space).leaves
        start = leaves.pa
        inside = (start <= np.uint64(pa)) & (np.uint64(pa) - start < leaves.size)
        for i in np.flatnonzero(inside & ((leaves.perm & W) != 0)).tolist():
            yield int(leaves.va[i]) + pa - int(start[i])


def _were_mapped(session: Session, pa: int) -> Iterator[int]:
    try:
        events = journal.events(session)
    except KtfError:
        return
    for row in events.of_frame(pa // PAGE).rows[::-1]:
        at = int(row["mfn"]) * PAGE
        if row["va"] and at <= pa < at + int(row["span"]):
            yield int(row["va"]) + pa - at


# --- which write it was ------------------------------------------------------------------------------


def broken(report: Report, watch: Watch) -> bool | None:
    """Whether one of its violations is there; None if it is, but under a lock: perhaps only half done."""
    if _has(report, watch):
        return True
    return None if report.unsettled is not None and _has(report.unsettled, watch) else False


def _has(report: Report, watch: Watch) -> bool:
    wanted = {
        (v.rule, v.space, v.va, v.level, v.mfn if v.va is None else None) for v in watch.violations
    }
    return any(
        (v.rule, v.space, v.va, v.level, v.mfn if v.va is None else None) in wanted
        for v in report.all(RULES)
    )


def culprit(states: Sequence[bool | None]) -> int | None:
    """Of the writes in their order, with what was so after each: the one after which it stayed broken.

    That is the first one found broken after the last one found sound. None where there is none.
    """
    sound = max((i for i, state in enumerate(states) if state is False), default=-1)
    rest = range(sound + 1, len(states))
    first = next((i for i in rest if states[i]), None)
    return first if first is not None else (len(states) - 1 if len(rest) else None)
