# SPDX-License-Identifier: BSD-2-Clause
# Frame descriptors as columns: which of them head a block, where, and on what ring they hang.
"""Frames: every descriptor of ARENA_FRAMES by its index, and the heads of blocks sorted by place.

    frames.find(mfns)           index of the head whose block holds each page, 0 for none
    frames.heads, frames.place  index and first mfn of every block, ascending by mfn
    frames.kind[i], .order[i], .refcount[i], ...    columns by index, each decoded when it is first asked for
    frames.kind_of(mfns)        kind of the block that holds each page, 0 for none

The place of a block is where the tree leads to it; what its descriptor says is compared with that.
"""

from __future__ import annotations

from collections.abc import Iterator
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
STEP = 1 << 15  # pages looked up at once: what is made of them stays in the processor's cache


def column(name: str) -> cached_property[np.ndarray]:
    """That member of every descriptor."""
    return cached_property(lambda frames: frames.raw[name])


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
        self._split_pages(header, magics)
        self.outer_heads, self.outer_places = self._block_heads()
        self.is_head = np.zeros(self.count, bool)
        self.is_head[self.outer_heads] = True
        kinds = self.kind.reshape(-1, PER_PAGE)
        self.is_head.reshape(-1, PER_PAGE)[self.granule_page] = kinds[self.granule_page] != 0

    order = column("order")
    tail = column("tail")
    mfn = column("mfn")
    kind = column("kind")
    level = column("level")
    zero = column("zero")
    next = column("next")
    prev = column("prev")
    refcount = column("refcount")
    mapcount = column("mapcount")
    maps = column("maps")
    slot = column("slot")

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

    @cached_property
    def _inner(self) -> tuple[np.ndarray, np.ndarray]:
        at = np.flatnonzero(self.is_head.reshape(-1, PER_PAGE)[self.granule_page])
        row, at = at >> GRANULE_ORDER, at & (PER_PAGE - 1)
        return (self.granule_page * PER_PAGE)[row] + at, self.granule_place[row] + at

    @property
    def inner_heads(self) -> np.ndarray:
        """Index of every head in a page of one descriptor per page, ascending by place."""
        return self._inner[0]

    @cached_property
    def _by_place(self) -> tuple[np.ndarray, np.ndarray]:
        """Index and place of all heads: the few that have descriptors of their own between the others."""
        index, place = self._inner
        order = np.argsort(self.outer_places, kind="stable")
        at = np.searchsorted(place, self.outer_places[order], side="right")
        return (
            np.insert(index, at, self.outer_heads[order]),
            np.insert(place, at, self.outer_places[order]),
        )

    @property
    def heads(self) -> np.ndarray:
        """Index of every block's head, ascending by place."""
        return self._by_place[0]

    @property
    def place(self) -> np.ndarray:
        """Where the tree leads to each of them: the first mfn of each block."""
        return self._by_place[1]

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
        if self._pays(mfns):
            return self._look_up(self._by_page, mfns).astype(np.int64)
        return self._find(self.tree.lookup(mfns), mfns)

    def kind_of(self, mfns: np.ndarray) -> np.ndarray:
        """Kind of the block that holds each page; 0 where there is no frame (uint8)."""
        if self._pays(mfns):
            return self._look_up(self._kind_by_page, mfns)
        frame = self.find(mfns)
        return np.where(frame > 0, self.kind[frame], np.uint8(0))

    def _pays(self, mfns: np.ndarray) -> bool:
        """Whether so many look-ups are worth a table of all pages."""
        return len(mfns) > MANY and len(self.tree.spans) <= MOST_SPANS

    def _look_up(self, table: np.ndarray, mfns: np.ndarray) -> np.ndarray:
        """What such a table, with a row for each of the tree's, has for each page."""
        found = np.empty(len(mfns), table.dtype)
        for start in range(0, len(mfns), STEP):
            mfn = mfns[start : start + STEP].astype(np.int64)
            row = self.tree.rows(mfn).astype(np.int64)
            found[start : start + STEP] = table[(row << SPAN_ORDER) + (mfn & (1 << SPAN_ORDER) - 1)]
        return found

    @cached_property
    def _by_page(self) -> np.ndarray:
        """What find() says of every page of the spans that have frames (int32), row by row of the tree's table."""
        table = np.zeros((self.tree.entries.size, PER_PAGE), np.int32)
        for at, head in self._granules():
            table[at] = head
        return table.reshape(-1)

    @cached_property
    def _kind_by_page(self) -> np.ndarray:
        """What kind_of() says of them (uint8)."""
        table = np.zeros((self.tree.entries.size, PER_PAGE), np.uint8)
        kind = self.kind.copy()
        kind[0] = 0  # no frame
        for at, head in self._granules():
            table[at] = kind[head]
        return table.reshape(-1)

    def _granules(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers of entries of the tree's table, and the heads that find() finds for the 128 pages of each, or one for all."""
        entry = self.tree.entries.reshape(-1)
        block = np.uint32(self.tree.block)
        some = np.flatnonzero(entry & block)
        yield some, self._find(entry[some], np.zeros(len(some), np.int64))[:, None]
        tails = self.tail.reshape(-1, PER_PAGE)
        some = np.flatnonzero((entry != 0) & (entry & block == 0))
        for at in np.array_split(some, len(some) * PER_PAGE // STEP + 1):
            # The first of a page of descriptors: other entries are not in the table any more.
            first = entry[at].astype(np.int32)
            head = first[:, None] + np.arange(PER_PAGE, dtype=np.int32) - tails[first // PER_PAGE]
            yield at, head * (self.is_head[head] & (head > 0))

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
