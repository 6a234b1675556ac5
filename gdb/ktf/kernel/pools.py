# SPDX-License-Identifier: BSD-2-Clause
# The memory manager's own memory: the pages of its arenas, and the objects that stand in them.
"""Pool: an arena's bytes. Objects: which of the small objects in them are in use.

mm/arena.h has the invariants; what breaks them goes into the report as A3, and the rest is still decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ktf.findings import Report
from ktf.kernel import chains
from ktf.kernel.kernel import Kernel
from ktf.kernel.layout import Layout, Records
from ktf.memory.readers import PAGE
from ktf.x86.trace import translate

HEADER = 32  # bytes of struct arena_page


@dataclass(frozen=True)
class PoolForm:
    """What an arena's numbers must be: bytes per index step, bytes per object."""

    name: str
    label: str
    unit: int
    size: int


class Pool:
    """One arena: its row in mm, and the pages that it says are mapped.

    data[page] are bytes, zero where ok[page] is False; mfn[page] is the frame number, NONE if unmapped.
    whole: all of it is read at once. Else there is no data, rows() reads, and ok says of what was not read that it is
    mapped.
    """

    def __init__(
        self,
        kernel: Kernel,
        form: PoolForm,
        row: Records,
        room: int,
        out: Report,
        whole: bool = True,
    ) -> None:
        self.form = form
        self.whole = whole
        self.reader = kernel.memory.reader
        self.label = form.label
        self.base = row.value("base")
        self.limit = row.value("limit")
        self.pages = row.value("pages")
        self.boot = row.value("boot")
        self.free = row.value("free")
        self.low = row.value("low")
        self.partial = row.value("partial")
        self.empty = row.value("empty")
        self.unit, self.size = form.unit, form.size
        good = self.base % PAGE == 0 and self.base >> 63 == 1
        good = good and kernel.memory.rules.is_canonical(self.base)
        if not good:
            out.add_blind(
                "A3", f"{self.label}: base {self.base:#x} is no page of the kernel's half"
            )
        self._judge(row, out)
        count = self.pages if good and self.base + self.pages * PAGE <= 1 << 64 else 0
        if count > room:
            out.add_blind(
                "A3", f"{self.label}: {count} pages, more than the guest could have ({room})"
            )
            count = room
        self._read(kernel, count, out)

    def _judge(self, row: Records, out: Report) -> None:
        """The arena's own numbers."""
        for name, want in (("unit", self.unit), ("size", self.size)):
            if row.value(name) != want:
                out.add("A3", f"{self.label}: {name} is {row.value(name)}, should be {want}")
        if self.limit & (self.limit - 1) or not PAGE <= self.limit <= 1 << 40:
            out.add(
                "A3", f"{self.label}: limit {self.limit:#x} is no power of two from a page to 1 TiB"
            )
        elif self.pages * PAGE > self.limit:
            out.add(
                "A3",
                f"{self.label}: {self.pages} pages, but the window ends at {self.limit:#x} bytes",
            )
        if self.boot > self.pages:
            out.add(
                "A3", f"{self.label}: {self.boot} pages from the boot, but only {self.pages} in all"
            )

    def _read(self, kernel: Kernel, count: int, out: Report) -> None:
        memory = kernel.memory
        if not count:
            # One page that can't be read, so that nothing below has to do with empty arrays.
            self.mfn, self.ok = np.array([chains.NONE]), np.zeros(1, bool)
            self.count, self.data = 1, np.zeros((1, PAGE), np.uint8)
            self.whole = True
            out.add_blind("A3", f"{self.label}: none of its {self.pages} pages can be read")
            return
        vas = np.uint64(self.base) + np.arange(count, dtype=np.uint64) * np.uint64(PAGE)
        pas, self.ok = translate(memory.reader, memory.root, memory.rules, vas)
        self.mfn = np.where(self.ok, (pas >> np.uint64(12)).astype(np.int64), chains.NONE)
        self.count = count
        if not self.whole:
            return
        self.data = self._fetch(np.arange(count))
        if not self.ok.all():
            bad = np.flatnonzero(~self.ok)
            out.add_blind(
                "A3",
                f"{self.label}: {len(bad)} of {count} pages can't be read, the first is page {bad[0]} "
                f"({'unmapped' if self.mfn[bad[0]] < 0 else 'not in the guest RAM'})",
                va=self.va_of_page(int(bad[0])),
            )

    def rows(self, pages: np.ndarray) -> np.ndarray:
        """The bytes of these pages, zero where they can't be read."""
        if not self.whole:
            return self._fetch(pages)
        return self.data if len(pages) == self.count else self.data[pages]

    def _fetch(self, pages: np.ndarray) -> np.ndarray:
        """The same from the guest; ok tells which could be read."""
        words, ok = self.reader.read_pages(np.maximum(self.mfn[pages], 0))
        ok &= self.ok[pages]
        self.ok[pages] = ok
        if not ok.all():
            words[~ok] = 0
        return words.view(np.uint8)

    def expect(self, pages: np.ndarray) -> None:
        """These will be read, a few at a time."""
        self.reader.expect(self.mfn[pages[self.ok[pages]]])

    def va_of_page(self, page: int) -> int:
        """Address of a page."""
        return self.base + page * PAGE

    def va(self, index: int) -> int:
        """Address of the object with that index."""
        return self.base + index * self.unit

    def records(self, layout: Layout) -> Records:
        """The whole pool as an array of one struct; only for arenas without page headers."""
        return layout.records(self.data)


