# SPDX-License-Identifier: BSD-2-Clause
# From leaf entries to what people and programs read: merged ranges, filters, text and JSON.
"""Ranges of what is mapped; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ktf.errors import UsageError
from ktf.show.text import Column, each, hexadecimal, lines, pick, size_text
from ktf.x86.memtype import NAMES, MemoryTypes
from ktf.x86.paging import (
    PAGES,
    perm_text,
    ADDRESS,
    LEVEL_SHIFT,
    PCD,
    PS,
    PWT,
    U,
    W,
    X,
    Leaves,
    leaf_pa,
)

SIZES = (0, 1 << 12, 1 << 21, 1 << 30)
NO_KIND = 255
BLOCK = 1 << 16  # lines made at once
ALIKE = np.uint64(
    ADDRESS | PWT | PCD | PS
)  # what makes the address and the memory type of a 4K page
IN_BLOCK = np.uint64((1 << 21) - (1 << 12))  # of an address: which 4K page of its 2 MiB


PERMS = tuple(perm_text(p) for p in range(8))


@dataclass
class Ranges:
    """Stretches of one space, sorted: virtually and physically contiguous, and alike in all else.

    type is a number of memtype.NAMES; kind is the frame's, NO_KIND without a frame database.
    """

    space: str
    va: np.ndarray
    size: np.ndarray
    pa: np.ndarray
    perm: np.ndarray
    type: np.ndarray
    level: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.va)


@dataclass
class Pieces:
    """Leaves that follow each other, virtually and physically, and are alike: one row for each such piece.

    A piece of 4K pages ends at the latest where 2 MiB of physical memory end, larger pages are pieces of their own. entry
    is that of the first page; kind, of all frames.
    """

    va: np.ndarray
    count: np.ndarray
    entry: np.ndarray
    level: np.ndarray
    perm: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.va)

    def take(self, which: np.ndarray) -> "Pieces":
        """Those chosen by an index array."""
        return Pieces(*(getattr(self, f)[which] for f in PIECE_FIELDS))


PIECE_FIELDS = ("va", "count", "entry", "level", "perm", "kind")


def pieces(leaves: Leaves, kind: np.ndarray) -> Pieces:
    """Of some leaves, in any order. The one look that is taken at each leaf: what comes later is done by piece."""
    va, same, size = leaves.va, leaves.entry & ALIKE, leaves.size
    new = (leaves.level != 1) | ((leaves.entry & IN_BLOCK) == 0)
    new[:1] = True
    new[1:] |= va[1:] - va[:-1] != size[:-1]
    new[1:] |= same[1:] - same[:-1] != size[:-1]  # one step of the address, all else equal
    for column in (leaves.level, leaves.perm, kind):
        new[1:] |= column[1:] != column[:-1]
    start = np.flatnonzero(new)
    count = np.diff(start, append=len(new)).astype(np.uint64)
    rows = (leaves.entry, leaves.level, leaves.perm, kind)
    return Pieces(va[start], count, *(column[start] for column in rows))


def merge(space: str, parts: Sequence[Pieces], types: MemoryTypes) -> Ranges:
    """All pieces of a space, in any order, as its ranges."""
    p = Pieces(*(np.concatenate([getattr(q, f) for q in (NOTHING, *parts)]) for f in PIECE_FIELDS))
    if (p.va[1:] < p.va[:-1]).any():
        p = p.take(np.argsort(p.va, kind="stable"))
    p = _evened(p, types)
    pa, size = leaf_pa(p.entry, p.level), p.count << LEVEL_SHIFT[p.level]
    memtype = types.of(p.entry, p.level, pa)
    key = p.perm.astype(np.uint32) | memtype.astype(np.uint32) << 3
    key |= p.level.astype(np.uint32) << 8 | p.kind.astype(np.uint32) << 16
    new = np.ones(len(p), bool)
    new[1:] = (key[1:] != key[:-1]) | (p.va[1:] - p.va[:-1] != size[:-1])
    new[1:] |= pa[1:] - pa[:-1] != size[:-1]
    start = np.flatnonzero(new)
    total = np.add.reduceat(size, start) if len(start) else size
    rows = (p.perm[start], memtype[start], p.level[start], p.kind[start])
    return Ranges(space, p.va[start], total, pa[start], *rows)


def _evened(p: Pieces, types: MemoryTypes) -> Pieces:
    """The same, page by page where the pages of a piece may have several memory types."""
    uneven = types.uneven(leaf_pa(p.entry, p.level)) & (p.count > 1)
    if not uneven.any():
        return p
    parts = np.where(uneven, p.count, np.uint64(1)).astype(np.int64)
    row = np.repeat(np.arange(len(p)), parts)
    page = np.arange(len(row)) - np.repeat(np.cumsum(parts) - parts, parts)
    step = page.astype(np.uint64) << np.uint64(12)
    p, uneven = p.take(row), uneven[row]
    p.va, p.entry = p.va + step, p.entry + step
    p.count[uneven] = 1
    return p


NOTHING = Pieces(*(np.zeros(0, t) for t in ("u8", "u8", "u8", "u1", "u1", "u1")))


class Filter:
    """Terms, all of which must hold: rights, types, page sizes, frame kinds; "!" in front negates.

    Words: w x u global uncached; a memory type; 4k 2m 1g; a frame kind, "none" included.
    """

    RIGHTS = {"w": W, "x": X, "u": U}
    SIZES = {"4k": 1, "2m": 2, "1g": 3}

    def __init__(self, text: str, types: MemoryTypes, kinds: dict[int, str]) -> None:
        self.types = types
        self.kinds = kinds
        self.terms = [t.strip().lower() for t in text.split(",") if t.strip()]
        known = self.words(types, kinds)
        for term in self.terms:
            if term.lstrip("!") not in known:
                raise UsageError(f"--filter knows no {term}; it knows {' '.join(known)}")

    @classmethod
    def words(cls, types: MemoryTypes, kinds: dict[int, str]) -> list[str]:
        """All words that can be asked for."""
        plain = [*cls.RIGHTS, "global", "uncached", *cls.SIZES]
        return plain + [t.lower() for t in types.names()] + sorted(set(kinds.values()))

    def chosen(self, leaves: Leaves, kind: np.ndarray) -> np.ndarray:
        """True for each leaf that fulfils all terms."""
        keep = np.ones(len(leaves), bool)
        for term in self.terms:
            found = self._term(term.lstrip("!"), leaves, kind)
            keep &= ~found if term.startswith("!") else found
        return keep

    def _term(self, word: str, leaves: Leaves, kind: np.ndarray) -> np.ndarray:
        if word in self.RIGHTS:
            return (leaves.perm & np.uint8(self.RIGHTS[word])) != 0
        if word in self.SIZES:
            return leaves.level == self.SIZES[word]
        if word == "global":
            return (leaves.entry & np.uint64(1 << 8)) != 0
        wanted = ("uc", "uc-") if word == "uncached" else (word,)
        numbers = [i for i, name in enumerate(NAMES) if name.lower() in wanted]
        if numbers:
            return np.isin(self.types.of(leaves.entry, leaves.level, leaves.pa), numbers)
        return np.isin(kind, [k for k, name in self.kinds.items() if name == word])


# Text and JSON ---------------------------------------------------------------------------------------


def _blocks(count: int) -> Iterator[slice]:
    return (slice(i, min(i + BLOCK, count)) for i in range(0, count, BLOCK))


def _flags(leaves: Leaves) -> list[Column]:
    """The flags of entries as QEMU prints them: XGPDACTUW, "-" for those that are clear. P is PS, which a 4K page has not:
    its bit 7 chooses a memory type."""
    entry = np.where(leaves.level == 1, leaves.entry & ~np.uint64(PS), leaves.entry)
    bits = zip("XGPDACTUW", (63, 8, 7, 6, 5, 4, 3, 2, 1))
    return [
        pick(((entry >> np.uint64(bit)) & np.uint64(1)).astype(np.intp), ["-", letter])
        for letter, bit in bits
    ]


def leaves_text(space: str, leaves: Leaves) -> Iterator[str]:
    """A line per entry: `VA: PA FLAGS SIZE ENTRY SPACE`; as far as FLAGS it is QEMU's `info tlb`."""
    for block in _blocks(len(leaves)):
        part = leaves.take(block)
        yield lines(
            len(part),
            [
                hexadecimal(part.va, 16),
                b": ",
                hexadecimal(part.pa, 16),
                b" ",
                *_flags(part),
                b" ",
                pick(part.level, PAGES),
                b" ",
                hexadecimal(part.entry, 16),
                f" {space}\n".encode(),
            ],
        )


