# SPDX-License-Identifier: BSD-2-Clause
# The pages of the descriptors' arena: which of them hold what, and which descriptor the tree leads to from a page.
"""Granules: the tree and ARENA_FRAMES held against each other, page by page; Frames and Kinds are made of it.

A page of the arena holds the descriptors of the 128 pages of one granule (512 KiB), where the tree leads to it, or objects:
descriptors of larger blocks and the heads of the rings, or nothing. What is out of place is reported, and the tree
does not lead there any more.
"""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Violation
from ktf.kernel.chains import NONE
from ktf.kernel.layout import Layout
from ktf.kernel.pools import Objects, Pool
from ktf.kernel.tree import GIB_ORDER, GRANULE_ORDER, Tree
from ktf.memory.readers import PAGE

PER_PAGE = 1 << GRANULE_ORDER
STEP = 1 << 15  # pages looked up at once: what is made of them stays in the processor's cache


class Granules:
    """What the tree leads to. count: descriptors that there is room for."""

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
        self.layout = layout
        self.tree = tree
        self.orders = orders
        self.out = out
        self.count = pool.count * PAGE // layout.size
        self._split_pages(header, magics)
        self._blocks()

    # --- which page holds what -----------------------------------------------------------------

    def _split_pages(self, header: Layout, magics: tuple[int, int]) -> None:
        """Granule pages are those that the tree leads to; of the others the headers say what they are."""
        place, entry = self.tree.granules()
        direct = (entry & np.uint32(self.tree.block)) != 0
        self._granule_pages(place[~direct], entry[~direct].astype(np.int64))
        index = (entry[direct] & ~np.uint32(self.tree.block)).astype(np.int64)
        place = place[direct]
        inside = (index > self.orders) & (index < self.count)
        self._refuse_blocks(place, index, ~inside)
        self.block_place, self.block_index = place[inside], index[inside]
        others = np.flatnonzero(~self.is_granule)
        heads = header.records(self.pool.rows(others)[:, : header.size])
        marked = (heads["magic"] == magics[0]) & (heads["zero"] == 0)
        objects = marked | (others == 0) | np.isin(others, self.block_index // PER_PAGE)
        self.objects = Objects(self.pool, others[objects], header, self.out)
        self.objects.judge(magics[0], self.out)
        rest = ~objects & self.pool.ok[others]
        other = (heads["magic"] != magics[1]) | (heads["used"] != 0)
        lost = others[rest & (other | (heads["zero"] != 0) | (heads["zero2"] != 0))]
        for page in lost[:50].tolist():
            text = f"page {page} holds neither objects nor a granule, but is not marked empty"
            self.out.add("A3", f"frames: {text}", va=self.pool.va_of_page(page))
        self.empty_pages = others[rest]

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

    # --- blocks that have a descriptor of their own --------------------------------------------------

    def _blocks(self) -> None:
        """The blocks of order 7 and up: the first 512 KiB that leads to each; others are left out."""
        index, place = self.block_index, self.block_place
        flat = self.objects.flat_of(index)
        rows = self.layout.records(self.objects.words())[np.maximum(flat, 0)]
        order, start = rows["order"], rows["mfn"].astype(np.int64)
        size = np.int64(1) << np.minimum(order, GIB_ORDER).astype(np.int64)
        good = self.objects.is_used(index) & (rows["kind"] != 0)
        good &= (place >= start) & (place < start + size) & (order >= GRANULE_ORDER)
        self._refuse_blocks(place, index, ~good)
        heads, first, counts = np.unique(index[good], return_index=True, return_counts=True)
        self.block_granules = counts
        self.outer_heads, self.outer_places = heads, place[good][first]
        self.outer_kinds = rows["kind"][good][first]

    # --- from a page to its descriptor ---------------------------------------------------------------

    def _index(self, mfns: np.ndarray) -> np.ndarray:
        """The descriptor that the tree leads to from each page, 0 for none. mfns: int64."""
        entry = self.tree.lookup(mfns)
        block = np.uint32(self.tree.block)
        inner = (entry != 0) & ((entry & block) == 0)
        return (entry & ~block).astype(np.int64) + (mfns & (PER_PAGE - 1)) * inner

    def look_up(self, by_index: np.ndarray, mfns: np.ndarray) -> np.ndarray:
        """What by_index, which has 0 at 0, has for the descriptor that the tree leads to from each page."""
        found = np.empty(len(mfns), by_index.dtype)
        for start in range(0, len(mfns), STEP):
            mfn = np.asarray(mfns[start : start + STEP]).astype(np.int64)
            found[start : start + STEP] = by_index[self._index(mfn)]
        return found


class Kinds(Granules):
    """The kind of every frame, without the rest of the descriptors, which are read once and not kept."""

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
        super().__init__(pool, layout, header, tree, orders, magics, out)
        kind = np.zeros((pool.count, PER_PAGE), np.uint8)
        tail = np.zeros((pool.count, PER_PAGE), np.uint8)
        pages = self.granule_page
        pool.expect(pages)
        for some in np.array_split(pages, len(pages) * PER_PAGE // STEP + 1):
            rows = layout.records(pool.rows(some))
            kind[some] = rows["kind"].reshape(-1, PER_PAGE)
            tail[some] = rows["tail"].reshape(-1, PER_PAGE)
        self._kind = kind.reshape(-1)
        self._kind[self.outer_heads] = self.outer_kinds
        at = np.flatnonzero(tail)
        self._kind[at] = self._kind[at - tail.reshape(-1)[at]]

    def of(self, mfns: np.ndarray) -> np.ndarray:
        """Kind of the frame that holds each page, 0 for none (uint8)."""
        return self.look_up(self._kind, mfns)
