# SPDX-License-Identifier: BSD-2-Clause
# Frame descriptors as columns: which of them head a block, where, and on what ring they hang.
"""Frames: every descriptor of ARENA_FRAMES by its index, and the heads of blocks sorted by place.

    frames.find(mfns)           index of the head whose block holds each page, 0 for none
    frames.heads, frames.place  index and first mfn of every block, ascending by mfn
    frames.kind[i], .order[i], .refcount[i], ...    columns by index, each decoded when it is first asked for

The place of a block is where the tree leads to it; what its descriptor says is compared with that.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ktf.findings import Report
from ktf.kernel.granules import PER_PAGE, Granules
from ktf.kernel.layout import Layout, Records
from ktf.kernel.pools import Pool
from ktf.kernel.tree import GIB_ORDER, GRANULE_ORDER, Tree


def column(name: str) -> cached_property[np.ndarray]:
    """That member of every descriptor."""
    return cached_property(lambda frames: frames.raw[name])


class Frames(Granules):
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
        super().__init__(pool, layout, header, tree, orders, magics, out)
        self.raw: Records = layout.records(pool.data)
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

    def find(self, mfns: np.ndarray) -> np.ndarray:
        """Index of the head of the block that holds each page; 0 where there is no frame."""
        return self.look_up(self._head_of, np.asarray(mfns)).astype(np.int64)

    @cached_property
    def _head_of(self) -> np.ndarray:
        """The head that each descriptor stands for, its own index if it is one; 0 for none (int32)."""
        head = np.arange(self.count, dtype=np.int32)
        pages = self.granule_page
        head.reshape(-1, PER_PAGE)[pages] -= self.tail.reshape(-1, PER_PAGE)[pages]
        return head * self.is_head[head]

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
