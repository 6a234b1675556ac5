# SPDX-License-Identifier: BSD-2-Clause
# Address spaces: the kernel's list of them, validated as it is walked, or what CR3 says without symbols.
"""Spaces of the guest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from ktf.errors import KtfError
from ktf.kernel.kernel import Kernel
from ktf.kernel.layout import Records
from ktf.memory.readers import Reader
from ktf.x86.paging import ACCESSED, Rules

LIVE = 0xA5  # SPACE_LIVE, if the symbols don't say


@dataclass(frozen=True)
class Space:
    """An address space. index is its place in ARENA_SPACES, None for one that only CR3 knows."""

    name: str
    root: int  # frame number of its top-level table
    levels: int
    index: int | None = None
    id: int | None = None
    kernel: bool = False  # its walk covers everything; else the lower half alone

    def span(self, rules: Rules) -> tuple[int, int]:
        """The linear addresses [low, high) that are its own."""
        top = 1 << rules.va_bits
        return (0, top) if self.kernel or self.index is None else (0, top // 2)


@dataclass
class SpaceList:
    """The spaces found, in list order, and what is wrong with the list: (index, message)."""

    spaces: list[Space] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)


def read_spaces(kernel: Kernel) -> SpaceList:
    """Follows mm.space_list; every link is checked, so that any bytes at all end in a problem."""
    found = SpaceList()
    arena = kernel.arena("ARENA_SPACES")
    layout = kernel.layout("space_t")
    index, prev = kernel.mm.value("space_list", 0), 0
    end = arena.pages * 4096 // arena.unit
    seen: set[int] = set()
    if index == 0:
        found.problems.append((0, "mm.space_list is empty: not even the kernel's space"))
    while index:
        if index in seen:
            found.problems.append((index, f"space list: {index:#x} comes twice: a loop"))
            break
        if index * arena.unit + layout.size > arena.pages * 4096 or index >= end:
            text = f"space list: index {index:#x} (after {prev:#x}) lies outside the spaces' window"
            found.problems.append((index, text))
            break
        seen.add(index)
        try:
            record = layout.records(kernel.memory.read(arena.va(index), layout.size))
        except KtfError as e:
            found.problems.append((index, f"space {index:#x}: {e}"))
            break
        problem = _check(record, index, prev, kernel.memory.rules.levels)
        if problem:
            found.problems.append((index, problem))
        if record.value("live", 0) == LIVE:
            found.spaces.append(_space(record, index, kernel=not found.spaces))
        index, prev = record.value("next", 0), index
    found.spaces = _told_apart(found.spaces)
    return found


def _told_apart(spaces: list[Space]) -> list[Space]:
    """Spaces of the same name get their number behind it: "test#3"."""
    count = Counter(s.name for s in spaces)
    return [replace(s, name=f"{s.name}#{s.id}") if count[s.name] > 1 else s for s in spaces]


def upper_half(reader: Reader, kernel: Space, space: Space) -> list[str]:
    """Where the upper half of a user space's top table is not the kernel's, which it must be.

    The accessed bit, which the CPU sets in each table by itself, may differ.
    """
    pages, ok = reader.read_pages(np.array([kernel.root, space.root], np.uint64))
    if not ok.all():
        return []  # the walk tells it
    half = pages[:, 256:] & ~np.uint64(ACCESSED)
    return [
        f"top entry {256 + i} is {int(pages[1, 256 + i]):#x}, the kernel's is {int(pages[0, 256 + i]):#x}"
        for i in np.flatnonzero(half[0] != half[1]).tolist()
    ]


def space_name(record: Records, index: int) -> str:
    """As it can be printed and typed."""
    raw = bytes(record["name"][0]).split(b"\0")[0]
    return "".join(chr(b) if 33 <= b < 127 else "?" for b in raw) or f"space-{index:#x}"


def _space(record: Records, index: int, kernel: bool) -> Space:
    return Space(
        space_name(record, index),
        record.value("cr3", 0) >> 12 & 0xFF_FFFF_FFFF,
        record.value("levels", 0),
        index,
        record.value("id", 0),
        kernel,
    )


def _check(record: Records, index: int, prev: int, levels: int) -> str:
    """What is wrong with one space_t, "" if nothing is."""
    if record.value("live", 0) != LIVE:
        return f"space {index:#x}: live is {record.value('live', 0):#x}, not {LIVE:#x}: gone, or overwritten"
    if record.value("prev", 0) != prev:
        return f"space {index:#x}: prev is {record.value('prev', 0):#x}, but {prev:#x} leads to it"
    if record.value("levels", 0) != levels:
        return f"space {index:#x}: {record.value('levels', 0)} levels, but the CPU uses {levels}"
    if record.value("cr3", 0) & 0xFFF or record.value("cr3", 0) >> 52:
        return f"space {index:#x}: cr3 {record.value('cr3', 0):#x} is no page's address"
    return ""
