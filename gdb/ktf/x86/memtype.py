# SPDX-License-Identifier: BSD-2-Clause
# Memory types as the processor combines them: that of an entry by the PAT, that of an address by the MTRRs.
"""Memory types (SDM vol. 3, chapter 12); pure.

    types = MemoryTypes(pat, mtrr)         # mtrr: None where the guest does not tell
    code = types.of(entry, level, pa)      # of leaf entries, many at once: NAMES[code]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ktf.x86.paging import PAT_LARGE, PCD, PWT

# Encodings of the PAT and the MTRRs; MIXED: no one type, 9 to 16: an entry of a PAT that is not known.
UC, WC, WT, WP, WB, UC_MINUS, MIXED = 0, 1, 4, 5, 6, 7, 8
NAMES = ("UC", "WC", "?", "?", "WT", "WP", "WB", "UC-", "mixed") + tuple(
    f"PAT{i}" for i in range(8)
)
UNKNOWN = 9  # NAMES[UNKNOWN + i] is PAT entry i, whose meaning is not known

# What a PAT that can't be read means for sure: where reset, Linux, Windows and the BSDs agree.
COMMON_PAT = (WB, UNKNOWN + 1, UC_MINUS, UC, WB, UNKNOWN + 5, UC_MINUS, UNKNOWN + 7)
RESET_PAT = ("WB", "WT", "UC-", "UC", "WB", "WT", "UC-", "UC")  # SDM vol. 3, 12.12.4

BLOCK_SHIFT = 21
BLOCK_PAGES = 512
MANY = 4096  # blocks of several types that are looked into; a sane machine has one
EVERY = 0xFF  # the set of all types


# The third bit of that number, by level.
PAT_BIT = np.array([PAT_LARGE, 1 << 7] + 6 * [PAT_LARGE], np.uint64)


def pat_index(entry: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Number of the PAT entry that leaf entries choose."""
    low = ((entry >> np.uint64(3)) & np.uint64((PWT | PCD) >> 3)).astype(np.uint8)
    return low | ((entry & PAT_BIT[level]) != 0).view(np.uint8) << np.uint8(2)


def combine(entry: int, memory: int) -> int:
    """Type of an access: the entry's type, in memory of that MTRR type (SDM vol. 3, table 12-7)."""
    if entry in (UC, WC) or entry >= MIXED:
        return entry
    if entry == UC_MINUS:
        return WC if memory in (WC, WP) else UC
    if entry == WB:
        return memory
    return UC if memory in (UC, WC) else entry  # WT, WP


def _of_set(entry: int, memories: int) -> int:
    """The same for memory of several types (a bit each): MIXED if it is not one."""
    found = {combine(entry, m) for m in range(8) if memories >> m & 1}
    return found.pop() if len(found) == 1 else MIXED


EFFECTIVE = np.array([[_of_set(e, s) for s in range(256)] for e in range(len(NAMES))], np.uint8)


