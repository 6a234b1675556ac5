# SPDX-License-Identifier: BSD-2-Clause
# Memory types: our arrays against a plain reading of the manual, address by address.
"""Tests of ktf.memtype."""

from __future__ import annotations

import random
import unittest

import numpy as np

from ktf.x86.memtype import (
    COMMON_PAT,
    EFFECTIVE,
    MIXED,
    NAMES,
    UC,
    UC_MINUS,
    WB,
    WC,
    WP,
    WT,
    MemoryTypes,
    Mtrr,
    combine,
)
from ktf.x86.paging import PCD, PWT, P

LIMIT = 1 << 40
ADDRESSES = LIMIT - 1 & ~0xFFF


def mtrr(*ranges: tuple[int, int, int], default: int = WB, fixed: bytes | None = None) -> Mtrr:
    """Of ranges (type, base, mask)."""
    base = np.array([b | t for t, b, _ in ranges], np.uint64)
    mask = np.array([m & ADDRESSES for *_, m in ranges], np.uint64)
    return Mtrr(
        True, default, None if fixed is None else np.frombuffer(fixed, np.uint8), base, mask
    )


def plain(m: Mtrr, pa: int) -> int:
    """SDM vol. 3, 12.11.4.1, for one address."""
    if m.fixed is not None and pa < 0x100000:
        sizes = [0x10000] * 8 + [0x4000] * 16 + [0x1000] * 64
        at = 0
        for size, kind in zip(sizes, m.fixed.tolist()):
            at += size
            if pa < at:
                return int(kind)
    found = {int(b) & 7 for b, k in zip(m.base, m.mask) if pa & int(k) == int(b) & int(k)}
    if not found:
        return m.default
    if len(found) == 1:
        return found.pop()
    return WT if found == {WT, WB} else UC


def some(seed: int) -> Mtrr:
    """Random registers: aligned ranges, masks with holes, small ones."""
    rng = random.Random(seed)
    ranges = []
    for _ in range(rng.randrange(6)):
        size = 1 << rng.randrange(12, 34)
        mask = -size & (LIMIT - 1)
        if rng.random() < 0.3:
            mask &= ~(1 << rng.randrange(20, 36))
        ranges.append((rng.choice((UC, WC, WT, WP, WB)), rng.randrange(1 << 34) & -size, mask))
    fixed = bytes(rng.choices((UC, WC, WT, WP, WB), k=88)) if rng.random() < 0.7 else None
    return mtrr(*ranges, default=rng.choice((UC, WB)), fixed=fixed)


class Registers(unittest.TestCase):
    """What the MTRRs say."""

    def test_each_address(self) -> None:
        """at() is the plain reading."""
        for seed in range(60):
            m, rng = some(seed), random.Random(seed)
            pa = [rng.randrange(1 << 34) for _ in range(100)]
            pa += [rng.randrange(1 << 20) for _ in range(100)] + [
                0,
                0x7FFFF,
                0x80000,
                0xBFFFF,
                0xFFFFF,
            ]
            self.assertEqual(m.at(np.array(pa, np.uint64)).tolist(), [plain(m, a) for a in pa])

    def test_each_page(self) -> None:
        """sets() is what all 4K of a page are, for each size."""
        for seed in range(40):
            m, rng = some(seed), random.Random(seed)
            edges = [int(b & k) for b, k in zip(m.base, m.mask)]
            for level, size in ((1, 1 << 12), (2, 1 << 21)):
                pa = [rng.randrange(1 << 34) & -size for _ in range(20)] + [0]
                pa += [max(e + d, 0) & -size for e in edges for d in (-1, 0)]
                got = m.sets(np.array(pa, np.uint64), np.full(len(pa), level)).tolist()
                for a, one in zip(pa, got):
                    want = 0
                    for at in range(a, a + size, 4096):
                        want |= 1 << plain(m, at)
                    self.assertEqual(one, want, f"seed {seed} {a:#x} level {level}")

    def test_gigabyte(self) -> None:
        """A 1G page over a hole of 2 MiB, one of 4 KiB, and none."""
        m = mtrr((UC, 0x40200000, -(1 << 21)), (WT, 0x80003000, -4096))
        pa = np.array([0x40000000, 0x80000000, 0xC0000000], np.uint64)
        self.assertEqual(
            m.sets(pa, np.full(3, 3)).tolist(), [1 << WB | 1 << UC, 1 << WB | 1 << WT, 1 << WB]
        )

    def test_off(self) -> None:
        """All is write-back."""
        m = Mtrr(False, UC, None, np.zeros(0, np.uint64), np.zeros(0, np.uint64))
        self.assertEqual(m.sets(np.array([0x1000], np.uint64), np.array([1])).tolist(), [1 << WB])
        self.assertIn("off", m.text())

    def test_absurd(self) -> None:
        """Masks that touch every block end in 'mixed', not in a long wait."""
        m = mtrr((UC, 0, 1 << 12), (WT, 0, 1 << 13))
        pa = np.arange(100000, dtype=np.uint64) << np.uint64(21)
        found = m.sets(pa, np.full(len(pa), 2))
        self.assertTrue((found & (found - 1)).all(), "each has several")


class Together(unittest.TestCase):
    """PAT and MTRR."""

    def test_table(self) -> None:
        """The manual's table, a row each: MTRR UC, WC, WT, WP, WB."""
        rows = {
            UC: (UC, UC, UC, UC, UC),
            UC_MINUS: (UC, WC, UC, WC, UC),
            WC: (WC, WC, WC, WC, WC),
            WT: (UC, UC, WT, WT, WT),
            WP: (UC, UC, WP, WP, WP),
            WB: (UC, WC, WT, WP, WB),
        }
        for entry, row in rows.items():
            self.assertEqual(tuple(combine(entry, m) for m in (UC, WC, WT, WP, WB)), row)
        both = 1 << WB | 1 << WT
        self.assertEqual([int(EFFECTIVE[e, both]) for e in (UC, WB, WT)], [UC, MIXED, WT])

    def test_of(self) -> None:
        """Entries in memory of several types; without MTRRs what the entries say."""
        pat = (WB, WT, UC_MINUS, UC, WP, WC, UC_MINUS, UC)
        m = mtrr((UC, 0x200000, -(1 << 21)))
        entry = np.array([P, P, P | PCD, P | PCD | PWT, P | 1 << 7, P | 1 << 7], np.uint64)
        pa = np.array([0x1000, 0x200000, 0x1000, 0x1000, 0x1000, 0x201000], np.uint64)
        level = np.ones(6, np.uint8)

        def names(types: MemoryTypes) -> list[str]:
            return [NAMES[c] for c in types.of(entry, level, pa).tolist()]

        self.assertEqual(names(MemoryTypes(pat, m)), ["WB", "UC", "UC", "UC", "WP", "UC"])
        self.assertEqual(names(MemoryTypes(pat, None)), ["WB", "WB", "UC-", "UC", "WP", "WP"])
        one = MemoryTypes(COMMON_PAT, None)
        self.assertEqual(
            [
                NAMES[c]
                for c in one.of_entry(
                    np.array([PWT, PCD], np.uint64), np.ones(2, np.uint8)
                ).tolist()
            ],
            ["PAT1", "UC-"],
        )


if __name__ == "__main__":
    unittest.main()
