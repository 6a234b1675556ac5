# SPDX-License-Identifier: BSD-2-Clause
# Everything that can be reached from the roots of all address spaces, held against frames and slots.
"""Reach: the walks of all spaces joined, with the frame and slot of each table and the frame of each leaf.

Rows that do not lead to a page-table frame of the right level are not trusted, nor what hangs below
them: whatever such a page holds was never meant as entries. The rules on leaves look at trusted ones.
"""

from __future__ import annotations

import time
from functools import cached_property

import numpy as np

from ktf.kernel.chains import NONE
from ktf.kernel.descriptors import Frames
from ktf.kernel.slots import Slots, Spaces
from ktf.memory.readers import WORDS, Reader
from ktf.x86.paging import READ, Leaves, Rules, Walk
from ktf.x86.walk import Limits, walk

SECONDS = 4.0  # for all walks together
LEAVES = 1 << 22
ROWS = 65536


class Reach:
    """Rows are table references, of all spaces one after the other; a space's root is its first."""

    def __init__(
        self,
        reader: Reader,
        rules: Rules,
        spaces: Spaces,
        frames: Frames,
        slots: Slots,
        table_kind: int,
    ) -> None:
        self.rules = rules
        self.spaces = spaces
        self.frames = frames
        self.slots = slots
        self.walks = self._walk(reader)
        sizes = [len(w.tables) for w in self.walks]
        self.base = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.space = np.repeat(np.arange(len(sizes)), sizes)
        self.mfn = self._column("mfn").astype(np.int64)
        self.level = self._column("level").astype(np.int64)
        self.index = self._column("index").astype(np.int64)
        self.va = self._column("va").astype(np.uint64)
        self.entry = self._column("entry").astype(np.uint64)
        self.perm = self._column("perm")
        self.state = self._column("state")
        parent = self._column("parent").astype(np.int64)
        self.parent = np.where(parent < 0, NONE, parent + self.base[self.space])
        self.frame = frames.find(self.mfn)
        self._judge_rows(table_kind)
        self.entries = sum(w.entries for w in self.walks)

    def _walk(self, reader: Reader) -> list[Walk]:
        """Every space: the kernel's whole, of the others the lower half."""
        until = time.monotonic() + SECONDS
        walks: list[Walk] = []
        leaves = 0
        top = 1 << self.rules.va_bits
        for row in self.spaces.rows:
            left = max(until - time.monotonic(), 0.05)
            limits = Limits(tables=ROWS, leaves=max(LEAVES - leaves, 1), seconds=left)
            high = top if row.kernel else top // 2
            walks.append(walk(reader, row.mfn, self.rules, 0, high, limits))
            leaves += len(walks[-1].leaves)
        return walks

    def _column(self, name: str) -> np.ndarray:
        parts = [getattr(w.tables, name) for w in self.walks]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _judge_rows(self, table_kind: int) -> None:
        """Which rows lead to a table as it should be, which are to be trusted, and their slots."""
        frames, frame = self.frames, self.frame
        known = frame > 0
        self.is_table = known & (frames.kind[frame] == table_kind) & ~frames.is_free[frame]
        self.is_table &= frames.order[frame] == 0
        self.right_level = frames.level[frame] == self.level
        good = self.is_table & self.right_level & (self.state == READ)
        self.trusted = good.copy()
        for level in range(self.rules.levels - 1, 0, -1):
            at = np.flatnonzero(self.level == level)
            self.trusted[at] &= self.trusted[self.parent[at]]
        slot = np.where(self.is_table, frames.slot[frame], 0).astype(np.int64)
        self.slot = np.zeros(len(slot), np.int64)
        if self.slots.count:
            slot = np.where(slot < self.slots.count, slot, 0)
            agree = self.slots.live[slot] & (self.slots.frame[slot] == frame)
            self.slot = np.where(agree, slot, 0)

    def name(self, row: int) -> str:
        """Name of the space that a row belongs to."""
        return self.spaces.rows[int(self.space[row])].name

    def path(self, row: int) -> str:
        """How a table is reached: "kernel[511][2]" is the one that entry 2 of entry 511's table points to."""
        steps = []
        while self.parent[row] != NONE:
            steps.append(f"[{int(self.index[row])}]")
            row = int(self.parent[row])
        return self.name(row) + "".join(reversed(steps))

    # --- leaves ------------------------------------------------------------------------------------

    @cached_property
    def all_leaves(self) -> Leaves:
        """Every leaf of every space, in trusted tables or not; table is a row of this Reach."""
        if len(self.walks) == 1:
            return self.walks[0].leaves
        parts = [w.leaves for w in self.walks]
        tables = [p.table.astype(np.int64) + self.base[i] for i, p in enumerate(parts)]

        def join(columns: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(columns) if columns else np.zeros(0, np.uint64)

        return Leaves(
            join([p.va for p in parts]),
            join([p.entry for p in parts]),
            join([p.level for p in parts]),
            join(tables).astype(np.int64),
            join([p.perm for p in parts]),
        )

    @cached_property
    def leaves(self) -> Leaves:
        """The leaves in trusted tables."""
        every = self.all_leaves
        good = self.trusted[every.table]
        return every if good.all() else every.take(good)

    @cached_property
    def leaf_mfn(self) -> np.ndarray:
        """First page of each leaf. Reserved bits are left out: they are rule T5's alone."""
        return self.leaves.mfn.astype(np.int64) & ((1 << self.rules.phys_bits - 12) - 1)

    @cached_property
    def leaf_pages(self) -> np.ndarray:
        """Pages of each leaf."""
        return np.int64(1) << (self.leaves.level.astype(np.int64) * 9 - 9)

    @cached_property
    def leaf_frame(self) -> np.ndarray:
        """Descriptor of the frame that holds each leaf's first page, 0 for none."""
        return self.frames.find(self.leaf_mfn)

    @cached_property
    def leaf_at(self) -> np.ndarray:
        """slot * 512 + entry of each leaf; 0 where its table has no slot."""
        slot = self.slot[self.leaves.table]
        return np.where(slot > 0, slot * WORDS + self.leaves.index, 0)

    @cached_property
    def reached(self) -> np.ndarray:
        """Frame numbers of all tables that were met, ascending."""
        return np.unique(self.mfn)