@dataclass(frozen=True)
class Mtrr:
    """The memory type range registers. fixed: types of the 88 ranges below 1 MiB, None if they don't count."""

    active: bool
    default: int
    fixed: np.ndarray | None
    base: np.ndarray
    mask: np.ndarray  # address bits alone; those of ranges that count
    limit: int = 1 << 52

    def at(self, pa: np.ndarray) -> np.ndarray:
        """Type of each address. Where ranges overlap in a way that is not defined: UC."""
        found = np.full(len(pa), MIXED, np.uint8)
        for base, mask in zip(self.base, self.mask):
            hit = ((pa ^ base) & mask) == 0
            one = np.uint8(int(base) & 7)
            before = found[hit]
            both = np.where(np.isin(before, (WT, WB)) & (one in (WT, WB)), WT, UC)
            found[hit] = np.where((before == MIXED) | (before == one), one, both)
        found[found == MIXED] = self.default
        if self.fixed is not None:
            low = pa < np.uint64(1 << 20)
            found[low] = self.fixed[_fixed_range(pa[low])]
        return found

    def sets(self, pa: np.ndarray, level: np.ndarray) -> np.ndarray:
        """The types that occur in each page of that level, a bit each."""
        if not self.active or not len(pa):
            return np.full(len(pa), 1 << WB, np.uint8)
        block = (pa >> np.uint64(BLOCK_SHIFT)).astype(np.int64)
        found, several = self._blocks(block)
        inside = several & (level == 1)
        found[inside] = np.uint8(1) << self.at(pa[inside])
        for i in np.flatnonzero(level == 3).tolist()[:MANY]:
            all_of_it = block[i] + np.arange(BLOCK_PAGES)
            found[i] = np.bitwise_or.reduce(self._blocks(all_of_it)[0])
        found[np.flatnonzero(level == 3)[MANY:]] = EVERY
        return found

    def _blocks(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Types in blocks of 2 MiB, and True where a block may have several."""
        if len(block) > MANY and int(block.max()) < 1 << 20:
            seen = np.zeros(int(block.max()) + 1, bool)
            seen[block] = True
            distinct = np.flatnonzero(seen)
            place = np.cumsum(seen)[block] - 1
        else:
            distinct, place = np.unique(block, return_inverse=True)
        first = distinct.astype(np.uint64) << np.uint64(BLOCK_SHIFT)
        types = np.uint8(1) << self.at(first)
        several = (distinct == 0) & (self.fixed is not None)
        low = np.uint64((1 << BLOCK_SHIFT) - 1)
        for base, mask in zip(self.base, self.mask):
            if mask & low:
                several = several | (((first ^ base) & mask & ~low) == 0)
        for count, i in enumerate(np.flatnonzero(several).tolist()):
            pages = first[i] + np.arange(BLOCK_PAGES, dtype=np.uint64) * np.uint64(4096)
            types[i] = EVERY if count >= MANY else np.bitwise_or.reduce(1 << self.at(pages))
        return types[place], several[place]

    def uneven(self, pa: np.ndarray) -> np.ndarray:
        """True for each address in whose 2 MiB there may be several types."""
        if not self.active or not len(pa):
            return np.zeros(len(pa), bool)
        return self._blocks((pa >> np.uint64(BLOCK_SHIFT)).astype(np.int64))[1]

    def text(self) -> str:
        """In one line."""
        if not self.active:
            return "off: all memory counts as WB"
        words = [f"default {NAMES[self.default]}"]
        for base, mask in zip(self.base.tolist(), self.mask.tolist()):
            first, size = base & mask, mask & -mask
            place = f"{first:#x}-{first + size - 1:#x}"
            if mask + size != self.limit:  # ones and zeros mixed: not one stretch
                place += f" and what differs from it in bits that {mask:#x} lacks"
            words.append(f"{NAMES[base & 7]} {place}")
        return ", ".join(words) + ("" if self.fixed is None else ", fixed ranges below 1 MiB")


def _fixed_range(pa: np.ndarray) -> np.ndarray:
    """Which of the 88 fixed ranges an address below 1 MiB lies in: 8 of 64K, 16 of 16K, 64 of 4K."""
    at = pa.astype(np.int64)
    middle = np.where(at < 0xC0000, 8 + (at - 0x80000 >> 14), 24 + (at - 0xC0000 >> 12))
    return np.where(at < 0x80000, at >> 16, middle)


class MemoryTypes:
    """PAT and MTRRs together. pat: type by index; mtrr: None where nobody tells them."""

    def __init__(self, pat: tuple[int, ...], mtrr: Mtrr | None) -> None:
        self.pat = np.array(pat, np.uint8)
        self.mtrr = mtrr

    def of_entry(self, entry: np.ndarray, level: np.ndarray) -> np.ndarray:
        """What leaf entries say by themselves."""
        return self.pat[pat_index(entry, level)]

    def of(self, entry: np.ndarray, level: np.ndarray, pa: np.ndarray) -> np.ndarray:
        """The effective types; what the entries say where the MTRRs are not known."""
        own = self.of_entry(entry, level)
        return own if self.mtrr is None else EFFECTIVE[own, self.mtrr.sets(pa, level)]

    def uneven(self, pa: np.ndarray) -> np.ndarray:
        """True for each address whose type may not be that of all pages of its 2 MiB with equal entries."""
        return np.zeros(len(pa), bool) if self.mtrr is None else self.mtrr.uneven(pa)

    def names(self) -> list[str]:
        """Those that a page can have, for filters."""
        codes = set(self.pat.tolist())
        if self.mtrr is not None:
            codes |= {UC, WC, WT, WP, WB, MIXED}
        return [NAMES[c] for c in sorted(codes)]
