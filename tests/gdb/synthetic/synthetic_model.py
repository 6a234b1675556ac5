# SPDX-License-Identifier: BSD-2-Clause
# A small model of the kernel's memory manager: which frames, records, page tables and spaces a healthy guest has.
"""Model: what is where. synthetic.Machine turns it into bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from synthetic_types import ENUMS, KINDS

PAGE = 4096
BASE = 0xFFFFFF8000000000
WINDOW = BASE + 0x2000000000
IMAGE = 0xFFFFFFFF80000000
BASES = (  # of the arenas
    BASE,
    BASE + 0x1000000000,
    BASE + 0x4000000000,
    BASE + 0x4020000000,
    BASE + 0x3000000000,
    BASE + 0x4030000000,
)
PAGES = (64, 4, 16, 2, 64, 2)  # of each arena
ORDERS = 19
NX, PS = 1 << 63, 1 << 7
W, X, U, UC = 1, 2, 4, 3 << 3
K = {name: number for number, name in enumerate(KINDS)}
RAM = 0x4000  # pages
STACK_WINDOW = BASE + 0x4034000000
STACKS = tuple(  # of one CPU: its own, and those of three exceptions
    (STACK_WINDOW + at * PAGE, STACK_WINDOW + (at + count) * PAGE)
    for at, count in ((1, 4), (7, 2), (11, 2), (15, 2))
)


def shift(level: int) -> int:
    """log2 of what an entry covers."""
    return 3 + 9 * level


def canonical(va: int) -> int:
    """48 bits, sign-extended."""
    va &= (1 << 48) - 1
    return va | (0xFFFF << 48 if va >> 47 else 0)


@dataclass
class Mapping:
    """A record. index is where it stands in its arena."""

    space: int
    va: int
    frame: int
    offset: int
    order: int
    level: int
    attr: int
    refs: int = 1
    index: int = 0


@dataclass
class Block:
    """A frame."""

    mfn: int
    order: int
    kind: int
    refcount: int = 1
    level: int = 0
    slot: int = 0
    maps: list[Mapping] = field(default_factory=list)
    index: int = 0

    @property
    def mapcount(self) -> int:
        """The sum of the refs."""
        return sum(m.refs for m in self.maps)


@dataclass
class Table:
    """A page table, by its slot."""

    space: int
    level: int
    va: int
    mfn: int
    parent: int = 0
    index: int = 0
    entries: dict[int, tuple[int, int]] = field(default_factory=dict)  # number: entry, shadow


class Model:
    """A guest of 64 MiB with two user spaces, pages of each size, aliases, parts, a device."""

    REGIONS = (
        (0x1, 0x9F, "LOW"),
        (0x9F, 0x100, "RESERVED"),
        (0x100, 0x200, "AVAILABLE"),
        (0x200, 0x210, "IMAGE"),
        (0x210, 0x220, "TEXT"),
        (0x220, 0x228, "RODATA"),
        (0x228, 0x22C, "DATA"),
        (0x22C, 0x240, "BSS"),
        (0x240, 0x3FE0, "AVAILABLE"),
        (0x3FE0, 0x3FF0, "ACPI"),
        (0x3FF0, 0x4000, "NVS"),
        (0xFFFC0, 0x100000, "RESERVED"),
        (0x340000, 0x380000, "RESERVED"),
        (0x20000000, 0x20000001, "RESERVED"),
    )

    def __init__(self) -> None:
        self.blocks: dict[int, Block] = {}
        self.tables: list[Table | None] = [None]
        self.slot_of: dict[tuple[int, int, int], int] = {}
        self.next_page = 0x400
        self.spaces = {1: "kernel", 2: "first", 3: "second"}
        self.arenas = [np.zeros((n, PAGE), np.uint8) for n in PAGES]
        self.arena_mfn: list[list[int]] = []
        self.slot_count = PAGES[4] * 2
        self._fill()
        self._free_blocks()
        self._place_blocks()
        self._place_records()

    # --- the model ---------------------------------------------------------------------------------

    def take(self, kind: str, order: int = 0) -> Block:
        """A block of available memory, in use."""
        size = 1 << order
        mfn = -(-self.next_page // size) * size
        self.next_page = mfn + size
        self.blocks[mfn] = Block(mfn, order, K[kind])
        return self.blocks[mfn]

    def _fill(self) -> None:
        self.roots = {s: self._table(s, 4, 0) for s in self.spaces}
        for slot in range(0, self.slot_count, 512):  # the kernel keeps these, even when empty
            self._slot_for(1, WINDOW + slot * PAGE, 1)
        for base, count in zip(BASES, PAGES):
            frames = [self.take("METADATA").mfn for _ in range(count)]
            self.arena_mfn.append(frames)
            for page, mfn in enumerate(frames):
                self.map(1, base + page * PAGE, mfn, W)
        self._reserved()
        for first, last, attr in ((0x210, 0x220, X), (0x220, 0x228, 0), (0x228, 0x240, W)):
            for mfn, order in aligned(first, last):
                if mfn in self.blocks:
                    self.map(1, IMAGE + mfn * PAGE, mfn, attr)
        for bottom, top in STACKS:
            for va in range(bottom, top, PAGE):
                self.map(1, va, self.take("AVAILABLE").mfn, W)
        self._clients()
        for slot in range(1, len(self.tables)):
            assert self.tables[slot] is not None

    def _reserved(self) -> None:
        for first, last, kind in self.REGIONS:
            if kind != "AVAILABLE":
                for mfn, order in aligned(first, last):
                    self.blocks[mfn] = Block(mfn, order, K[kind])
        self.blocks[0xFEE00] = Block(0xFEE00, 0, K["DEVICE"])
        self.map(1, BASE + 0x403C000000, 0xFEE00, W | UC)

    def _clients(self) -> None:
        va = 0xFFFFC00000000000
        self.page = self.take("AVAILABLE")
        self.alias = self.take("AVAILABLE")
        self.large = self.take("AVAILABLE", 10)
        self.parts = self.take("AVAILABLE", 4)
        self.shared = self.take("AVAILABLE", 3)
        self.orphan = self.take("AVAILABLE")
        self.map(1, va, self.page.mfn, W)
        self.map(1, va + 0x1000, self.alias.mfn, W).refs = 3
        self.map(1, va + 0x2000, self.alias.mfn, 0)
        self.map(2, 0x400000, self.alias.mfn, U)
        self.map(1, va + (1 << 30), self.large.mfn, W, level=2)
        self.map(1, va + (2 << 21) - (4 << 12), self.shared.mfn, 0)  # over the end of a table
        self.map(2, 0x40000000, self.parts.mfn, U | W, offset=4, order=2)
        self.map(3, 0x40000000, self.parts.mfn, U, offset=0, order=4)
        self.map(3, 0x7F0000000000, self.large.mfn, U, level=2)
        self.orphan.refcount = 0
        self.map(1, va + 0x5000, self.orphan.mfn, W)

    def _table(self, space: int, level: int, va: int, parent: int = 0) -> int:
        block = self.take("TABLE")
        slot = len(self.tables)
        table = Table(space, level, va, block.mfn, parent)
        self.tables.append(table)
        self.slot_of[space, level, va] = slot
        block.level, block.slot = level, slot
        if parent:
            above = self.tables[parent]
            assert above is not None
            table.index = va >> shift(level + 1) & 511
            user = U if space != 1 else 0
            above.entries[table.index] = (block.mfn << 12 | 3 | user, slot | 1 << 31)
        return slot

    def _slot_for(self, space: int, va: int, level: int) -> int:
        """The table of that level for va, made with all above it."""
        slot = self.roots[space] if hasattr(self, "roots") else 0
        for at in range(3, level - 1, -1):
            key = canonical(va >> shift(at + 1) << shift(at + 1))
            slot = self.slot_of.get((space, at, key)) or self._made(space, at, key, slot)
        return slot

    def _made(self, space: int, level: int, va: int, parent: int) -> int:
        slot = self._table(space, level, va, parent)
        self.map(1, WINDOW + slot * PAGE, self.tables[slot].mfn, W)  # type: ignore[union-attr]
        return slot

    def map(
        self,
        space: int,
        va: int,
        mfn: int,
        attr: int,
        offset: int = 0,
        order: int | None = None,
        level: int = 1,
    ) -> Mapping:
        """Maps a block or a part of it."""
        block = self.blocks[mfn]
        order = block.order if order is None else order
        record = Mapping(space, va, mfn, offset, order, level, attr)
        block.maps.insert(0, record)
        step = 1 << 9 * (level - 1)
        for i in range((1 << order) // step):
            here = va + (i << shift(level))
            slot = self._slot_for(space, here, level)
            entry = leaf(mfn + offset + i * step, level, attr)
            self.tables[slot].entries[here >> shift(level) & 511] = (entry, id(record))  # type: ignore[union-attr]
        return record

    def _free_blocks(self) -> None:
        """What nobody took of the available regions, in the largest blocks."""
        taken = np.zeros(RAM, bool)
        for b in self.blocks.values():
            taken[b.mfn : b.mfn + (1 << b.order)] = True
        # The roots' own window pages: mapped last, as their tables come first.
        for space, slot in self.roots.items():
            self.map(1, WINDOW + slot * PAGE, self.tables[slot].mfn, W)  # type: ignore[union-attr]
        for b in self.blocks.values():
            taken[b.mfn : b.mfn + (1 << b.order)] = True
        for first, last, kind in self.REGIONS:
            if kind == "AVAILABLE":
                edges = np.flatnonzero(np.diff(taken[first:last].astype(int), prepend=1, append=1))
                for start, end in zip(edges[::2].tolist(), edges[1::2].tolist()):
                    for mfn, order in aligned(first + start, first + end):
                        self.blocks[mfn] = Block(mfn, order, K["AVAILABLE"], 0)

    # --- descriptors, tree, rings ------------------------------------------------------------------

    def _place_blocks(self) -> None:
        """Gives each block its descriptor, and the tree its entries."""
        self.nodes: dict[tuple[str, int], int] = {}
        self.node_used = 2  # the root
        nodes = self.arenas[2].view(np.uint64).reshape(-1, 1024)
        self.pages_used = 1
        self.objects: list[list[int]] = [list(range(1, ORDERS + 1))]
        self.granules: dict[int, int] = {}
        for block in sorted(self.blocks.values(), key=lambda b: b.mfn):
            node, at = self._upper(nodes, block.mfn >> 17)
            if block.order >= 17:
                block.index = self._object()
                nodes[node, at : at + (1 << block.order - 17)] = block.index
                continue
            low = self._node(("low", block.mfn >> 17))
            nodes[node, at] = BASES[2] + low * 8192 - 8 * (block.mfn >> 17 << 10)
            at = block.mfn >> 7 & 1023
            if block.order >= 7:
                block.index = self._object()
                nodes[low, at : at + (1 << block.order - 7)] = block.index
            else:
                page = self.granules.setdefault(block.mfn >> 7, self.pages_used)
                self.pages_used += page == self.pages_used
                nodes[low, at] = BASES[0] + page * 4096 - 32 * (block.mfn >> 7 << 7)
                block.index = page * 128 + (block.mfn & 127)
        free = list(range(self.node_used, len(nodes)))
        for node, following in zip(free, [*free[1:], 0]):
            nodes[node, :2] = following, 0xFFFFFFFF
        self.free_nodes = free

    def _node(self, key: tuple[str, int]) -> int:
        new = self.nodes.setdefault(key, self.node_used)
        self.node_used += new == self.node_used
        return new

    def _upper(self, nodes: np.ndarray, span: int) -> tuple[int, int]:
        """The node of the entry for that 512 MiB, and its number there."""
        if span < 2048:
            return span >> 10, span & 1023
        high = self._node(("high", span >> 20))
        node = self._node(("upper", span >> 10))
        nodes[high, span >> 10 & 1023] = BASES[2] + node * 8192 - 8 * (span >> 10 << 10)
        return node, span & 1023

    def _object(self) -> int:
        """A descriptor for a block of order 7 and up."""
        if len(self.objects[-1]) == 127:
            self.objects.append([])
        row = len(self.objects) - 1
        page = row if row == 0 else PAGES[0] - row
        index = page * 128 + 1 + len(self.objects[-1])
        self.objects[-1].append(index)
        return index

    def _place_records(self) -> None:
        """Gives records their indexes, in the order of the frames."""
        self.records = [m for b in self.blocks.values() for m in b.maps]
        for number, record in enumerate(self.records):
            record.index = number // 203 * 1024 + 8 + number % 203 * 5


def leaf(mfn: int, level: int, attr: int) -> int:
    """The entry that maps mfn."""
    kind = attr >> 3
    entry = mfn << 12 | 1 | (kind & 3) << 3 | (0 if attr & X else NX)
    entry |= (2 if attr & W else 0) | (4 if attr & U else 0) | (PS if level > 1 else 0)
    return entry | ((1 << 12 if level > 1 else PS) if kind & 4 else 0)


def aligned(first: int, last: int) -> list[tuple[int, int]]:
    """[first, last) in the largest naturally aligned blocks: (mfn, order)."""
    found = []
    while first < last:
        order = 18
        while first % (1 << order) or first + (1 << order) > last:
            order -= 1
        found.append((first, order))
        first += 1 << order
    return found


assert ENUMS["vattr"]["VATTR_W"] == W and ENUMS["vattr"]["VATTR_X"] == X
