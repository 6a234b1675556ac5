# SPDX-License-Identifier: BSD-2-Clause
# Frame descriptors as columns: which of them head a block, where, and on what ring they hang.
"""Frames: every descriptor of ARENA_FRAMES by its index, and the heads of blocks sorted by place.

    frames.find(mfns)           index of the head whose block holds each page, 0 for none
    frames.heads, frames.place  index and first mfn of every block, ascending by mfn
    frames.kind[i], .order[i], .refcount[i], ...    columns by index

The place of a block is where the tree leads to it; what its descriptor says is compared with that.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .chains import NONE
from .findings import Report, Violation
from .layout import Layout, Records
from .pools import Objects, Pool
from .tree import GIB_ORDER, GRANULE_ORDER, SPAN_ORDER, Tree

PER_PAGE = 1 << GRANULE_ORDER
MANY = 100_000  # look-ups at once, from which on a table of all pages pays
MOST_SPANS = 128  # of the tree, of which such a table is made: 512 KiB each
COLUMNS = ("order", "tail", "mfn", "kind", "level", "zero", "next", "prev")
COUNTS = ("refcount", "mapcount", "maps", "slot")


class Frames:
    """All frame descriptors of a guest."""

    def __init__(
        self,
        pool: Pool,
        layout: Layout,
        header: Layout,
        tree: Tree,
        orders: int,
        magics: tuple[int, int],
        out: Report,
    ) -> None:
        self.pool = pool
        self.tree = tree
        self.orders = orders
        self.out = out
        self.raw: Records = layout.records(pool.data)
        self.count = len(self.raw)
        for name in COLUMNS + COUNTS:
            setattr(self, name, self.raw[name])
        self._split_pages(header, magics)
        self._heads()

    order: np.ndarray
    tail: np.ndarray
    mfn: np.ndarray
    kind: np.ndarray
    level: np.ndarray
    zero: np.ndarray
    next: np.ndarray
    prev: np.ndarray
    refcount: np.ndarray
    mapcount: np.ndarray
    maps: np.ndarray
    slot: np.ndarray

    # --- which page holds what -----------------------------------------------------------------

    def _split_pages(self, header: Layout, magics: tuple[int, int]) -> None:
        """Granule pages are those that the tree leads to; of the others the headers say what they are."""
        pages = self.pool.count
        place, entry = self.tree.granules()
        direct = (entry & np.uint32(self.tree.block)) != 0
        self._granule_pages(place[~direct], entry[~direct].astype(np.int64))
        index = (entry[direct] & ~np.uint32(self.tree.block)).astype(np.int64)
        place = place[direct]
        inside = (index > self.orders) & (index < self.count)
        self._refuse_blocks(place, index, ~inside)
        self.block_place, self.block_index = place[inside], index[inside]
        heads = header.records(np.ascontiguousarray(self.pool.data[:, : header.size]))
        magic = heads["magic"]
        self.magic = magic
        objects = np.zeros(pages, bool)
        objects[:1] = True
        objects[self.block_index // PER_PAGE] = True
        objects |= (magic == magics[0]) & (heads["zero"] == 0)
        objects &= ~self.is_granule
        numbers = np.flatnonzero(objects)
        self.objects = Objects(self.pool, numbers, header, self.out)
        self.objects.judge(magics[0], self.out)
        rest = ~objects & ~self.is_granule & self.pool.ok
        lost = np.flatnonzero(rest & ((magic != magics[1]) | (heads["zero"] != 0)))
        for page in lost[:50].tolist():
            text = f"page {page} holds neither objects nor a granule, but is not marked empty"
            self.out.add("A3", f"frames: {text}", va=self.pool.va_of_page(page))
        self.empty_pages = np.flatnonzero(rest)

    def _granule_pages(self, place: np.ndarray, index: np.ndarray) -> None:
        pages = self.pool.count
        page = index // PER_PAGE
        good = (index % PER_PAGE == 0) & (page > 0) & (page < pages)
        first = np.zeros(len(page), bool)
        first[np.unique(page, return_index=True)[1]] = True
        bad = np.flatnonzero(~(good & first))
        for i in bad[:50].tolist():
            text = f"the tree leads to descriptors {int(index[i]):#x}, no page of the pool or another's"
            self.out.add("A3", text, mfn=int(place[i]))
        self.tree.forget(place[bad])
        keep = good & first
        self.granule_place, self.granule_page = place[keep], page[keep]
        self.is_granule = np.zeros(pages, bool)
        self.is_granule[self.granule_page] = True

    def _refuse_blocks(self, place: np.ndarray, index: np.ndarray, bad: np.ndarray) -> None:
        """Reports entries of the tree that lead to no block, a line for each run of them."""
        at = np.flatnonzero(bad)
        if not len(at):
            return
        runs = np.flatnonzero(np.diff(index[at], prepend=NONE) != 0)
        lengths = np.diff(np.append(runs, len(at)))

        def describe(run: int) -> Violation:
            i = at[runs[run]]
            text = (
                f"the tree leads to descriptor {int(index[i]):#x} "
                f"(for {int(lengths[run])} x 512 KiB), which is no block there"
            )
            return Violation("A2", text, mfn=int(place[i]))

        self.out.each("A2", np.arange(len(runs)), describe)
        self.tree.forget(place[at])

    # --- heads -------------------------------------------------------------------------------------

    def _heads(self) -> None:
        self.is_head = np.zeros(self.count, bool)
        base = self.granule_page * PER_PAGE
        kinds = self.kind.reshape(-1, PER_PAGE)[self.granule_page]
        row, at = np.nonzero(kinds)
        inner_index, inner_place = base[row] + at, self.granule_place[row] + at
        self.is_head[inner_index] = True
        outer_index, outer_place = self._block_heads()
        self.is_head[outer_index] = True
        index = np.concatenate([inner_index, outer_index])
        place = np.concatenate([inner_place, outer_place])
        order = np.argsort(place, kind="stable")
        self.heads, self.place = index[order], place[order]
        self.inner_heads, self.inner_places = inner_index, inner_place
        self.outer_heads, self.outer_places = outer_index, outer_place

    def _block_heads(self) -> tuple[np.ndarray, np.ndarray]:
        """The blocks of order 7 and up: the first 512 KiB that leads to each; others are left out."""
        index, place = self.block_index, self.block_place
        good = self.objects.is_used(index) & (self.kind[index] != 0)
        size = np.int64(1) << np.minimum(self.order[index], GIB_ORDER).astype(np.int64)
        start = self.mfn[index].astype(np.int64)
        good &= (place >= start) & (place < start + size) & (self.order[index] >= GRANULE_ORDER)
        self._refuse_blocks(place, index, ~good)
        heads, first, counts = np.unique(index[good], return_index=True, return_counts=True)
        self.block_granules = counts
        return heads, place[good][first]

    def find(self, mfns: np.ndarray) -> np.ndarray:
        """Index of the head of the block that holds each page; 0 where there is no frame."""
        mfns = np.asarray(mfns).astype(np.int64)
        if len(mfns) > MANY and len(self.tree.spans) <= MOST_SPANS:
            rows = self.tree.rows(mfns).astype(np.int64)
            at = (rows << SPAN_ORDER) + (mfns & (1 << SPAN_ORDER) - 1)
            return self._by_page[at].astype(np.int64)
        return self._find(self.tree.lookup(mfns), mfns)

    @cached_property
    def _by_page(self) -> np.ndarray:
        """What find() says of every page of the spans that have frames (int32), row by row of the tree's table."""
        entry = self.tree.entries.reshape(-1)
        table = np.zeros((len(entry), PER_PAGE), np.int32)
        block = np.uint32(self.tree.block)
        some = np.flatnonzero(entry & block)
        place = self._find(entry[some], np.zeros(len(some), np.int64))
        table[some] = place[:, None]
        tails = self.tail.reshape(-1, PER_PAGE)
        some = np.flatnonzero((entry != 0) & (entry & block == 0))
        for at in np.array_split(some, len(some) // 2048 + 1):
            # The first of a page of descriptors: other entries are not in the table any more.
            first = entry[at].astype(np.int32)
            head = first[:, None] + np.arange(PER_PAGE, dtype=np.int32) - tails[first // PER_PAGE]
            table[at] = head * (self.is_head[head] & (head > 0))
        return table.reshape(-1)

    def _find(self, entry: np.ndarray, mfns: np.ndarray) -> np.ndarray:
        """The same, from the tree's entry for each page."""
        direct = (entry & np.uint32(self.tree.block)) != 0
        index = (entry & ~np.uint32(self.tree.block)).astype(np.int64)
        inner = ~direct & (entry != 0)
        if inner.any():
            at = index + (mfns & (PER_PAGE - 1))
            at = np.where(inner, at, 0)
            at -= self.tail[at]
            index = np.where(inner, at, index)
        index = np.where((index > 0) & (index < self.count), index, 0)
        return np.where(self.is_head[index], index, 0) if self.count else index * 0

    @cached_property
    def is_free(self) -> np.ndarray:
        """For each descriptor: refcount and mapcount are both 0."""
        return (self.refcount | self.mapcount) == 0

    # --- what lies in a stretch of pages -------------------------------------------------------------

    @cached_property
    def sizes(self) -> np.ndarray:
        """Pages of each block of heads."""
        return np.int64(1) << np.minimum(self.order[self.heads], GIB_ORDER).astype(np.int64)

    @cached_property
    def ends(self) -> np.ndarray:
        """The page behind each block of heads."""
        return self.place + self.sizes

    @cached_property
    def pages_before(self) -> np.ndarray:
        """Pages of all blocks of heads before each, and of all of them."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    def pages_in(self, first: np.ndarray, end: np.ndarray) -> np.ndarray:
        """How many of the pages [first, end) belong to some frame."""
        total = self.pages_before

        def below(mfn: np.ndarray) -> np.ndarray:
            if not len(self.place):
                return np.zeros(len(mfn), np.int64)
            at = np.searchsorted(self.place, mfn, side="right")
            last = np.maximum(at - 1, 0)
            beyond = np.clip(self.ends[last] - mfn, 0, self.sizes[last])
            return total[at] - np.where(at > 0, beyond, 0)

        return below(end) - below(first)

    def count_in(self, chosen: np.ndarray, first: np.ndarray, end: np.ndarray) -> np.ndarray:
        """How many blocks of heads[chosen] start within the pages [first, end)."""
        places = self.place[chosen]
        return np.searchsorted(places, end) - np.searchsorted(places, first)