class Objects:
    """The objects in some pages of a pool, used and free.

    used[row, place] for the pages numbered pages[row]; a page's free ones are those on its list.
    """

    def __init__(self, pool: Pool, pages: np.ndarray, header: Layout, out: Report) -> None:
        self.pool = pool
        self.pages = pages.astype(np.int64)
        self.step = max(pool.size // pool.unit, 1)
        self.first_byte = max(pool.size, HEADER)
        self.per_page = (PAGE - self.first_byte) // pool.size
        self.row_of_page = np.full(pool.count + 1, chains.NONE, np.int64)
        self.row_of_page[self.pages] = np.arange(len(pages))
        self.data = pool.rows(self.pages)
        self.header = header.records(self.data[:, :HEADER])
        self.body = self.data[:, self.first_byte : self.first_byte + self.per_page * pool.size]
        # Pages whose list of free objects can't be followed.
        self.broken = np.zeros(len(pages), bool)
        self.used = ~self._free_objects(out)
        self.used[~pool.ok[self.pages]] = False

    @cached_property
    def indexes(self) -> np.ndarray:
        """Index of every object, by its number row * per_page + place."""
        unit = self.pool.unit
        starts = self.pages * (PAGE // unit) + self.first_byte // unit
        places = np.arange(self.per_page) * self.step
        return (starts[:, None] + places).astype(np.uint32).reshape(-1)

    def index_of(self, flat: np.ndarray) -> np.ndarray:
        """Index of objects by their number."""
        return self.indexes[flat].astype(np.int64)

    def flat_of(self, index: np.ndarray) -> np.ndarray:
        """The number row * per_page + place of indexes, NONE where no object can be."""
        index = np.asarray(index).astype(np.int64)
        per = PAGE // self.pool.unit
        page = np.minimum(index // per, self.pool.count)
        row = self.row_of_page[page]
        at = index % per - self.first_byte // self.pool.unit
        place = at // self.step
        good = (row >= 0) & (at >= 0) & (at % self.step == 0) & (place < self.per_page)
        return np.where(good, row * self.per_page + place, chains.NONE)

    def flat_of_one(self, index: int) -> int:
        """The same for one index."""
        page, at = divmod(index, PAGE // self.pool.unit)
        row = int(self.row_of_page[min(page, self.pool.count)])
        place, rest = divmod(at - self.first_byte // self.pool.unit, self.step)
        good = row >= 0 and 0 <= place < self.per_page and not rest
        return row * self.per_page + place if good else chains.NONE

    def is_used(self, index: np.ndarray) -> np.ndarray:
        """True for each index of an object in use."""
        flat = self.flat_of(index)
        if not self.used.size:
            return np.zeros(len(flat), bool)
        return (flat >= 0) & self.used.reshape(-1)[np.maximum(flat, 0)]

    def words(self) -> np.ndarray:
        """All objects as a (number, bytes) array; object number row * per_page + place."""
        return np.ascontiguousarray(self.body).reshape(-1, self.pool.size)

    def _free_objects(self, out: Report) -> np.ndarray:
        """Follows the lists of free objects of all pages side by side."""
        free = np.zeros((len(self.pages), self.per_page), bool)
        flat_free = free.reshape(-1)
        links = np.ascontiguousarray(self.data).view(np.uint32) if len(self.pages) else None
        rows = np.arange(len(self.pages))
        index = self.header["free"].astype(np.int64)
        for _ in range(self.per_page + 1):
            rows, index = rows[index != 0], index[index != 0]
            if not len(rows) or links is None:
                return free
            flat = self.flat_of(index)
            good = (flat >= 0) & (flat // self.per_page == rows)
            good &= ~flat_free[np.maximum(flat, 0)]
            for i in np.flatnonzero(~good).tolist():
                self._broken_list(int(rows[i]), int(index[i]), out)
            rows, index, flat = rows[good], index[good], flat[good]
            flat_free[flat] = True
            byte = index * self.pool.unit % PAGE
            index = links[rows, byte // 4 + 2].astype(np.int64)
        return free

    def _broken_list(self, row: int, index: int, out: Report) -> None:
        self.broken[row] = True
        page = int(self.pages[row])
        out.add(
            "A3",
            f"{self.pool.label}: page {page}'s list of free objects leads to {index:#x}, "
            "which is no free object of that page, or there already",
            va=self.pool.va_of_page(page),
        )

    def judge(self, magic: int, out: Report) -> None:
        """The page headers: magic number, counts, zero fields."""
        free = (~self.used).sum(axis=1) if len(self.pages) else np.zeros(0, np.int64)
        used = self.per_page - free
        head = self.header
        readable = self.pool.ok[self.pages]
        for name, want in (("magic", magic), ("zero", 0), ("zero2", 0)):
            for row in np.flatnonzero((head[name] != want) & readable)[:50].tolist():
                value = head.value(name, row)
                self._say(out, "A3", row, f"{name} is {value:#x}, should be {want:#x}")
        for row in np.flatnonzero((head["used"] != used) & readable & ~self.broken)[:50].tolist():
            value = head.value("used", row)
            text = f"used is {value}, but {int(used[row])} of {self.per_page} objects are not free"
            self._say(out, "A4", row, text)

        self.judge_blank(np.flatnonzero(~self.used.reshape(-1)), "free", out)
        end = self.first_byte + self.per_page * self.pool.size
        for first, last in ((HEADER, self.first_byte), (end, PAGE)):
            dirty = self.data[:, first:last].any(axis=1) & readable
            for row in np.flatnonzero(dirty)[:50].tolist():
                self._say(out, "A3", row, "is not blank around its objects")

    def judge_blank(self, flat: np.ndarray, what: str, out: Report) -> None:
        """Objects that hold nothing are zero but for their link: who takes one counts on it."""
        if not len(flat):
            return
        words = self.words()[flat].view(np.uint32)
        words[:, 2] = 0
        dirty = words.any(axis=1) & self.pool.ok[self.pages[flat // self.per_page]]
        for i in np.flatnonzero(dirty & ~self.broken[flat // self.per_page])[:50].tolist():
            index = int(self.index_of(flat[i : i + 1])[0])
            text = f"{self.pool.label}: {what} object {index:#x} is not blank"
            out.add("A3", text, va=self.pool.va(index))

    def _say(self, out: Report, rule: str, row: int, text: str) -> None:
        page = int(self.pages[row])
        out.add(rule, f"{self.pool.label}: page {page}: {text}", va=self.pool.va_of_page(page))


def page_list(
    pool: Pool, first: int, members: np.ndarray, header: Layout, name: str, out: Report
) -> None:
    """The list of pages that starts at number `first` (counted from 1): linked both ways, exactly `members`."""
    heads = header.records(np.ascontiguousarray(pool.data[:, :HEADER]))
    following, before = heads["next"].tolist(), heads["prev"].tolist()
    what = f"{pool.label}: list of {name} pages"
    link = [n - 1 for n in following]
    seen, why = chains.follow(link, first - 1, pool.count)
    if why:
        last = seen[-1] + 1 if seen else 0
        leads = following[seen[-1]] if seen else first
        text = "comes round again" if why == "loop" else f"leaves the {pool.count} pages"
        out.add("A3", f"{what}: {text} at {leads} (after {last})")
    previous = 0
    for page in seen:
        if before[page] != previous:
            text = f"page {page}: prev is {before[page]}, but {previous} leads to it"
            out.add("A3", f"{what}: {text}", va=pool.va_of_page(page))
        previous = page + 1
    wanted = set(members.tolist())
    if why:
        return
    for page in sorted(set(seen) - wanted)[:50]:
        out.add("A3", f"{what}: page {page} does not belong there", va=pool.va_of_page(page))
    for page in sorted(wanted - set(seen))[:50]:
        out.add("A3", f"{what}: page {page} is missing", va=pool.va_of_page(page))


def off_list(pool: Pool, pages: np.ndarray, header: Layout, out: Report) -> None:
    """Pages without free objects are on no list: their links are 0."""
    heads = header.records(np.ascontiguousarray(pool.data[pages, :HEADER]))
    bad = ((heads["next"] != 0) | (heads["prev"] != 0)) & pool.ok[pages]
    for page in pages[bad][:50].tolist():
        text = f"{pool.label}: page {page} is on no list, but has links"
        out.add("A3", text, va=pool.va_of_page(page))
