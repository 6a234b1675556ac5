# SPDX-License-Identifier: BSD-2-Clause
# Page-table walks on made-up memory: exact against a plain walk, and bounded whatever the memory holds.
"""Tests of ktf.paging, ktf.walk and ktf.trace."""

from __future__ import annotations

import time
import unittest

import numpy as np

from fake_guest import Memory, naive
from ktf.x86 import paging
from ktf.x86.paging import LEAF_FIELDS, NX, PS, P, RW, US, Leaves, Rules, Walk
from ktf.x86.trace import trace, translate
from ktf.x86.walk import CHUNK, Limits, walk

KERNEL = 0xFFFF_8000_0000_0000


def rows(found: Walk) -> list[tuple[int, int, int, int]]:
    """As naive() gives them."""
    leaves = found.leaves
    return list(
        zip(
            leaves.va.tolist(),
            leaves.entry.tolist(),
            leaves.level.tolist(),
            leaves.perm.tolist(),
        )
    )


def kinds(found: Walk) -> list[str]:
    """Names of the findings."""
    return [paging.FINDINGS[k] for k in found.findings.kind.tolist()]


class Exact(unittest.TestCase):
    """The walk finds what there is."""

    def example(self, levels: int) -> Memory:
        """Pages of all sizes at both ends of both halves, with rights that differ by level."""
        m = Memory(64, levels=levels)
        top = 1 << (m.levels * 9 + 11)
        high = (1 << 64) - top
        m.map(0x1000, 0x5000, P | US, upper=P | RW | US)
        m.map(0x3FF000, 0x6000, P | RW | NX)
        m.map(0x40000000, 0x40000000, P | RW | US, level=3)
        m.map(top - 0x200000, 0x200000, P | RW | NX, level=2, upper=P | US)
        m.map(high, 0x7000, P | RW, upper=P | RW | NX)
        m.map((1 << 64) - 0x1000, 0x9000, P | paging.GLOBAL)
        return m

    def test_all_sizes_and_levels(self) -> None:
        """Every page, sorted, with the rights of all levels."""
        for levels in (4, 5):
            m = self.example(levels)
            found = walk(m.reader, m.root, m.rules())
            self.assertEqual(rows(found), naive(m))
            self.assertEqual(len(found.findings), 0)
            self.assertEqual(found.entries, len(found.tables) - 1 + 6)
            self.assertEqual(found.leaf_count, 6)

    def test_random_tables(self) -> None:
        """Random entries that stay in memory: the same as the plain walk, entry for entry."""
        for seed in range(20):
            rng = np.random.default_rng(seed)
            m = Memory(200, levels=4 + seed % 2)
            for _ in range(150):
                level = int(rng.integers(1, 4))
                va = int(rng.integers(0, 1 << 20)) << (3 + 9 * level)
                if m.next > 190:
                    break
                flags = P | int(rng.choice([0, RW])) | int(rng.choice([0, US, NX]))
                upper = P | int(rng.choice([0, RW])) | int(rng.choice([0, US, NX]))
                try:
                    m.map(va, int(rng.integers(0, 1 << 20)) << 30, flags, level, upper)
                except IndexError:
                    pass  # a large page stood where a table was wanted
            for nxe in (True, False):
                found = walk(m.reader, m.root, m.rules(nxe=nxe))
                self.assertEqual(rows(found), naive(m, nxe), f"seed {seed}")
                self.assert_met(m, found, nxe)

    def assert_met(self, m: Memory, kept: Walk, nxe: bool) -> None:
        """Leaves that are met on the way are those that are kept."""
        met: list[Leaves] = []
        found = walk(m.reader, m.root, m.rules(nxe=nxe), meet=met.append)
        va = np.concatenate([leaves.va for leaves in met])
        self.assertEqual(np.sort(va).tolist(), kept.leaves.va.tolist())
        for leaves in met:
            same = kept.leaves.take(np.searchsorted(kept.leaves.va, leaves.va))
            for field in LEAF_FIELDS:
                self.assertEqual(getattr(leaves, field).tolist(), getattr(same, field).tolist())
        self.assertEqual((found.leaf_count, len(found.leaves)), (len(va), 0))
        self.assertEqual(found.entries, kept.entries)
        self.assertEqual(found.findings.va.tolist(), kept.findings.va.tolist())

    def test_span(self) -> None:
        """low and high cut the walk, large pages that overlap stay."""
        m = self.example(4)
        found = walk(m.reader, m.root, m.rules(), 0x2000, 0x40001000)
        self.assertEqual(found.leaves.va.tolist(), [0x3FF000, 0x40000000])
        found = walk(m.reader, m.root, m.rules(), 1 << 47)
        self.assertEqual(found.leaves.va.tolist(), [KERNEL, (1 << 64) - 4096])

    def test_tables(self) -> None:
        """Each table knows its parent, entry and first address."""
        m = self.example(4)
        t = walk(m.reader, m.root, m.rules()).tables
        self.assertEqual(t.mfn[0], m.root)
        self.assertEqual(t.parent[0], -1)
        for row in range(1, len(t)):
            parent = int(t.parent[row])
            entry = int(m.entries(int(t.mfn[parent]))[int(t.index[row])])
            self.assertEqual(entry, int(t.entry[row]))
            self.assertEqual(entry >> 12 & 0xFF_FFFF_FFFF, int(t.mfn[row]))
            self.assertEqual(int(t.level[row]), int(t.level[parent]) - 1)

    def test_translate_and_trace_agree(self) -> None:
        """One address and many: the same physical address, or none."""
        m = self.example(4)
        vas = [0x1000, 0x1FFF, 0x2000, 0x3FF008, 0x40123456, KERNEL + 5, (1 << 64) - 1, 1 << 46]
        pas, ok = translate(m.reader, m.root, m.rules(), np.array(vas, np.uint64))
        for va, pa, good in zip(vas, pas.tolist(), ok.tolist()):
            found = trace(m.reader, m.root, m.rules(), va)
            self.assertEqual(found.pa, pa if good else None, f"{va:#x}")
        self.assertEqual(trace(m.reader, m.root, m.rules(), 0x40123456).pa, 0x40123456)

    def test_trace_tells_levels(self) -> None:
        """Which level takes away which right, and why a walk ends."""
        m = self.example(4)
        found = trace(m.reader, m.root, m.rules(), KERNEL)
        self.assertEqual(found.limits(paging.X), [4, 3, 2])
        self.assertEqual(found.limits(paging.U), [4, 3, 2, 1])
        self.assertEqual(found.limits(paging.W), [])
        found = trace(m.reader, m.root, m.rules(), 0x2000)
        self.assertEqual((found.pa, found.problem), (None, "not present"))
        self.assertEqual(found.steps[-1].level, 1)
        found = trace(m.reader, m.root, m.rules(), 1 << 47)
        self.assertEqual(found.problem, "not a canonical address")


