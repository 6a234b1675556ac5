# SPDX-License-Identifier: BSD-2-Clause
# The tree that leads from an mfn to its frame's descriptor, decoded into one table, and looked up by the million.
"""Tree: mm.h's frame_node pages as a sorted list of GiBs, each with an entry per 512 KiB.

What is out of place is left out of the table (so that a look-up finds nothing there) and reported.
"""

from __future__ import annotations

import numpy as np

from .chains import NONE
from .findings import Report
from .layout import Layout
from .pools import Pool

SHIFT = 11  # log2 of the entries of a node
ENTRIES = 1 << SHIFT
GRANULE_ORDER = 7  # an entry of a lowest node: 2^7 pages
GIB_ORDER = GRANULE_ORDER + SHIFT
TOP_ORDER = GIB_ORDER + SHIFT
MFN_BITS = TOP_ORDER + SHIFT
FREE_NODE = 0xFFFFFFFF  # entry 1 of a free node


class Tree:
    """entries[row, i]: what the i-th 512 KiB of GiB gibs[row] lead to; from_top[row]: by one entry for all."""

    def __init__(self, pool: Pool, layout: Layout, high_node: int, block: int, out: Report) -> None:
        self.pool = pool
        self.block = block
        whole = pool.data.reshape(-1)[: pool.count * 4096 // layout.size * layout.size]
        self.nodes = layout.records(whole)["entry"].reshape(-1, ENTRIES)
        self.seen = np.zeros(len(self.nodes), bool)
        self.out = out
        gibs, below = self._gibs(high_node)
        direct = (below & block) != 0
        good = direct.copy()
        good[~direct] = self._claim(below[~direct].astype(np.int64), gibs[~direct], "GiB")
        gibs, below, direct = gibs[good], below[good], direct[good]
        order = np.argsort(gibs, kind="stable")
        self.gibs, below, self.from_top = gibs[order], below[order], direct[order]
        self.entries = np.zeros((len(self.gibs) + 1, ENTRIES), np.uint32)
        self.entries[:-1][self.from_top] = below[self.from_top, None]
        self.entries[:-1][~self.from_top] = self.nodes[below[~self.from_top]]
        self.row_of_gib = np.full(ENTRIES + 1, len(self.gibs), np.int32)
        low = self.gibs < ENTRIES
        self.row_of_gib[self.gibs[low]] = np.flatnonzero(low)

    def _claim(self, nodes: np.ndarray, keys: np.ndarray, what: str) -> np.ndarray:
        """Marks nodes as part of the tree; False for those outside the pool, or there twice."""
        good = (nodes > 0) & (nodes < len(self.nodes))
        first = np.zeros(len(nodes), bool)
        first[np.unique(nodes, return_index=True)[1]] = True
        good[good] &= ~self.seen[nodes[good]]
        good &= first
        for i in np.flatnonzero(~good)[:20].tolist():
            text = f"{what} {int(keys[i]):#x} leads to node {int(nodes[i]):#x}, which is outside or there twice"
            self.out.add("A3", f"tree of frames: {text} ({len(self.nodes)} nodes)")
        self.seen[nodes[good]] = True
        return good

    def _gibs(self, high_node: int) -> tuple[np.ndarray, np.ndarray]:
        """Number of every GiB that leads somewhere, and its entry."""
        nothing = np.zeros(0, np.int64), np.zeros(0, np.uint32)
        if not len(self.nodes):
            self.out.add_blind("A3", "tree of frames: node 0 can't be read")
            return nothing
        self.seen[0] = True
        tops, nodes = np.zeros(1, np.int64), np.zeros(1, np.int64)
        if high_node:
            key = np.array([high_node], np.int64)
            if self._claim(key, np.zeros(1), "mm.high_node, for")[0]:
                above = self.nodes[high_node]
                at = np.flatnonzero(above)
                good = self._claim(above[at].astype(np.int64), at, "2 TiB")
                tops = np.concatenate([tops, at[good]])
                nodes = np.concatenate([nodes, above[at[good]].astype(np.int64)])
        table = self.nodes[nodes]
        row, at = np.nonzero(table)
        return (tops[row] << SHIFT) + at, table[row, at]

    def lookup(self, mfns: np.ndarray) -> np.ndarray:
        """The entry for each page's 512 KiB, 0 where there is none. mfns: int64, not negative."""
        gib = mfns >> GIB_ORDER
        if len(gib) and int(gib.max()) >= ENTRIES:
            at = np.searchsorted(self.gibs, gib)
            found = np.append(self.gibs, NONE)[at] == gib
            row = np.where(found, at, len(self.gibs))
        else:
            row = self.row_of_gib[gib]
        return self.entries[row, (mfns >> GRANULE_ORDER) & (ENTRIES - 1)]

    def granules(self) -> tuple[np.ndarray, np.ndarray]:
        """First mfn and entry of every 512 KiB that leads somewhere, ascending; views of the table."""
        row, at = np.nonzero(self.entries[:-1])
        mfn = (self.gibs[row] << GIB_ORDER) + (at << GRANULE_ORDER)
        return mfn, self.entries[row, at]

    def forget(self, mfns: np.ndarray) -> None:
        """Makes these lead nowhere: they were found to be wrong."""
        row = np.searchsorted(self.gibs, mfns >> GIB_ORDER)
        self.entries[row, (mfns >> GRANULE_ORDER) & (ENTRIES - 1)] = 0

    def judge_free(self, first: int, count: int) -> None:
        """The free nodes: linked by entry 0, marked in entry 1, and all that the tree does not use."""
        link, bound = first, len(self.nodes)
        found = 0
        while link:
            if link >= bound or self.seen[link]:
                why = "outside the pool" if link >= bound else "in use, or there already"
                self.out.add("A3", f"nodes: the list of free ones leads to {link:#x}, {why}")
                return
            self.seen[link] = True
            found += 1
            node = self.nodes[link]
            if int(node[1]) != FREE_NODE:
                text = f"entry 1 is {int(node[1]):#x}, should be {FREE_NODE:#x}"
                self.out.add("A3", f"nodes: free node {link:#x}: {text}", va=self.pool.va(link))
            if node[2:].any():
                self.out.add(
                    "A3", f"nodes: free node {link:#x} is not empty", va=self.pool.va(link)
                )
            link = int(node[0])
        if found != count:
            self.out.add("A4", f"nodes: free is {count}, but {found} are on the list of free ones")
        for i in np.flatnonzero(~self.seen)[:20].tolist():
            self.out.add("A3", f"nodes: {i:#x} is neither in the tree nor free", va=self.pool.va(i))
