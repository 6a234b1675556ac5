# SPDX-License-Identifier: BSD-2-Clause
# One mapping record, table slot or space by its index, without reading all the others: for the pretty-printers.
"""Peek(session): single objects, each checked before it is believed; pure.

    peek.record(index)          Records of one mapping_t
    peek.place(record)          where it maps: space, address, entry
    peek.chain(first)           a frame's records, bounded, and why it stopped
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ktf.errors import Corrupt, KtfError
from ktf.kernel.layout import Records
from ktf.kernel.session import Session
from ktf.kernel.spaces import space_name
from ktf.memory.readers import PAGE
from ktf.x86.paging import PAGES, perm_text, U, W, X

ENTRY = 8  # bytes


@dataclass(frozen=True)
class Place:
    """Where a record maps its pages."""

    space: str
    va: int
    entry: int | None  # the first page-table entry, None if it can't be read


def of_record(record: Records) -> Callable[[str], int]:
    """The members of the only one."""
    return lambda name: record.value(name, 0)


class Peek:
    """The guest as it is at this moment."""

    def __init__(self, session: Session) -> None:
        self.kernel = session.need_kernel()
        self.rules = session.rules

    def object(self, arena: str, layout: str, index: int) -> Records:
        """The object of an arena with that index; Corrupt if it lies outside."""
        pool, form = self.kernel.arena(arena), self.kernel.layout(layout)
        if not 0 < index * pool.unit <= pool.pages * PAGE - form.size:
            raise Corrupt(f"index {index:#x} lies outside {arena}")
        return form.records(self.kernel.read(pool.va(index), form.size))

    def record(self, index: int) -> Records:
        """A mapping_t."""
        return self.object("ARENA_MAPPINGS", "mapping_t", index)

    def chain(self, first: int, count: int) -> Iterator[tuple[Records | None, str]]:
        """The first count records of a list, each with what is wrong with it; (None, why) where it can't go on."""
        index, before = first, 0
        seen: set[int] = set()
        while index and len(seen) < count:
            if index in seen:
                yield None, f"record {index:#x} comes twice: a loop"
                return
            seen.add(index)
            try:
                record = self.record(index)
            except KtfError as e:
                yield None, f"can't be followed: {e}"
                return
            prev = record.value("prev", 0)
            yield record, "" if prev == before else f"its prev is {prev:#x}, not {before:#x}"
            index, before = record.value("next", 0), index
        if index:
            yield None, "and more"

    def place(self, at: int) -> Place:
        """Of a record's `at`: slot * 512 + entry. Corrupt if there is no such table."""
        slot, index = divmod(at, PAGE // ENTRY)
        table = self.object("ARENA_TABLES", "struct table", slot)
        level = table.value("level", 0)
        if not 1 <= level <= 5:
            raise Corrupt(f"slot {slot} has no table (level {level})")
        va = table.value("va", 0) + (index << 3 + 9 * level) & (1 << 64) - 1
        space = self.object("ARENA_SPACES", "space_t", table.value("space", 0))
        name = space_name(space, table.value("space", 0))
        canonical = int(self.rules.canonical(np.array([va], np.uint64))[0])
        return Place(name, canonical, self._entry(slot, index))

    def _entry(self, slot: int, index: int) -> int | None:
        """Through the window."""
        at = self.kernel.mm.value("window", 0) + slot * PAGE + index * ENTRY
        try:
            return int.from_bytes(self.kernel.read(at, ENTRY), "little")
        except KtfError:
            return None

    def rights(self, attr: int) -> str:
        """ "rw-- WB" of a record's attributes."""
        vattr = self._vattr
        bits = ((vattr["VATTR_W"], W), (vattr["VATTR_X"], X), (vattr["VATTR_U"], U))
        perm = perm_text(sum(ours for theirs, ours in bits if attr & theirs))
        code = (attr & vattr["VATTR_TYPE"]) >> vattr["VATTR_TYPE_SHIFT"]
        return f"{perm} {self._types.get(code, f'type {code} (nonsense)')}"

    def line(self, member: Callable[[str], int]) -> str:
        """A mapping_t in short: space, address, rights, type, page size."""
        try:
            place = self.place(member("at"))
            head = f"{place.space} {place.va:#x}"
        except KtfError as e:
            head = f"nowhere ({e})"
        level = member("level")
        page = PAGES[level] if 1 <= level < len(PAGES) else f"level {level} (nonsense)"
        return f"{head} {self.rights(member('attr'))} {page}"

    @cached_property
    def _vattr(self) -> dict[str, int]:
        return self.kernel.types.enum("vattr")

    @cached_property
    def _types(self) -> dict[int, str]:
        """enum memtype: number -> "WB", "UC-", ..."""
        found = self.kernel.types.enum("memtype")
        names = {name.removeprefix("MEMTYPE_"): n for name, n in found.items()}
        return {n: "UC-" if name == "UCM" else name for name, n in names.items() if name != "COUNT"}