class Findings(unittest.TestCase):
    """What the CPU would refuse is reported, with its place."""

    def finding(self, entry: int, level: int, **rules: int) -> Walk:
        """A table of that level with one entry, at address 0."""
        m = Memory(64)
        table = m.root
        for _ in range(4, level, -1):
            below = m.table()
            m.entries(table)[0] = below << 12 | P | RW
            table = below
        m.entries(table)[0] = entry
        return walk(m.reader, m.root, m.rules(**rules))

    def test_each_kind(self) -> None:
        """One entry, one finding."""
        cases: list[tuple[int, int, dict[str, int], list[str]]] = [
            (0x1000_0000 | P, 3, {}, ["unreadable"]),
            (1 << 12 | P, 3, {}, ["loop"]),
            (1 << 45 | P, 1, {}, ["reserved"]),
            (NX | P, 1, {"nxe": 0}, ["reserved"]),
            (20 << 12 | PS | P, 4, {}, ["ps"]),
            (PS | P, 3, {"page_1g": 0}, ["ps"]),
            (0x1000 | PS | P, 2, {}, []),  # the PAT bit
            (0x2000 | PS | P, 2, {}, ["align"]),
            (0x200000 | PS | P, 3, {}, ["align"]),
            (0x40000000 | PS | P, 3, {}, []),
            (0, 3, {}, []),
        ]
        for entry, level, rules, expected in cases:
            found = self.finding(entry, level, **rules)
            self.assertEqual(kinds(found), expected, f"{entry:#x} at level {level}")
            if expected:
                self.assertEqual(found.findings.entry[0], entry)
                self.assertEqual(found.findings.level[0], level)
                self.assertEqual(found.tables.level[found.findings.table[0]], level)
                self.assertIn(f"level {level}", found.describe(0))

    def test_unreadable_root(self) -> None:
        """A root outside memory is a finding, too."""
        m = Memory(8)
        found = walk(m.reader, 0x123456, m.rules())
        self.assertEqual(kinds(found), ["unreadable"])
        self.assertEqual(len(found.leaves), 0)
        self.assertEqual(trace(m.reader, 0x123456, m.rules(), 0).pa, None)

    def test_loop_deep(self) -> None:
        """A loop over several levels is found, and what hangs beside it still walked."""
        m = Memory(64)
        m.map(0x1000, 0x1000)
        second = int(m.entries(int(m.entries(m.root)[0]) >> 12)[0]) >> 12
        m.entries(second)[7] = int(m.entries(m.root)[0])
        found = walk(m.reader, m.root, m.rules())
        self.assertEqual(kinds(found), ["loop"])
        self.assertEqual(found.leaves.va.tolist(), [0x1000])


