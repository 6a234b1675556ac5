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
from dataclasses import replace

import numpy as np

from synthetic_model import (
    BASES,
    IMAGE,
    K,
    ORDERS,
    PAGE,
    PAGES,
    RAM,
    STACKS,
    WINDOW,
    Model,
    W,
    X,
    leaf,
    shift,
)
from synthetic_types import ARENAS, ENUMS, MM_VA, SYMBOLS, FakeTypes

from array_reader import ArrayReader
from ktf.kernel.kernel import Segment
from ktf.kernel.layout import Layout, Records
from ktf.memory.readers import RamMap, RamRange
from ktf.x86.registers import CONTROL, GENERAL, Registers, Segment as Register
from ktf.kernel.session import Session
from ktf.x86.cpu import Cpu

LIMITS = (64 << 30, 8 << 30, 512 << 20, 256 << 20, 16 << 30, 64 << 20)
STRUCTS = ("frame_t", "mapping_t", "struct frame_node", "struct table", "struct shadow", "space_t")
UNITS = (32, 4, 8192, 32, 2048, 128)
LOW = (4, 48, 1, 0, 0, 0)
MAGIC = 0x314D4D2D46544B00
CR0, CR4 = 0x80010011, 0x300820


class Machine(Model):
    """The model's guest as memory, to be read as any guest's and to be broken."""

    def __init__(self) -> None:
        super().__init__()
        self.types = FakeTypes()
        self.layouts = {n: Layout(self.types.struct(n)) for n in (*STRUCTS, "struct arena_page")}
        self.words = np.zeros((RAM, 512), np.uint64)
        self.partial: dict[str, int] = {}
        self._write()

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
        self._write_cpu()

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
            refs = sum(b.refcount for b in mine)
            self.orders.append((order + 1, len(free), len(used), ring[len(free)], refs, 0))
        self._write_frame_pages()

    def _write_frame_pages(self) -> None:
        pages = [row if row == 0 else PAGES[0] - row for row in range(len(self.objects))]
        self._object_pages("frame_t", pages, [len(o) for o in self.objects])
        used = {*self.granules.values(), *pages}
        self.empty = [p for p in range(PAGES[0]) if p not in used]
        self._list("frame_t", self.empty, 0x465245)

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
            put(header, 0, used=taken, free=free[0] if free else 0, magic=0x4F424A)
            self.arenas[arena][page, :32] = header.data.view(np.uint8)
        partial = [p for p, t in zip(pages, used) if t < count]
        self.partial[struct] = partial[0] + 1 if partial else 0
        self._list(struct, partial, 0x4F424A)

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
                put(data, 0, home_odd=bin(m.order).count("1") & 1, home_1g=int(m.level == 3))
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
            root = self.tables[slot]
            assert root is not None
            values = {"next": number + 1 if number < 3 else 0, "prev": number - 1}
            put(data, number, root=slot, id=number - 1, cr3=root.mfn << 12, **values)
            put(data, number, tables=len(tables), levels=4, live=0xA5, cpus=int(number == 1))
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
            for name, value in zip(mm["order"].dtype.names, counts):
                mm["order"][name][i] = value
        values = {"magic": MAGIC, "space_list": 1}
        mm["high_node"][0] = self.nodes.get(("high", 0), 0)
        values.update(free_slot=self.free[0], slot_count=self.slot_count, free_slots=len(self.free))
        values.update(next_space=3, live=1, root_ready=1, window=WINDOW, phys_limit=1 << 46)
        values.update(levels=4, page_1g=1, region_count=len(self.REGIONS))
        for name, value in values.items():
            mm[name] = value
        values = {"frame_limit": PAGES[0] * 128, "boot_pages": len(ARENAS), "wb_kinds": 0xFFFF7FEF}
        for name, value in values.items():
            mm[name] = value
        mm["map_lock"]["rank"], mm["frame_lock"]["rank"] = 1, 2
        mm["cpu"]["online"][0], mm["cpu"]["space"][0] = 1, 1
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

    def symbol(self, name: str) -> np.ndarray:
        """The bytes of a variable besides mm, to be written."""
        va, size = SYMBOLS[name]
        return self.words.view(np.uint8).reshape(-1)[va - IMAGE : va - IMAGE + size]

    def rows(self, name: str, struct: str) -> np.ndarray:
        """The same as structs, to be written."""
        layout = Layout(self.types.struct(struct))
        raw = self.symbol(name)
        rows: np.ndarray = raw[: len(raw) // layout.size * layout.size].view(layout.dtype)
        return rows

    def _write_cpu(self) -> None:
        """What one CPU needs for exceptions, and its memory types."""
        cache = ENUMS["cache_type"]
        pat = [cache[f"CACHE_{n}"] for n in "WB WT UC_MINUS UC WP WC UC_MINUS UC".split()]
        self.symbol("memtype_pat")[:] = pat
        rings = self.symbol("journal_ring").view(np.uint64)
        rings[:] = np.uint64(SYMBOLS["rings"][0]) + np.arange(0, 64 * 512, 512, np.uint64)
        mtrr = self.rows("mtrr", "struct mtrr")[0]
        mtrr["cap"], mtrr["def_type"], mtrr["limit"], mtrr["count"] = 0x508, 0xC06, 1 << 46, 8
        mtrr["fixed"][:2], mtrr["fixed"][3:] = 0x0606060606060606, 0x0505050505050505
        mtrr["base"][0], mtrr["mask"][0] = 0x80000000, (1 << 46) - (1 << 31) | 0x800
        stacks = self.rows("stacks", "struct stack_info")
        for i, (bottom, top) in enumerate(STACKS):
            stacks[i]["bottom"]["v"], stacks[i]["top"]["v"] = bottom, top
            stacks[i]["name"] = f"cpu0{('', ' #DF', ' NMI', ' #MC')[i]}".encode()
        self.symbol("stack_count").view(np.uint32)[0] = len(STACKS)
        self.symbol("cpu_cr4").view(np.uint64)[0] = CR4 & ~0x20
        root = self.tables[self.roots[1]]
        assert root is not None
        self.symbol("kernel_cr3").view(np.uint64)[0] = root.mfn << 12
        self.symbol("smp_up").view(np.uint32)[0] = 1
        self.symbol("ipi_ready")[0] = 1
        gates = self.rows("idt", "struct idt_gate")
        handler = IMAGE + 0x210000 + 16 * np.arange(256, dtype=np.uint64)
        gates["offset_low"] = handler & np.uint64(0xFFFF)
        gates["offset_middle"] = handler >> np.uint64(16) & np.uint64(0xFFFF)
        gates["offset_high"] = handler >> np.uint64(32)
        gates["selector"], gates["type"] = 8, 0x8E
        gates["ist"][[8, 2, 18]] = 1, 2, 3
        tss = SYMBOLS["tss"][0]
        gdt = self.symbol("gdt").view(np.uint64)
        gdt[1:5] = 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF
        gdt[5] = 103 | (tss & 0xFFFFFF) << 16 | 0x8B << 40 | (tss >> 24 & 0xFF) << 56
        gdt[6] = tss >> 32
        own = self.rows("percpu", "struct percpu")[0]
        own["token"], own["others"], own["journal"] = 1, (1 << 64) - 2, rings[0]
        task = self.rows("tss", "struct tss")[0]
        task["ist"][:3], task["io_map"] = [top for _, top in STACKS[1:]], 104

    def twin(self) -> Machine:
        """The same guest with memory of its own."""
        other = copy.copy(self)
        other.words = np.zeros(self.words.shape, np.uint64)  # most of it is never touched
        used = np.flatnonzero(self.words.any(axis=1))
        other.words[used] = self.words[used]
        return other

    # --- reading and breaking ----------------------------------------------------------------------

    def session(self, cr3: int | None = None, **registers: int) -> Session:
        """One CPU, in the kernel's space unless told otherwise; registers of Cpu and CpuTables."""
        flat = self.words.view(np.uint8).reshape(-1)
        reader = ArrayReader(RamMap([RamRange(0, RAM * PAGE, "ram")]), [flat])
        root = self.tables[self.roots[1]]
        assert root is not None
        value = root.mfn << 12 if cr3 is None else cr3
        cpu = Cpu(0, cr0=CR0, cr2=0, cr3=value, cr4=CR4, efer=0xD00, rsp=STACKS[0][1] - 64)
        cpu = replace(cpu, **{f: v for f, v in registers.items() if hasattr(cpu, f)})
        image = [Segment(IMAGE + 0x210000, 0x210000, 0x30000)]
        own = self._registers(cpu, registers)
        return Session([cpu], 0, reader, self.types, image, 46, lambda: [own])

    @staticmethod
    def _registers(cpu: Cpu, changed: dict[str, int]) -> Registers:
        """Those of the CPU; changed: "idt" and the like for bases, "idt_limit", "task", "cs" and so on for selectors, "user"."""
        limits = {"gdt": 63, "idt": 4095, "tss": 103}
        user = changed.get("user", 0)
        selectors = {"tss": "task", "cs": "cs", "ss": "ss", "ldt": "ldt"}
        usual = {"tss": 0x28, "cs": 0x23 if user else 8, "ss": 0x1B if user else 0x10}
        bases = {**{n: SYMBOLS[n][0] for n in limits}, "gs": SYMBOLS["percpu"][0]}
        segments = {
            "tr"
            if n == "tss"
            else n: Register(
                changed.get(selectors.get(n, ""), usual.get(n, 0)),
                changed.get(n if n in bases else "", bases.get(n, 0)),
                changed.get(f"{n}_limit", limits.get(n, 0)),
                0,
            )
            for n in ("cs", "ss", "gs", "ldt", "gdt", "idt", "tss")
        }
        general = {**dict.fromkeys(GENERAL, 0), "rsp": cpu.rsp, "rflags": changed.get("rflags", 2)}
        return Registers(0, general, segments, dict.fromkeys(CONTROL, 0), cpu.efer)

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

    def mm_struct(self, member: str, **members: int) -> None:
        """Overwrites members of a struct in mm."""
        raw = self.place("struct mm", 0).view(self.mm_layout.dtype)
        for name, value in members.items():
            raw[0][member][name] = value

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