def leaves_json(space: str, leaves: Leaves) -> Iterator[str]:
    """The objects of "leaves", each with a comma behind it."""
    head = f'{{"space":{json.dumps(space)},"va":"0x'.encode()
    for block in _blocks(len(leaves)):
        part = leaves.take(block)
        yield lines(
            len(part),
            [
                head,
                hexadecimal(part.va),
                b'","pa":"0x',
                hexadecimal(part.pa),
                b'","size":',
                pick(part.level, [str(s) for s in SIZES]),
                b',"entry":"0x',
                hexadecimal(part.entry),
                b'"},',
            ],
        )


HEADER = f"{'space':<10} {'address range':<37} {'size':>8} {'physical':<18} perm type page kind\n"


def ranges_text(ranges: Ranges, kinds: dict[int, str]) -> Iterator[str]:
    """A line per range, under HEADER; [first, last) are addresses, the sum can be 2^64."""
    space = f"{ranges.space:<10} ".encode()
    names = _kind_names(kinds, "-")
    for at in _blocks(len(ranges)):
        end = ranges.va[at] + ranges.size[at] - np.uint64(1)
        yield lines(
            len(end),
            [
                space + b"0x",
                hexadecimal(ranges.va[at], 16),
                b"-0x",
                hexadecimal(end, 16),
                b" ",
                each(ranges.size[at], lambda s: f"{size_text(s):>8}", ">"),
                b" 0x",
                hexadecimal(ranges.pa[at], 16),
                b" ",
                pick(ranges.perm[at], PERMS),
                b" ",
                pick(ranges.type[at], [f"{t:<4}" for t in NAMES]),
                b" ",
                pick(ranges.level[at], [f"{p:<4}" for p in PAGES]),
                b" ",
                pick(ranges.kind[at], names),
                b"\n",
            ],
        )


def ranges_json(ranges: Ranges, kinds: dict[int, str]) -> Iterator[str]:
    """The objects of "ranges", each with a comma behind it."""
    head = f'{{"space":{json.dumps(ranges.space)},"va":"0x'.encode()
    quoted = [n if n == "null" else f'"{n}"' for n in _kind_names(kinds, "null")]
    for at in _blocks(len(ranges)):
        yield lines(
            len(ranges.va[at]),
            [
                head,
                hexadecimal(ranges.va[at]),
                b'","size":',
                each(ranges.size[at], str),
                b',"pa":"0x',
                hexadecimal(ranges.pa[at]),
                b'","perm":"',
                pick(ranges.perm[at], PERMS),
                b'","type":"',
                pick(ranges.type[at], NAMES),
                b'","page":"',
                pick(ranges.level[at], PAGES),
                b'","kind":',
                pick(ranges.kind[at], quoted),
                b"},",
            ],
        )


def _kind_names(kinds: dict[int, str], nothing: str) -> list[str]:
    """A name for each number that a kind column can hold."""
    names = [kinds.get(i, "?") for i in range(NO_KIND)]
    return names + [nothing]
