# SPDX-License-Identifier: BSD-2-Clause
# The rings of the orders: on which ring each block hangs, and whether links go both ways.
"""Rings: mm.order[], with the counts that it should have.

    rings.nodes           descriptors: the heads of the rings, then every block
    rings.after, .before  positions in nodes that next and prev lead to, NONE if to no block
    rings.ring            the order whose ring each node hangs on, NONE if on none
"""

from __future__ import annotations

import numpy as np

from ktf.kernel import chains
from ktf.kernel.chains import NONE
from ktf.kernel.descriptors import Frames
from ktf.kernel.layout import Records


class Rings:
    """All rings, as they are linked."""

    def __init__(self, frames: Frames, orders: Records) -> None:
        self.frames = frames
        self.count = len(orders)
        self.head = orders["head"].astype(np.int64)
        self.free = orders["free"].astype(np.int64)
        self.used = orders["used"].astype(np.int64)
        self.refs = orders["refs"]
        self.last_free = orders["last_free"].astype(np.int64)
        heads = np.arange(1, self.count + 1)
        heads = heads[heads < frames.count]
        self.nodes = np.concatenate([heads, frames.heads])
        self.node_of = np.full(frames.count + 1, NONE, np.int64)
        self.node_of[self.nodes] = np.arange(len(self.nodes))
        self.is_mark = np.arange(len(self.nodes)) < len(heads)
        self.after = self._positions(frames.next)
        self.before = self._positions(frames.prev)
        rows = np.arange(len(self.nodes))
        self.forward_ok = (self.after != NONE) & (self.before[self.after] == rows)
        self.backward_ok = (self.before != NONE) & (self.after[self.before] == rows)
        self.marks = np.flatnonzero(self.is_mark)
        if self.forward_ok.all():
            self.ring = chains.cycles(self.after, self.marks)
        else:
            self.ring = self._search()

    def _positions(self, link: np.ndarray) -> np.ndarray:
        return self.node_of.take(
            link[self.nodes], mode="clip"
        )  # the last one stands for all outside

    def _search(self) -> np.ndarray:
        """With broken links: what sound links connect first, then what broken ones still lead to."""
        ring = [NONE] * len(self.nodes)
        after, before = self.after.tolist(), self.before.tolist()
        sound_after = np.where(self.forward_ok, self.after, NONE).tolist()
        sound_before = np.where(self.backward_ok, self.before, NONE).tolist()
        seeds: list[int] = []
        for mark in self.marks.tolist():
            if ring[mark] == NONE:
                ring[mark] = mark
                seeds += _spread(mark, ring, sound_after, sound_before)
        for seed in seeds:
            for start in (after[seed], before[seed]):
                if start != NONE and ring[start] == NONE:
                    ring[start] = ring[seed]
                    _spread(start, ring, after, before)
        return np.array(ring, np.int64)


def _spread(start: int, ring: list[int], after: list[int], before: list[int]) -> list[int]:
    """Gives the nodes that links lead to from start its ring; returns where it ended, start included."""
    ends = [start]
    for link in (after, before):
        at = start
        while link[at] != NONE and ring[link[at]] == NONE:
            ring[link[at]] = ring[start]
            at = link[at]
        ends.append(at)
    return ends
