# SPDX-License-Identifier: BSD-2-Clause
# A whole healthy guest as an array: frames, records, page tables, spaces, made by a small model of the kernel's.
"""Machine: memory that a kernel could have left, to be broken in one place and checked.

    m = Machine()
    m.poke("frame_t", index, "refcount", 0)      # by struct, index in its arena, member
    m.set_entry(space, va, level, entry)         # a page-table entry behind everybody's back
    report, counts = examine(m.session(), RULES)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np

from synthetic_types import ARENAS, ENUMS, KINDS, MM_VA, FakeTypes

from ktf.kernel import Segment
from ktf.layout import Layout, Records
from ktf.readers import MappedReader, RamMap, RamRange
from ktf.session import Cpu, Session

PAGE = 4096
BASE = 0xFFFFFF8000000000
WINDOW = BASE + 0x2000000000
IMAGE = 0xFFFFFFFF80000000
BASES = (
    BASE,
    BASE + 0x1000000000,
    BASE + 0x4000000000,
    BASE + 0x4020000000,
    BASE + 0x3000000000,
    BASE + 0x4030000000,
)
LIMITS = (64 << 30, 8 << 30, 512 << 20, 256 << 20, 16 << 30, 64 << 20)
STRUCTS = ("frame_t", "mapping_t", "struct frame_node", "struct table", "struct shadow", "space_t")
UNITS = (32, 4, 8192, 32, 2048, 128)
LOW = (4, 48, 1, 0, 0, 0)
PAGES = (64, 4, 16, 2, 64, 2)  # of each arena
ORDERS = 19
NX, PS = 1 << 63, 1 << 7
W, X, U, UC = 1, 2, 4, 3 << 3
K = {name: number for number, name in enumerate(KINDS)}
RAM = 0x4000  # pages
MAGIC = 0x314D4D2D46544B00


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


class Machine:
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
        self.types = FakeTypes()
        self.layouts = {n: Layout(self.types.struct(n)) for n in (*STRUCTS, "struct arena_page")}
        self.words = np.zeros((RAM, 512), np.uint64)
        self.blocks: dict[int, Block] = {}
        self.tables: list[Table | None] = [None]
        self.slot_of: dict[tuple[int, int, int], int] = {}
        self.next_page = 0x400
        self.spaces = {1: "kernel", 2: "first", 3: "second"}
        self.arenas = [np.zeros((n, PAGE), np.uint8) for n in PAGES]
        self.arena_mfn: list[list[int]] = []
        self.slot_count = PAGES[4] * 2
        self.partial: dict[str, int] = {}
        self._fill()
        self._free_blocks()
        self._place_blocks()
        self._place_records()
        self._write()

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
        self.nodes: dict[tuple[str, int], int] = {("gib", 0): 0}
        self.node_used = 1
        nodes = self.arenas[2].view(np.uint32).reshape(-1, 2048)
        self.pages_used = 1
        self.objects: list[list[int]] = [list(range(1, ORDERS + 1))]
        self.granules: dict[int, int] = {}
        for block in sorted(self.blocks.values(), key=lambda b: b.mfn):
            gib = self._node(nodes, "gib", block.mfn >> 29)
            if block.order == 18:
                block.index = self._object()
                nodes[gib, block.mfn >> 18 & 2047] = block.index | 1 << 31
                continue
            low = self._node(nodes, "low", block.mfn >> 18)
            nodes[gib, block.mfn >> 18 & 2047] = low
            at = block.mfn >> 7 & 2047
            if block.order >= 7:
                block.index = self._object()
                nodes[low, at : at + (1 << block.order - 7)] = block.index | 1 << 31
            else:
                page = self.granules.setdefault(block.mfn >> 7, self.pages_used)
                self.pages_used += page == self.pages_used
                nodes[low, at] = page * 128
                block.index = page * 128 + (block.mfn & 127)
        free = list(range(self.node_used, len(nodes)))
        for node, following in zip(free, [*free[1:], 0]):
            nodes[node, :2] = following, 0xFFFFFFFF
        self.free_nodes = free

    def _node(self, nodes: np.ndarray, kind: str, key: int) -> int:
        if (kind, key) not in self.nodes:
            self.nodes[kind, key] = self.node_used
            self.node_used += 1
            if kind == "gib":
                top = self.nodes.setdefault(("top", 0), self.node_used)
                self.node_used += top == self.node_used
                nodes[top, key] = self.nodes[kind, key]
        return self.nodes[kind, key]

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

    # --- bytes -------------------------------------------------------------------------------------

    def column(self, struct: str) -> Records:
        """An arena as an array of its struct."""
        raw = self.arenas[STRUCTS.index(struct)]
        return self.layouts[struct].records(raw)

    def _write(self) -> None:
        by_id = {id(m): m.index for m in self.records}
        self._write_frames()
        self._write_records()
        self._write_tables(by_id)
        self._write_spaces()
        for frames, data in zip(self.arena_mfn, self.arenas):
            for mfn, page in zip(frames, data):
                self.words[mfn] = page.view(np.uint64)
        self._write_mm()

    def _write_frames(self) -> None:
        data = self.column("frame_t")
        for b in self.blocks.values():
            values = {"order": b.order, "mfn": b.mfn, "kind": b.kind, "level": b.level}
            counts = {"refcount": b.refcount, "mapcount": b.mapcount, "slot": b.slot}
            first = b.maps[0].index if b.maps else 0
            put(data, b.index, **values, **counts, maps=first)
            for tail in range(1, 1 << b.order if b.order < 7 else 1):
                put(data, b.index + tail, tail=tail)
        self.orders = []
        for order in range(ORDERS):
            mine = [b for b in self.blocks.values() if b.order == order]
            free = [b for b in mine if b.refcount == b.mapcount == 0]
            used = [b for b in mine if b not in free]
            ring = [order + 1, *(b.index for b in [*free, *used])]
            for at, after in zip(ring, [*ring[1:], ring[0]]):
                put(data, at, next=after)
                put(data, after, prev=at)
            refs, maps = sum(b.refcount for b in mine), sum(b.mapcount for b in mine)
            self.orders.append((order + 1, len(free), len(used), refs, maps))
        self._write_frame_pages()

    def _write_frame_pages(self) -> None:
        pages = [row if row == 0 else PAGES[0] - row for row in range(len(self.objects))]
        self._object_pages("frame_t", pages, [len(o) for o in self.objects])
        used = {*self.granules.values(), *pages}
        self.empty = [p for p in range(PAGES[0]) if p not in used]
        self._list("frame_t", self.empty, 0x4652454D)

    def _object_pages(self, struct: str, pages: list[int], used: list[int]) -> None:
        """Headers and lists of free objects; all objects in use stand first in their page."""
        arena = STRUCTS.index(struct)
        size, unit = self.layouts[struct].size, UNITS[arena]
        first = max(size, 32)
        count = (PAGE - first) // size
        for page, taken in zip(pages, used):
            head = self.arenas[arena][page : page + 1, :32]
            header = self.layouts["struct arena_page"].records(head)
            free = [(page * PAGE + first + i * size) // unit for i in range(taken, count)]
            words = self.arenas[arena].reshape(-1).view(np.uint32)
            for at, after in zip(free, [*free[1:], 0]):
                words[at * unit // 4 + 2] = after
            put(header, 0, used=taken, free=free[0] if free else 0, magic=0x4F424A53)
            self.arenas[arena][page, :32] = header.data.view(np.uint8)
        partial = [p for p, t in zip(pages, used) if t < count]
        self.partial[struct] = partial[0] + 1 if partial else 0
        self._list(struct, partial, 0x4F424A53)

    def _list(self, struct: str, pages: list[int], magic: int) -> None:
        arena = STRUCTS.index(struct)
        for before, page, after in zip([-1, *pages], pages, [*pages[1:], -1]):
            header = self.layouts["struct arena_page"].records(self.arenas[arena][page, :32])
            put(header, 0, next=after + 1, prev=before + 1, magic=magic)
            self.arenas[arena][page, :32] = header.data.view(np.uint8)

    def _write_records(self) -> None:
        words = self.arenas[1]
        for b in self.blocks.values():
            around = zip([None, *b.maps], b.maps, [*b.maps[1:], None])
            for before, m, after in around:
                page, byte = divmod(m.index * 4, PAGE)
                data = self.layouts["mapping_t"].records(words[page, byte : byte + 20].copy())
                slot = self._slot_for(m.space, m.va, m.level)
                at = slot * 512 + (m.va >> shift(m.level) & 511)
                links = {
                    "next": after.index if after else 0,
                    "prev": before.index if before else 0,
                }
                put(data, 0, at=at, refs=m.refs, attr=m.attr, level=m.level, **links)
                put(data, 0, offset=m.offset, order=m.order, home=m.order, home_level=m.level)
                words[page, byte : byte + 20] = data.data.view(np.uint8)
        counts = [min(max(len(self.records) - 203 * p, 0), 203) for p in range(PAGES[1])]
        self._object_pages("mapping_t", list(range(PAGES[1])), counts)

    def _write_tables(self, by_id: dict[int, int]) -> None:
        kernel = self.tables[self.roots[1]]
        assert kernel is not None
        for space in (2, 3):
            root = self.tables[self.roots[space]]
            assert root is not None
            root.entries.update({i: e for i, e in kernel.entries.items() if i >= 256})
        data = self.column("struct table")
        shadows = self.arenas[4].view(np.uint32).reshape(-1, 512)
        for slot, table in enumerate(self.tables):
            if table is None:
                continue
            pins = int(table.level == 1 and 0 <= table.va - WINDOW < self.slot_count * PAGE)
            values = {"parent": table.parent, "space": self.space_index(table.space)}
            values.update(index=table.index, used=len(table.entries), pins=pins)
            frame = self.blocks[table.mfn].index
            put(data, slot, va=table.va, frame=frame, level=table.level, **values)
            for number, (entry, shadow) in table.entries.items():
                self.words[table.mfn, number] = entry
                shadows[slot, number] = by_id.get(shadow, shadow)
        self.free = list(range(len(self.tables), self.slot_count))
        for before, slot, after in zip([0, *self.free], self.free, [*self.free[1:], 0]):
            put(data, slot, frame=after, parent=before)

    @staticmethod
    def space_index(number: int) -> int:
        """Where a space's object stands."""
        return number

    def _write_spaces(self) -> None:
        data = self.column("space_t")
        for number, name in self.spaces.items():
            slot = self.roots[number]
            tables = [t for t in self.tables if t is not None and t.space == number]
            mappings = [m for m in self.records if m.space == number]
            root = self.tables[slot]
            assert root is not None
            values = {"next": number + 1 if number < 3 else 0, "prev": number - 1}
            put(data, number, root=slot, id=number - 1, cr3=root.mfn << 12, **values)
            put(data, number, mappings=len(mappings), tables=len(tables), levels=4, live=0xA5)
            data.data["name"][number] = name.encode()
        self._object_pages("space_t", list(range(PAGES[5])), [3, *[0] * (PAGES[5] - 1)])

    def _write_mm(self) -> None:
        layout = Layout(self.types.struct("struct mm"))
        raw = np.zeros(layout.size, np.uint8).view(layout.dtype)
        mm = raw[0]
        partial = [self.partial.get(name, 0) for name in STRUCTS]
        empty = [self.empty[0] + 1, 0, self.free_nodes[0], 0, 0, 0]
        free = [len(self.empty), PAGES[1] * 203 - len(self.records), len(self.free_nodes), 0, 0]
        free.append(PAGES[5] * 31 - 3)
        for i in range(len(ARENAS)):
            size = self.layouts[STRUCTS[i]].size
            row = (
                BASES[i],
                LIMITS[i],
                UNITS[i],
                size,
                PAGES[i],
                1,
                free[i],
                LOW[i],
                partial[i],
                empty[i],
            )
            for name, value in zip(mm["arena"].dtype.names, row):
                mm["arena"][name][i] = value
        for i, counts in enumerate(self.orders):
            for name, value in zip(("head", "free", "used", "refs", "maps"), counts):
                mm["order"][name][i] = value
        values = {"magic": MAGIC, "high_node": self.nodes.get(("top", 0), 0), "space_list": 1}
        values.update(free_slot=self.free[0], slot_count=self.slot_count, free_slots=len(self.free))
        values.update(next_space=3, live=1, root_ready=1, window=WINDOW, phys_limit=1 << 46)
        values.update(levels=4, page_1g=1, current=1, region_count=len(self.REGIONS))
        for name, value in values.items():
            mm[name] = value
        for level in (1, 2):
            for attr in range(64):
                allowed = attr >> 3 < 6 and attr & (W | X) != W | X
                mm["leaf_bits"][level - 1][attr] = leaf(0, level, attr) if allowed else 0
        for i, (first, last, kind) in enumerate(self.REGIONS):
            for name, value in (("start", first << 12), ("end", last << 12), ("kind", K[kind])):
                mm["region"][name][i] = value
        self.mm_layout = layout
        mfn = (MM_VA - IMAGE) >> 12
        self.words.view(np.uint8)[mfn:].reshape(-1)[: layout.size] = raw.view(np.uint8)

    def twin(self) -> Machine:
        """The same guest with memory of its own."""
        other = copy.copy(self)
        other.words = self.words.copy()
        return other

    # --- reading and breaking ----------------------------------------------------------------------

    def session(self, cr3: int | None = None) -> Session:
        """One CPU, in the kernel's space unless told otherwise."""
        flat = self.words.view(np.uint8).reshape(-1)
        reader = MappedReader(RamMap([RamRange(0, RAM * PAGE, "ram")]), [flat], "an array")
        root = self.tables[self.roots[1]]
        assert root is not None
        value = root.mfn << 12 if cr3 is None else cr3
        cpu = Cpu(0, cr0=0x80010011, cr2=0, cr3=value, cr4=0x20, efer=0xD00)
        image = [Segment(IMAGE + 0x210000, 0x210000, 0x30000)]
        return Session([cpu], 0, reader, self.types, image, phys_bits=46)

    def place(self, struct: str, index: int) -> np.ndarray:
        """The bytes of an object, to be written."""
        if struct == "struct mm":
            start = MM_VA - IMAGE
            return self.words.view(np.uint8).reshape(-1)[start : start + self.mm_layout.size]
        arena = STRUCTS.index(struct)
        page, byte = divmod(index * UNITS[arena], PAGE)
        size = self.layouts[struct].size
        if size > PAGE:
            raise ValueError(f"{struct} is larger than a page")
        return self.words[self.arena_mfn[arena][page]].view(np.uint8)[byte : byte + size]

    def poke(self, struct: str, at: int, /, **members: int) -> None:
        """Overwrites members of one object."""
        raw = self.place(struct, at)
        layout = self.mm_layout if struct == "struct mm" else self.layouts[struct]
        data = layout.records(raw.copy())
        put(data, 0, **members)
        raw[:] = data.data.view(np.uint8)

    def peek(self, struct: str, index: int, member: str) -> int:
        """One member of one object."""
        layout = self.mm_layout if struct == "struct mm" else self.layouts[struct]
        return layout.records(self.place(struct, index).copy()).value(member, 0)

    def mm_row(self, member: str, row: int, name: str, value: int | None = None) -> int:
        """A member of mm.arena[row], mm.order[row] or mm.region[row]; written if value is given."""
        raw = self.place("struct mm", 0).view(self.mm_layout.dtype)
        before = int(raw[0][member][name][row])
        if value is not None:
            raw[0][member][name][row] = value
        return before

    def entry_at(self, space: int, va: int, level: int) -> tuple[int, int]:
        """mfn and number of the entry for va in the table of that level."""
        slot = self._slot_for(space, va, level)
        table = self.tables[slot]
        assert table is not None
        return table.mfn, va >> shift(level) & 511

    def slot(self, space: int, va: int, level: int) -> int:
        """Slot of the table of that level for va."""
        return self._slot_for(space, va, level)

    def set_entry(self, space: int, va: int, level: int, entry: int) -> int:
        """Writes an entry behind everybody's back; what it was before."""
        mfn, number = self.entry_at(space, va, level)
        before = int(self.words[mfn, number])
        self.words[mfn, number] = entry
        return before


def put(records: Records, row: int, **members: int) -> None:
    """Writes members, bit-fields included."""
    layout = records.layout
    for name, value in members.items():
        if name not in layout.bits:
            assert name in layout.names, name
            records.data[name][row] = value
            continue
        bits = layout.bits[name]
        assert 0 <= value <= bits.mask, (name, value)
        old = int(records.data[bits.key][row])
        records.data[bits.key][row] = old & ~(bits.mask << bits.shift) | value << bits.shift


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
