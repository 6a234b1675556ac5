# SPDX-License-Identifier: BSD-2-Clause
# Mapping records as columns: which are in use, whose list each is on, and which entries it stands for.
"""Mappings: the records in use, one row each.

    maps.index[row]      index in ARENA_MAPPINGS       maps.row_of(indexes)   row, NONE if not in use
    maps.owner[row]      descriptor of the frame on whose list it is, 0 for none
    maps.at, .refs, .attr, .level, .offset, .order, .home, .home_level,
    .home_odd, .home_1g        its fields

How the lists are linked is judged while they are decoded: A3 for links, P6 for records on two lists or none.
"""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Violation
from ktf.kernel import chains
from ktf.kernel.chains import NONE
from ktf.kernel.descriptors import Frames
from ktf.kernel.layout import Layout, Records
from ktf.kernel.pools import Objects, Pool
from ktf.memory.readers import PAGE

COLUMNS = (
    "at",
    "refs",
    "attr",
    "level",
    "offset",
    "order",
    "home",
    "home_level",
    "home_odd",
    "home_1g",
)


class Mappings:
    """All mapping records of a guest."""

    def __init__(
        self,
        pool: Pool,
        layout: Layout,
        header: Layout,
        frames: Frames,
        magic: int,
        cache: tuple[int, int],
        out: Report,
    ) -> None:
        self.pool = pool
        self.frames = frames
        self.out = out
        self.objects = Objects(pool, np.flatnonzero(pool.ok), header, out)
        words = self.objects.words()
        everything = layout.records(words)
        self._forgive(everything)
        self.objects.judge(magic, out)
        self.cached = self._cached(everything, *cache)
        used = self.objects.used.reshape(-1) & ~self.cached
        flat = np.flatnonzero(used)
        rows = everything
        if len(flat) < len(used):
            rows = layout.records(words.view(np.uint32)[flat])  # faster than everything[flat]
        self.index = self.objects.indexes[flat]
        # By index without its low bits, as many as records are apart: no two have the same rest.
        self._low = np.uint32(self.objects.step.bit_length() - 1)
        self._row = np.full(pool.count * PAGE // pool.unit >> int(self._low), NONE, np.int32)
        self._row[self.index >> self._low] = np.arange(len(flat), dtype=np.int32)
        for name in COLUMNS:
            setattr(self, name, rows[name])
        self._next_index, self._prev_index = rows["next"], rows["prev"]
        self._lists()

    at: np.ndarray
    refs: np.ndarray
    attr: np.ndarray
    level: np.ndarray
    offset: np.ndarray
    order: np.ndarray
    home: np.ndarray
    home_level: np.ndarray
    home_odd: np.ndarray
    home_1g: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def _forgive(self, everything: Records) -> None:
        """Where a page's list of free records is broken, those without refs count as free."""
        if self.objects.broken.any() and self.objects.used.size:
            blank = everything["refs"].reshape(self.objects.used.shape) == 0
            self.objects.used &= ~(blank & self.objects.broken[:, None])

    def _cached(self, everything: Records, head: int, count: int) -> np.ndarray:
        """The records in the cache, by number: in use for their pages, but blank, and on no frame's list."""
        link = everything["at"]
        used = self.objects.used.reshape(-1)
        cached = np.zeros(len(used), bool)
        index, found = head, 0
        while index:
            flat = self.objects.flat_of_one(index)
            if flat == NONE or not used[flat] or cached[flat]:
                why = "which is no record that its page gave out, or there already"
                self.out.add("A3", f"mappings: the cache of records leads to {index:#x}, {why}")
                break
            cached[flat] = True
            found += 1
            index = int(link[flat])
        if found != count:
            text = f"mm.records.count is {count}, but {found} are in the cache"
            self.out.add("A4", f"mappings: {text}")
        listed = np.flatnonzero(cached)
        self.objects.judge_blank(listed, "cached", self.out)
        # With references one counts as in use, whatever the cache says.
        cached[listed[everything[listed]["refs"] != 0]] = False
        return cached

    def row_of(self, index: np.ndarray) -> np.ndarray:
        """Rows of records by their index; NONE where no record is in use."""
        if not len(self):
            return np.full(len(index), NONE, np.int64)
        row = self._row.take(index >> self._low, mode="clip")
        return np.where(self.index[row] == index, row, NONE).astype(np.int64)

    def va(self, row: int) -> int:
        """Where the record itself lies."""
        return self.pool.va(int(self.index[row]))

    # --- lists -------------------------------------------------------------------------------------

    def _lists(self) -> None:
        frames = self.frames
        heads = frames.heads
        first = frames.maps[heads]
        with_list = np.flatnonzero(first)
        owners, first_row = heads[with_list], self.row_of(first[with_list])
        self._bad_first(owners[first_row == NONE])
        owners, first_row = owners[first_row != NONE], first_row[first_row != NONE]
        after, linked = self._targets(self._next_index, "next")
        before, back = self._targets(self._prev_index, "prev")
        self._links(after, before, linked, back, owners, first_row)
        arrivals = np.bincount(after[linked], minlength=len(self))
        arrivals += np.bincount(first_row, minlength=len(self))
        self.arrivals = arrivals
        # Who comes before: as the forward links say; where none does, as the record itself says.
        came = np.full(len(self), NONE, np.int32)
        came[after[linked]] = linked
        came[first_row] = NONE
        lost = back[arrivals[back] == 0]
        came[lost] = before[lost]
        starts = np.zeros(len(self), np.int64)
        starts[first_row] = owners
        self.owner = starts
        behind = np.flatnonzero(came != NONE)
        if len(behind):
            head = chains.heads_of(came)[behind]
            self.owner = starts.copy()
            self.owner[behind] = np.where(head == NONE, 0, starts[head])
        self._twice(np.flatnonzero(arrivals > 1))
        self._none(np.flatnonzero(self.owner == 0))

    def _targets(self, link: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows that links lead to, NONE for none, and which rows have one; A3 where it is no record in use."""
        target = np.full(len(self), NONE, np.int32)
        some = np.flatnonzero(link)
        target[some] = self.row_of(link[some])
        sound = target[some] != NONE
        self.out.each(
            "A3", some[~sound], lambda r: self._link_text(r, name, link, "is no record in use")
        )
        return target, some[sound]

    def _bad_first(self, owners: np.ndarray) -> None:
        frames = self.frames

        def describe(frame: int) -> Violation:
            text = f"maps leads to {int(frames.maps[frame]):#x}, which is no record in use"
            return Violation("A3", f"list of mappings: {text}", mfn=int(frames.mfn[frame]))

        self.out.each("A3", owners, describe)

    def _links(
        self,
        after: np.ndarray,
        before: np.ndarray,
        linked: np.ndarray,
        back: np.ndarray,
        owners: np.ndarray,
        first_row: np.ndarray,
    ) -> None:
        """Both ways; the first one's prev is 0."""
        out = self.out
        bad = linked[before[after[linked]] != linked]

        def forward(row: int) -> Violation:
            target = int(after[row])
            text = f"whose prev is {int(self._prev_index[target]):#x}, not this one"
            return self._link_text(row, "next", self._next_index, text)

        out.each("A3", bad, forward)
        bad = back[after[before[back]] != back]

        def backward(row: int) -> Violation:
            source = int(before[row])
            text = f"whose next is {int(self._next_index[source]):#x}, not this one"
            return self._link_text(row, "prev", self._prev_index, text)

        out.each("A3", bad, backward)
        bad = np.flatnonzero(before[first_row] != NONE) if len(back) else back

        def not_first(i: int) -> Violation:
            row, frame = int(first_row[i]), int(owners[i])
            text = f"prev is {int(self._prev_index[row]):#x}, but it is the first of its frame"
            return Violation("A3", f"{self.name(row)}: {text}", mfn=int(self.frames.mfn[frame]))

        out.each("A3", bad, not_first)

    def name(self, row: int) -> str:
        """How messages call a record."""
        return f"mapping {int(self.index[row]):#x}"

    def _link_text(self, row: int, link: str, values: np.ndarray, text: str) -> Violation:
        return Violation(
            "A3", f"{self.name(row)}: {link} is {int(values[row]):#x}, {text}", va=self.va(row)
        )

    def _twice(self, bad: np.ndarray) -> None:
        def describe(row: int) -> Violation:
            text = f"{int(self.arrivals[row])} lists or records lead to it, should be 1"
            return Violation("P6", f"{self.name(row)}: {text}", va=self.va(row))

        self.out.each("P6", bad, describe)

    def _none(self, bad: np.ndarray) -> None:
        def describe(row: int) -> Violation:
            text = "in use, but on no frame's list"
            return Violation("P6", f"{self.name(row)}: {text}", va=self.va(row))

        self.out.each("P6", bad, describe)

    # --- of one frame ------------------------------------------------------------------------------

    def of_frame(self, frame: int) -> np.ndarray:
        """Rows of the records on one frame's list, as they were decoded (not in the order of the list)."""
        return np.flatnonzero(self.owner == frame)
