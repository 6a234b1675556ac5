# SPDX-License-Identifier: BSD-2-Clause
# Page tables as the kernel keeps books on them: struct table, shadow and content of each slot; address spaces.
"""Slots: one row for each table slot. Spaces: the address spaces that are in use.

    slots.level[slot], .frame[slot], ...    struct table
    slots.shadow[slot, i]                   what entry i stands for
    slots.content[slot, i]                  the entry itself, read from the slot's frame
    slots.live, .spare, .free               masks: in use, an empty table in stock, neither
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from ktf.findings import Report
from ktf.kernel import chains
from ktf.kernel.chains import NONE
from ktf.kernel.descriptors import Frames
from ktf.kernel.layout import Layout
from ktf.kernel.pools import Objects, Pool
from ktf.memory.readers import WORDS, Reader
from ktf.x86.paging import Rules

COLUMNS = ("va", "frame", "parent", "space", "index", "used", "level", "pins", "stock", "zero")


class Slots:
    """All table slots, slot 0 included, which is never used."""

    def __init__(
        self,
        tables: Pool,
        shadows: Pool,
        layouts: tuple[Layout, Layout],
        count: int,
        frames: Frames,
        reader: Reader,
        out: Report,
    ) -> None:
        self.tables = tables
        room = min(tables.count * 4096 // tables.size, shadows.count * 4096 // shadows.size)
        self.room = room
        if count > room:
            text = f"mm.slot_count is {count}, but there are tables and shadows for {room}"
            out.add_blind("A3", f"slots: {text}")
            count = room
        elif not count:
            out.add_blind("A3", "slots: mm.slot_count is 0, but slot 0 always counts")
            count = min(1, room)
        self.count = count
        self.ok = np.repeat(tables.ok, 4096 // tables.size)[:count]
        self.ok = self.ok & np.repeat(shadows.ok, 4096 // shadows.size)[:count]
        rows = tables.records(layouts[0])[:count]
        for name in COLUMNS:
            setattr(self, name, rows[name])
        self.shadow = shadows.records(layouts[1])["entry"].reshape(-1, WORDS)[:count]
        self.live = (self.level != 0) & self.ok
        self.live[:1] = False
        self.spare = (self.level == 0) & (self.stock != 0) & self.ok
        self.spare[:1] = False
        self.free = self.ok & ~self.live & ~self.spare
        self.free[:1] = False
        self._content(frames, reader)

    va: np.ndarray
    frame: np.ndarray
    parent: np.ndarray
    space: np.ndarray
    index: np.ndarray
    used: np.ndarray
    level: np.ndarray
    pins: np.ndarray
    stock: np.ndarray
    zero: np.ndarray

    def _content(self, frames: Frames, reader: Reader) -> None:
        """The entries of every table, live or in stock, from the frame that its slot names."""
        tables = self.live | self.spare
        frame = np.where(tables & (self.frame < frames.count), self.frame, 0).astype(np.int64)
        self.has_frame = (frames.is_head[frame] if frames.count else np.zeros(self.count, bool)) & (
            frame > 0
        )
        self.mfn = np.where(self.has_frame, frames.mfn[frame], 0).astype(np.int64)
        self.content = np.zeros((self.count, WORDS), np.uint64)
        at = np.flatnonzero(self.has_frame)
        pages, ok = reader.read_pages(self.mfn[at])
        self.content[at] = pages
        self.readable = np.zeros(self.count, bool)
        self.readable[at] = ok

    def spare_frames(self) -> np.ndarray:
        """The frames of the tables in stock."""
        return self.frame[self.spare & self.has_frame].astype(np.int64)

    def entry_va(self, slot: np.ndarray, entry: np.ndarray, rules: Rules) -> np.ndarray:
        """Address that an entry of a slot stands for."""
        shift = self.level[slot].astype(np.uint64) * np.uint64(9) + np.uint64(3)
        return rules.canonical(self.va[slot] + (entry.astype(np.uint64) << shift))

    def find(self, space: np.ndarray, level: np.ndarray, va: np.ndarray) -> np.ndarray:
        """The live slot of that space and level that covers each address, 0 if there is none."""
        live = np.flatnonzero(self.live)
        keys = self._keys(self.space[live], self.level[live], self.va[live])
        order = np.argsort(keys, kind="stable")
        keys, live = keys[order], live[order]
        cover = (
            np.uint64(1) << (level.astype(np.uint64) * np.uint64(9) + np.uint64(12))
        ) - np.uint64(1)
        wanted = self._keys(space, level, va & ~cover)
        at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        if not len(keys):
            return np.zeros(len(va), np.int64)
        return np.where(keys[at] == wanted, live[at], 0)

    def _keys(self, space: np.ndarray, level: np.ndarray, va: np.ndarray) -> np.ndarray:
        """One sortable value for each (space, level, va)."""
        keys = np.zeros(len(va), np.dtype([("s", "<u4"), ("l", "<u1"), ("v", "<u8")]))
        keys["s"], keys["l"], keys["v"] = space, level, va
        return keys

    def free_list(self, first: int, out: Report) -> np.ndarray:
        """The slots on the list of free ones; linked by frame (next) and parent (the one before)."""
        link = np.where(self.frame == 0, NONE, self.frame.astype(np.int64)).tolist()
        seen, why = chains.follow(link, first if first else NONE, self.count)
        what = "slots: list of free ones"
        if why:
            text = "comes round again" if why == "loop" else f"leaves the {self.count} slots"
            out.add("A3", f"{what}: {text} after {seen[-1] if seen else 'mm.free_slot'}")
        before = 0
        for slot in seen:
            if int(self.parent[slot]) != before:
                text = f"parent (the one before) is {int(self.parent[slot])}, should be {before}"
                out.add("A3", f"{what}: slot {slot}: {text}", va=self.tables.va(slot))
            before = slot
        return np.array(seen, np.int64)

    def stock_list(self, first: int, out: Report) -> np.ndarray:
        """The slots on the list of tables in stock; linked by parent."""
        link = np.where(self.parent == 0, NONE, self.parent.astype(np.int64)).tolist()
        seen, why = chains.follow(link, first if first else NONE, self.count)
        if why:
            text = "comes round again" if why == "loop" else f"leaves the {self.count} slots"
            end = seen[-1] if seen else "mm.stock_slot"
            out.add("A3", f"slots: list of tables in stock: {text} after {end}")
        return np.array(seen, np.int64)


@dataclass(frozen=True)
class SpaceRow:
    """One address space, by its object."""

    index: int
    name: str
    root: int  # slot of the top-level table
    cr3: int
    id: int
    levels: int
    kernel: bool
    tables: int
    va: int  # of the object

    @property
    def mfn(self) -> int:
        """Frame number of its top-level table."""
        return self.cr3 >> 12 & 0xFF_FFFF_FFFF


class Spaces:
    """The address spaces on the list and, should the list be broken, those that it lost."""

    LIMIT = 4096  # walked at most

    def __init__(
        self, pool: Pool, layout: Layout, header: Layout, first: int, live: int, out: Report
    ) -> None:
        self.pool = pool
        self.live_mark = live
        self.objects = Objects(pool, np.flatnonzero(pool.ok), header, out)
        self.raw = layout.records(self.objects.words())
        marks = self.raw["live"]
        if self.objects.broken.any():
            unlisted = marks.reshape(self.objects.used.shape) != live
            self.objects.used &= ~(unlisted & self.objects.broken[:, None])
        self.used = self.objects.used.reshape(-1)
        self.rows: list[SpaceRow] = []
        self.by_index: dict[int, int] = {}
        listed = self._list(first, out)
        lost = np.flatnonzero(self.used & (marks == live))
        for flat in [*listed, *[f for f in lost.tolist() if f not in set(listed)]][: self.LIMIT]:
            row = self._row(flat, first)
            self.by_index[row.index] = len(self.rows)
            self.rows.append(row)
        self._tell_apart()
        if not listed:
            out.add_blind("A3", f"spaces: mm.space_list is {first:#x}, which is no address space")
        if len(listed) + len(lost) > self.LIMIT:
            out.add_blind("A3", f"spaces: more than {self.LIMIT}, the others are not looked at")

    def _tell_apart(self) -> None:
        """Spaces of the same name get their number behind it: "test#3"."""
        count = Counter(row.name for row in self.rows)
        self.rows = [
            replace(row, name=f"{row.name}#{row.id}") if count[row.name] > 1 else row
            for row in self.rows
        ]

    def _list(self, first: int, out: Report) -> list[int]:
        """Follows the list; what is on it must be a used, live object, linked both ways."""
        following, before = self.raw["next"], self.raw["prev"]
        seen: list[int] = []
        index, previous = first, 0
        while index:
            flat = int(self.objects.flat_of(np.array([index]))[0])
            if flat == NONE or not self.used[flat]:
                out.add(
                    "A3", f"spaces: {previous:#x} leads to {index:#x}, which is no object in use"
                )
                break
            if flat in seen or len(seen) >= self.LIMIT:
                out.add(
                    "A3", f"spaces: {previous:#x} leads to {index:#x}, which comes twice: a loop"
                )
                break
            va = self.pool.va(index)
            if int(before[flat]) != previous:
                text = f"prev is {int(before[flat]):#x}, but {previous:#x} leads to it"
                out.add("A3", f"spaces: {index:#x}: {text}", va=va)
            mark = self.raw.value("live", flat)
            if mark != self.live_mark:
                text = f"live is {mark:#x}, should be {self.live_mark:#x}: it is gone"
                out.add("A3", f"spaces: {index:#x}: {text}", va=va)
            wrong = self._judge_words(flat, index == first)
            if wrong:
                out.add("A3", f"spaces: {index:#x}: {wrong}", va=va)
            seen.append(flat)
            index, previous = int(following[flat]), index
        listed = set(seen)
        for flat in np.flatnonzero(self.used).tolist()[: self.LIMIT]:
            if flat not in listed:
                at = int(self.objects.index_of(np.array([flat]))[0])
                out.add(
                    "A3", f"spaces: {at:#x} is in use, but not on the list", va=self.pool.va(at)
                )
        return seen

    def _judge_words(self, flat: int, kernel: bool) -> str:
        """What is wrong with a space's name and spare bytes, "" if nothing is."""
        if self.raw["recent"][flat]["zero"].any():
            return "recent[].zero is not 0"
        name = self.raw["name"][flat].tobytes().ljust(self.raw["name"].dtype.itemsize, b"\0")
        letters, end, rest = name.partition(b"\0")
        if not end:
            return "its name has no end"
        if rest.strip(b"\0") or any(not 32 <= b < 127 for b in letters):
            return "its name holds what is no letter"
        if kernel and letters != b"kernel":
            return f"its name is {letters.decode('ascii')}, should be kernel"
        return ""

    def _row(self, flat: int, first: int) -> SpaceRow:
        raw = self.raw
        index = int(self.objects.index_of(np.array([flat]))[0])
        letters = bytes(raw["name"][flat]).split(b"\0")[0]
        name = "".join(chr(b) if 33 <= b < 127 else "?" for b in letters) or f"space-{index:#x}"
        values = {n: raw.value(n, flat) for n in ("root", "cr3", "id", "levels", "tables")}
        return SpaceRow(index, name, kernel=index == first, va=self.pool.va(index), **values)

    def is_live(self, index: np.ndarray) -> np.ndarray:
        """True for each index of a space that is known here."""
        known = np.array(sorted(self.by_index), np.int64)
        return np.isin(np.asarray(index).astype(np.int64), known)

    def name_of(self, index: int) -> str:
        """Its name, or its index if it is none."""
        at = self.by_index.get(index)
        return f"space-{index:#x}" if at is None else self.rows[at].name
