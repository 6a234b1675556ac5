# SPDX-License-Identifier: BSD-2-Clause
# The tree that leads from an mfn to its frame's descriptor, decoded into one table, and looked up by the million.
"""Tree: mm.h's frame_node pages as a sorted list of spans of 512 MiB, each with an entry per 512 KiB.

What is out of place is left out of the table (so that a look-up finds nothing there) and reported.
"""

from __future__ import annotations

import numpy as np

from ktf.findings import Report
from ktf.kernel.chains import NONE
from ktf.kernel.layout import Layout
from ktf.kernel.pools import Pool

SHIFT = 10  # log2 of the entries of a node
ENTRIES = 1 << SHIFT
ROOTS = 2  # nodes that are the root
GRANULE_ORDER = 7  # an entry of a lowest node: 2^7 pages
SPAN_ORDER = GRANULE_ORDER + SHIFT
GIB_ORDER = 18  # the largest order
FREE_NODE = 0xFFFFFFFF  # entry 1 of a free node
BELOW = np.uint64(1 << 63)  # an entry is an address
NOWHERE = 0x7FFFFFFF  # the index that an entry gets which is no good address
DESCRIPTOR = 32  # bytes


class Tree:
    """entries[row, i]: what the i-th 512 KiB of span spans[row] lead to, the index of a block's descriptor
    and `block`, or that of the first of 128; from_top[row]: by one entry for all."""

    def __init__(
        self, pool: Pool, layout: Layout, high: list[int], block: int, frames: int, out: Report
    ) -> None:
        """high: mm.high_node; frames: where the descriptors are."""
        self.pool = pool
        self.block = block
        whole = pool.data.reshape(-1)[: pool.count * 4096 // layout.size * layout.size]
        self.nodes = layout.records(whole)["entry"].reshape(-1, ENTRIES)
        self.seen = np.zeros(len(self.nodes), bool)
        self.out = out
        spans, below = self._spans(high)
        direct = below < BELOW
        node = self._nodes_below(below, spans << SHIFT)
        good = direct.copy()
        good[~direct] = self._claim(node[~direct], spans[~direct], "512 MiB")
        order = np.flatnonzero(good)[np.argsort(spans[good], kind="stable")]
        self.spans, below, node, self.from_top = (
            spans[order],
            below[order],
            node[order],
            direct[order],
        )
        self.entries = np.zeros((len(self.spans) + 1, ENTRIES), np.uint32)
        self.entries[:-1][self.from_top] = self._blocks(below[self.from_top])[:, None]
        lower = ~self.from_top
        self.entries[:-1][lower] = self._lower(self.nodes[node[lower]], self.spans[lower], frames)
        self.row_of_span = np.full(ROOTS * ENTRIES + 1, len(self.spans), np.int32)
        low = self.spans < ROOTS * ENTRIES
        self.row_of_span[self.spans[low]] = np.flatnonzero(low)

    # --- entries ---------------------------------------------------------------------------------

    def _nodes_below(self, entries: np.ndarray, first: np.ndarray) -> np.ndarray:
        """The nodes that entries lead to, -1 for none; first: numbers of their first entries."""
        start = entries + (first * 8).astype(np.uint64) - np.uint64(self.pool.base)
        size = np.uint64(self.nodes.itemsize * ENTRIES)
        return np.where(start % size == 0, (start // size).astype(np.int64), -1)

    def _blocks(self, entries: np.ndarray) -> np.ndarray:
        """Entries that are indexes, with the mark of a block."""
        return np.minimum(entries, NOWHERE).astype(np.uint32) | np.uint32(self.block)

    def _lower(self, entries: np.ndarray, spans: np.ndarray, frames: int) -> np.ndarray:
        """Those of the lowest nodes of these spans."""
        mfn = (spans[:, None] << SPAN_ORDER) + (np.arange(ENTRIES) << GRANULE_ORDER)
        start = entries + (mfn * DESCRIPTOR).astype(np.uint64) - np.uint64(frames)
        index = np.minimum(start // np.uint64(DESCRIPTOR), NOWHERE)
        index = np.where(start % np.uint64(DESCRIPTOR) == 0, index, NOWHERE).astype(np.uint32)
        index = np.where(entries >= BELOW, index, self._blocks(entries))
        return np.where(entries == 0, 0, index)

    def _claim(self, nodes: np.ndarray, keys: np.ndarray, what: str) -> np.ndarray:
        """Marks nodes as part of the tree; False for those outside the pool, or there twice."""
        good = (nodes > 0) & (nodes < len(self.nodes))
        first = np.zeros(len(nodes), bool)
        first[np.unique(nodes, return_index=True)[1]] = True
        good[good] &= ~self.seen[nodes[good]]
        good &= first
        for i in np.flatnonzero(~good)[:20].tolist():
            node = f"node {int(nodes[i]):#x}" if nodes[i] >= 0 else "the middle of a node"
            text = f"{what} {int(keys[i]):#x} leads to {node}, which is outside or there twice"
            self.out.add("A3", f"tree of frames: {text} ({len(self.nodes)} nodes)")
        self.seen[nodes[good]] = True
        return good

    def _high(self, high: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Number and node of each 512 GiB beyond the root."""
        numbers, nodes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for top in np.flatnonzero(high).tolist():
            key = np.array([high[top]], np.int64)
            if not self._claim(key, np.array([top]), "mm.high_node, entry")[0]:
                continue
            above = self.nodes[high[top]]
            at = np.flatnonzero(above)
            number = (top << SHIFT) + at
            node = self._nodes_below(above[at], number << SHIFT)
            node = np.where((above[at] >= BELOW) & (number >= ROOTS), node, -1)
            good = self._claim(node, number, "512 GiB")
            numbers.append(number[good])
            nodes.append(node[good])
        return np.concatenate(numbers), np.concatenate(nodes)

    def _spans(self, high: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Number of every 512 MiB that leads somewhere, and its entry."""
        if len(self.nodes) < ROOTS:
            self.out.add_blind("A3", "tree of frames: its root can't be read")
            return np.zeros(0, np.int64), np.zeros(0, np.uint64)
        self.seen[:ROOTS] = True
        numbers, nodes = self._high(high)
        numbers = np.concatenate([np.arange(ROOTS), numbers])
        table = self.nodes[np.concatenate([np.arange(ROOTS), nodes])]
        row, at = np.nonzero(table)
        return (numbers[row] << SHIFT) + at, table[row, at]

    # --- the table -------------------------------------------------------------------------------

    def rows(self, mfns: np.ndarray) -> np.ndarray:
        """Row in entries of each page's span, the last one, which is empty, where it has none. mfns: int64, not negative."""
        span = mfns >> SPAN_ORDER
        if len(span) and int(span.max()) >= ROOTS * ENTRIES:
            at = np.searchsorted(self.spans, span)
            found = np.append(self.spans, NONE)[at] == span
            return np.where(found, at, len(self.spans))
        return self.row_of_span[span]

    def lookup(self, mfns: np.ndarray) -> np.ndarray:
        """The entry for each page's 512 KiB, 0 where there is none. mfns: int64, not negative."""
        return self.entries[self.rows(mfns), (mfns >> GRANULE_ORDER) & (ENTRIES - 1)]

    def granules(self) -> tuple[np.ndarray, np.ndarray]:
        """First mfn and entry of every 512 KiB that leads somewhere, ascending; views of the table."""
        row, at = np.nonzero(self.entries[:-1])
        mfn = (self.spans[row] << SPAN_ORDER) + (at << GRANULE_ORDER)
        return mfn, self.entries[row, at]

    def forget(self, mfns: np.ndarray) -> None:
        """Makes these lead nowhere: they were found to be wrong."""
        row = np.searchsorted(self.spans, mfns >> SPAN_ORDER)
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
