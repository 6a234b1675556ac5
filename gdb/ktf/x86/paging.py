# SPDX-License-Identifier: BSD-2-Clause
# x86-64 page tables as data: the bits of entries, the CPU's rules, and what a walk over them finds.
"""Page-table entries, tables, leaves and findings, as arrays.

walk.walk() makes a Walk of all that hangs on a root; trace.trace() follows one address.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Bits of an entry (SDM vol. 3, 4.5).
P, RW, US, PWT, PCD, ACCESSED, DIRTY, PS, GLOBAL = (1 << i for i in range(9))
PAT_LARGE = 1 << 12
NX = 1 << 63
ADDRESS = 0x000F_FFFF_FFFF_F000

# Permissions as this package keeps them: reading is always allowed.
W, U, X = 1, 2, 4
ALL = W | U | X

# What became of a table that an entry points to.
READ, UNREADABLE, LOOP, SKIPPED = range(4)

# Kinds of findings.
FINDINGS = ("unreadable", "loop", "reserved", "ps", "align", "bound")
F_UNREADABLE, F_LOOP, F_RESERVED, F_PS, F_ALIGN, F_BOUND = range(6)


@dataclass(frozen=True)
class Rules:
    """How this guest's CPU reads page tables. phys_bits is MAXPHYADDR."""

    levels: int = 4
    nxe: bool = True
    phys_bits: int = 52
    page_1g: bool = True

    @property
    def va_bits(self) -> int:
        """48 or 57."""
        return 12 + 9 * self.levels

    def canonical(self, linear: np.ndarray) -> np.ndarray:
        """Sign-extends addresses of va_bits bits."""
        up = np.uint64(64 - self.va_bits)
        return ((linear << up).view(np.int64) >> np.int64(up)).view(np.uint64)

    def is_canonical(self, va: int) -> bool:
        """True if the CPU would take that address."""
        return va >> (self.va_bits - 1) in (0, (1 << (65 - self.va_bits)) - 1)

    def reserved(self, level: int, leaf: bool) -> int:
        """The bits that must be 0, apart from PS and the low address bits of large pages."""
        bits = ADDRESS & ~((1 << self.phys_bits) - 1)
        return bits | (0 if self.nxe else NX)

    def low_bits(self, level: int) -> int:
        """The low address bits of a large page's entry, which must be 0."""
        return ((1 << level_shift(level)) - 1) & ADDRESS & ~PAT_LARGE


def level_shift(level: int) -> int:
    """log2 of the bytes that one entry of that level covers."""
    return 3 + 9 * level


@dataclass
class Tables:
    """Every table reference that was met, the root first; one row each, by level from the top.

    entry is the one that points to it (row parent, number index); perm what all levels above and
    that entry allow; state READ, UNREADABLE, LOOP or SKIPPED.
    """

    mfn: np.ndarray
    level: np.ndarray
    parent: np.ndarray
    index: np.ndarray
    va: np.ndarray
    entry: np.ndarray
    perm: np.ndarray
    state: np.ndarray

    def __len__(self) -> int:
        return len(self.mfn)


@dataclass
class Leaves:
    """Every present entry that maps a page, sorted by va.

    table is the row in Tables where it stands, perm what all levels together allow, pa the physical
    address of the page (the CPU's view: reserved and PAT bits taken away).
    """

    va: np.ndarray
    entry: np.ndarray
    level: np.ndarray
    table: np.ndarray
    perm: np.ndarray

    def __len__(self) -> int:
        return len(self.va)

    @property
    def pa(self) -> np.ndarray:
        """Physical address of each page."""
        return leaf_pa(self.entry, self.level)

    @property
    def mfn(self) -> np.ndarray:
        """First frame number of each page."""
        return self.pa >> np.uint64(12)

    @property
    def size(self) -> np.ndarray:
        """Bytes that each entry maps."""
        return np.uint64(1) << LEVEL_SHIFT[self.level]

    @property
    def index(self) -> np.ndarray:
        """Number of each entry in its table."""
        return ((self.va >> LEVEL_SHIFT[self.level]) & np.uint64(511)).astype(np.uint16)

    def take(self, which: np.ndarray | slice) -> "Leaves":
        """Those chosen by a mask, slice or index array."""
        return Leaves(*(getattr(self, f)[which] for f in LEAF_FIELDS))


LEAF_FIELDS = ("va", "entry", "level", "table", "perm")


@dataclass
class Findings:
    """What is wrong with entries, one row each: kind (F_...), address, level and row of the entry's table."""

    kind: np.ndarray
    va: np.ndarray
    level: np.ndarray
    table: np.ndarray
    entry: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)


@dataclass
class Walk:
    """All that walk() found. leaf_count: of leaves, those included that were not kept; notes: one line for each bound
    that ended it early."""

    root: int
    rules: Rules
    tables: Tables
    leaves: Leaves
    findings: Findings
    leaf_count: int
    notes: list[str] = field(default_factory=list)

    @property
    def entries(self) -> int:
        """Present entries: those that map pages and those that point to tables."""
        return self.leaf_count + len(self.tables) - 1

    def describe(self, row: int) -> str:
        """One finding in words."""
        f = self.findings
        level, entry, va = int(f.level[row]), int(f.entry[row]), int(f.va[row])
        table = int(self.tables.mfn[f.table[row]])
        place = f"level {level} entry {entry:#x} in table {table:#x} for {va:#x}"
        target = (entry & ADDRESS) >> 12
        kind = int(f.kind[row])
        if kind == F_RESERVED:
            wrong = entry & self.rules.reserved(level, True)
            return f"{place}: reserved bits {wrong:#x} are set"
        return {
            F_UNREADABLE: f"{place}: table {target:#x} is not in the guest's RAM",
            F_LOOP: f"{place}: table {target:#x} is above itself: a loop",
            F_PS: f"{place}: PS is set, but level {level} has no pages",
            F_ALIGN: f"{place}: large page at {entry & ADDRESS & ~PAT_LARGE:#x} is not aligned",
            F_BOUND: f"{place}: table {target:#x} left out, see the bounds",
        }[kind]


LEVEL_SHIFT = np.array([level_shift(i) for i in range(8)], np.uint64)

# The address bits of leaf entries, by level; those of levels that have none, too, for what broken tables hold.
LEAF_ADDRESS = np.array([ADDRESS & ~((1 << level_shift(i)) - 1) for i in range(8)], np.uint64)


def leaf_pa(entry: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Physical address in leaf entries of these levels."""
    pa = entry & LEAF_ADDRESS[1]
    large = level != 1
    if large.any():
        pa[large] &= LEAF_ADDRESS[level[large]]
    return pa


def entry_perm(entry: np.ndarray, nxe: bool) -> np.ndarray:
    """W, U and X as one entry alone has them."""
    perm = ((entry >> np.uint64(1)) & np.uint64(W | U)).astype(np.uint8)
    if not nxe:
        return perm | np.uint8(X)
    return perm | ((~entry >> np.uint64(63)) << np.uint64(2)).astype(np.uint8)


PAGES = ("", "4K", "2M", "1G")


def perm_text(perm: int) -> str:
    """ "rw-u" and the like: read, write, execute, user."""
    return "r" + "".join(c if perm & bit else "-" for c, bit in (("w", W), ("x", X), ("u", U)))