class Bounded(unittest.TestCase):
    """No memory makes it run for long, or use much."""

    def quick(self, m: Memory, limits: Limits = Limits()) -> Walk:
        """A walk that must end within ten seconds of the processor's time."""
        started = time.process_time()
        found = walk(m.reader, m.root, m.rules(), limits=limits)
        self.assertLess(time.process_time() - started, 10)
        return found

    def test_self_reference(self) -> None:
        """A root full of itself: 512 loops."""
        m = Memory(8)
        m.entries(m.root)[:] = m.root << 12 | P | RW
        found = self.quick(m)
        self.assertEqual(kinds(found), ["loop"] * 512)

    def test_shared_tables(self) -> None:
        """Four tables, each entry the next one: 2^36 pages; ends at its bound and says so."""
        m = Memory(8)
        tables = [m.root, m.table(), m.table(), m.table()]
        for upper, lower in zip(tables, tables[1:]):
            m.entries(upper)[:] = lower << 12 | P | RW
        m.entries(tables[3])[:] = P
        found = self.quick(m)
        self.assertIn("bound", kinds(found))
        self.assertGreaterEqual(len(found.notes), 1)
        self.assertLessEqual(len(found.leaves), (1 << 23) + paging_chunk())

    def test_shared_does_not_push_out(self) -> None:
        """With too many tables each is walked once before any is walked again."""
        m = Memory(64)
        shared = m.table()
        m.entries(shared)[0] = 0x5000 | P
        m.map(0x1000, 0x9000)
        level2 = int(m.entries(int(m.entries(m.root)[0]) >> 12)[0]) >> 12
        m.entries(level2)[1:500] = shared << 12 | P
        m.map(510 << 21, 0x9000)
        found = self.quick(m, Limits(tables=10))
        vas = found.leaves.va.tolist()
        self.assertIn(0x1000, vas)
        self.assertIn(510 << 21, vas)
        self.assertIn("bound", kinds(found))

    def test_leaf_bound(self) -> None:
        """More pages than wanted: a bound, not an endless list."""
        m = Memory(3000)
        for i in range(2500):
            m.map(i << 21, 0)
        found = self.quick(m, Limits(leaves=1000))
        self.assertIn("bound", kinds(found))
        self.assertGreaterEqual(len(found.leaves), 1000)

    def test_random_memory(self) -> None:
        """All of memory random, entries pointing into it: ends, whatever it finds."""
        for seed in range(3):
            rng = np.random.default_rng(seed)
            m = Memory(4096)
            inside = rng.integers(0, 4096, m.words.shape, np.uint64) << np.uint64(12)
            low = rng.integers(0, 1 << 12, m.words.shape, np.uint64)
            m.words[:] = inside | low
            found = self.quick(m)
            self.assertGreater(len(found.findings), 0)
            m.words[:] = rng.integers(0, 1 << 64, m.words.shape, np.uint64, endpoint=False)
            found = self.quick(m)
            self.assertGreater(len(found.findings), 0)
            for row in range(0, len(found.findings), max(len(found.findings) // 50, 1)):
                self.assertTrue(found.describe(row))
            for va in rng.integers(0, 1 << 63, 200, np.uint64).tolist():
                trace(m.reader, m.root, m.rules(), va)


def paging_chunk() -> int:
    """Leaf entries that one step of the walk may add beyond the bound."""
    return CHUNK * 512


class RulesTest(unittest.TestCase):
    """Addresses and bits by the number of levels."""

    def test_canonical(self) -> None:
        """Both halves, both sizes."""
        for levels, edge in ((4, 1 << 47), (5, 1 << 56)):
            rules = Rules(levels)
            self.assertTrue(rules.is_canonical(edge - 1))
            self.assertFalse(rules.is_canonical(edge))
            self.assertFalse(rules.is_canonical((1 << 64) - edge - 1))
            self.assertTrue(rules.is_canonical((1 << 64) - edge))
            up = rules.canonical(np.array([edge, edge - 1], np.uint64)).tolist()
            self.assertEqual(up, [(1 << 64) - edge, edge - 1])


if __name__ == "__main__":
    unittest.main()
