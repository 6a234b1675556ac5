# SPDX-License-Identifier: BSD-2-Clause
# The boot map as the kernel keeps it.
"""Regions: mm.region[] in pages, and which of them holds a page."""

from __future__ import annotations

import numpy as np

from ktf.kernel.chains import NONE
from ktf.kernel.database import Database
from ktf.memory.readers import PAGE


class Regions:
    """mm.region[] in pages, without those that make no sense."""

    def __init__(self, db: Database) -> None:
        raw = db.regions
        start, end = raw["start"], raw["end"]
        self.bad = (start >= end) | ((start | end) % np.uint64(PAGE) != 0)
        self.bad |= (end > np.uint64(1 << 52)) | (raw["zero"] != 0)
        self.start = start.astype(np.int64) // PAGE
        self.end = end.astype(np.int64) // PAGE
        self.kind = raw["kind"]
        good = np.flatnonzero(~self.bad)
        order = good[np.argsort(self.start[good], kind="stable")]
        self.first, self.last, self.kinds = self.start[order], self.end[order], self.kind[order]
        self.number = order

    def of_sorted(self, mfn: np.ndarray) -> np.ndarray:
        """The same as of(), for many pages in ascending order."""
        ends = np.append(np.searchsorted(mfn, self.first), len(mfn))
        at = np.full(len(mfn), NONE, np.int16)
        for i, last in enumerate(np.searchsorted(mfn, self.last).tolist()):
            at[ends[i] : min(last, ends[i + 1])] = i
        return at

    def of(self, mfn: np.ndarray) -> np.ndarray:
        """Position in first, last, kinds of the region that holds each page, NONE for none."""
        if not len(self.first):
            return np.full(len(mfn), NONE, np.int64)
        at = np.searchsorted(self.first, mfn, side="right") - 1
        return np.where((at >= 0) & (mfn < self.last[np.maximum(at, 0)]), at, NONE)
