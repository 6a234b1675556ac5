# SPDX-License-Identifier: BSD-2-Clause
# The page-table entries that mapping records stand for, one by one, beside the entries that are there.
"""Claims: every record expanded to its entries.

    claims.record[i], .at[i]     row of the record, slot * 512 + entry
    claims.want[i], .have[i]     the entry as the record says, and as it is
    claims.odd                   the elements where these differ
    claims.record_at[at]         row of the record that stands for an entry, NONE if none does
"""

from __future__ import annotations

import numpy as np

from ktf.kernel.chains import NONE
from ktf.kernel.descriptors import Frames
from ktf.kernel.records import Mappings
from ktf.kernel.slots import Slots
from ktf.memory.readers import WORDS
from ktf.x86.paging import ACCESSED, DIRTY, LEAF_ADDRESS, NX, P, PAT_LARGE, PS, RW, US, Rules

LEVELS = 3  # leaves stand at levels 1 to 3
ATTRS = 64
MOST = 1 << 23  # entries expanded at most

# What software may use for itself (bits 9 to 11, 52 to 62), and what the CPU sets.
IGNORED = 0x7FF0_0000_0000_0000 | 0xE00 | ACCESSED | DIRTY


class AttrBits:
    """enum vattr: which bit of a record's attr means what."""

    def __init__(self, vattr: dict[str, int]) -> None:
        self.w, self.x, self.u = vattr["VATTR_W"], vattr["VATTR_X"], vattr["VATTR_U"]
        self.shift = vattr["VATTR_TYPE_SHIFT"]
        self.table = np.zeros((LEVELS + 1, ATTRS), np.uint64)
        for level in range(1, LEVELS + 1):
            for attr in range(ATTRS):
                self.table[level, attr] = self.entry(attr, level)

    def entry(self, attr: int, level: int) -> int:
        """The bits of a leaf entry besides its address: what arch/x86/pgentry.h makes of attr."""
        kind = attr >> self.shift
        bits = P | (kind & 3) << 3 | (0 if level == 1 else PS)
        bits |= RW if attr & self.w else 0
        bits |= US if attr & self.u else 0
        bits |= 0 if attr & self.x else NX
        if kind & 4:
            bits |= PS if level == 1 else PAT_LARGE
        return bits


def type_bits(level: np.ndarray) -> np.ndarray:
    """The bits of a leaf entry that choose its memory type."""
    return np.where(level == 1, np.uint64(0x98), np.uint64(0x18 | PAT_LARGE))


class Claims:
    """The entries of all records whose place is a live table of their level."""

    def __init__(
        self,
        maps: Mappings,
        frames: Frames,
        slots: Slots,
        attrs: AttrBits,
        rules: Rules,
        live_space: np.ndarray,
    ) -> None:
        self.maps = maps
        self.slots = slots
        slot = (maps.at >> 9).astype(np.int64)
        inside = (slot > 0) & (slot < slots.count)
        slot = np.where(inside, slot, 0)
        self.no_table = ~slots.live[slot]
        self.no_space = ~self.no_table & ~live_space[slot]
        self.other_level = ~self.no_table & (slots.level[slot] != maps.level)
        span = maps.order.astype(np.int16) - (maps.level.astype(np.int16) * 9 - 9)
        self.bad_shape = (maps.level == 0) | (span < 0) | (maps.order > 18)
        good = ~(self.no_table | self.no_space | self.other_level | self.bad_shape)
        # Records of one entry, then the others.
        several = np.flatnonzero(good & (span > 0))
        counts = np.int64(1) << span[several].astype(np.int64)
        self.cut = 0
        if int(counts.sum()) > MOST:
            keep = np.cumsum(counts) <= MOST
            self.cut = int((~keep).sum())
            several, counts = several[keep], counts[keep]
        self._expand(np.flatnonzero(good & (span == 0)), several, counts, rules)
        self._compare(frames, attrs, rules)

    def _expand(
        self, single: np.ndarray, several: np.ndarray, counts: np.ndarray, rules: Rules
    ) -> None:
        """One element for each entry; those beyond the end of a table are looked up by address."""
        maps, slots = self.maps, self.slots
        self.singles = len(
            single
        )  # elements; of those behind them `step` says how far into their record they are
        self.record = np.concatenate([single, np.repeat(several, counts)])
        self.at = maps.at[self.record].astype(np.int64)
        self.step = np.arange(len(self.at) - self.singles) - np.repeat(
            np.cumsum(counts) - counts, counts
        )
        self.missing = np.zeros(0, np.int64)  # elements that no table covers
        first = self.at[self.singles :].copy()
        self.at[self.singles :] += self.step
        over = np.flatnonzero(self.at[self.singles :] // WORDS != first // WORDS)
        if len(over):
            self._beyond(over, first[over], rules)
        self.record_at = np.full(slots.count * WORDS, NONE, np.int32)
        self.record_at[self.at] = self.record
        self.record_at[:WORDS] = NONE

    def _beyond(self, over: np.ndarray, first: np.ndarray, rules: Rules) -> None:
        slots = self.slots
        slot = first // WORDS
        level = slots.level[slot]
        va = slots.entry_va(slot, first % WORDS, rules)
        shift = level.astype(np.uint64) * np.uint64(9) + np.uint64(3)
        va = va + (self.step[over].astype(np.uint64) << shift)
        found = slots.find(slots.space[slot], level, va)
        entry = (va >> shift).astype(np.int64) & (WORDS - 1)
        over = over + self.singles
        self.at[over] = np.where(found > 0, found * WORDS + entry, 0)
        self.missing = over[found == 0]

    def _compare(self, frames: Frames, attrs: AttrBits, rules: Rules) -> None:
        """What each entry should be, and what it is."""
        maps = self.maps
        owner = maps.owner[self.record]
        self.level = maps.level[self.record]
        want = frames.mfn[owner].astype(np.uint64)
        want += maps.offset[self.record]
        depth = self.level[self.singles :].astype(np.int64) * 9 - 9
        want[self.singles :] += (self.step << depth).astype(np.uint64)
        want <<= np.uint64(12)
        want |= attrs.table[self.level, maps.attr[self.record]]
        self.want = want
        self.have = self.slots.content.reshape(-1)[self.at]
        # Reserved bits are rule T5's alone.
        reserved = rules.reserved(1, True)
        self.compared = ~IGNORED & ~reserved & (1 << 64) - 1
        self.differs = ((self.want ^ self.have) & np.uint64(self.compared)) != 0
        # Records on no list have no frame to compare with, tables that can't be read nothing to compare.
        self.differs &= (owner > 0) & self.slots.readable[self.at >> 9]
        self.differs[self.missing] = True
        self.odd = np.flatnonzero(self.differs)
        self._address = LEAF_ADDRESS & ~np.uint64(reserved)

    # Of some elements, by their numbers:

    def present(self, i: np.ndarray) -> np.ndarray:
        """True where the entry is present."""
        return (self.have[i] & np.uint64(P)) != 0

    def is_leaf(self, i: np.ndarray) -> np.ndarray:
        """True where the entry maps a page."""
        return self.present(i) & ((self.level[i] == 1) | ((self.have[i] & np.uint64(PS)) != 0))

    def address(self, i: np.ndarray) -> np.ndarray:
        """The bits of the entry that are its address."""
        return self._address[self.level[i]]
