# SPDX-License-Identifier: BSD-2-Clause
# Every structure of the memory manager, field by field, with where its bits lie in physical memory.
"""fields(db) -> list[Field]: what the bit-flip campaign breaks, from the database of a healthy guest.

A structure's objects are sorted by their use ("frame, free"): the same bit can mean much in one and
nothing in the other. Places are bit addresses: physical address * 8 + number of the bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from ktf.kernel.database import POOLS, Database
from ktf.kernel.layout import TypeDesc
from ktf.kernel.pools import HEADER, Objects
from ktf.memory.readers import PAGE, WORDS

# Of a page-table entry (SDM vol. 3, 4.5): name, first bit, bits.
ENTRY = (
    ("P", 0, 1),
    ("R/W", 1, 1),
    ("U/S", 2, 1),
    ("PWT, PCD", 3, 2),
    ("A", 5, 1),
    ("D", 6, 1),
    ("PS or PAT", 7, 1),
    ("G", 8, 1),
    ("ignored 9-11", 9, 3),
    ("address", 12, 40),
    ("ignored 52-62", 52, 11),
    ("NX", 63, 1),
)
# What else is asked of the symbols.
ALSO = [("struct", "struct percpu"), ("struct", "struct stack_info")]
ALSO += [("symbol", name) for name in ("percpu", "gdt", "tss", "idt", "stacks", "stack_count")]
ALSO += [("symbol", name) for name in ("kernel_cr3", "cpu_cr4", "ap_cr3")]
# Left out of struct percpu: what a CPU is busy with at the moment, which no rule speaks of.
RUNNING = "held noise reported rest unparked probe work padding".split()


@dataclass
class Field:
    """Bits [0, bits) from each of these places are one field of one structure."""

    structure: str
    name: str
    places: np.ndarray
    bits: int

    def key(self) -> str:
        """How the report calls it."""
        return f"{self.structure}: {self.name}"


@dataclass(frozen=True)
class Member:
    """A plain member, however deep; at: its bit positions, several if it is in an array."""

    name: str
    at: tuple[int, ...]
    bits: int


def members(desc: TypeDesc, prefix: str = "", base: int = 0) -> Iterator[Member]:
    """All of a struct, and "padding" for the bits that belong to none."""
    covered = np.zeros(desc.size * 8, bool)
    for field in desc.fields:
        first, bits = field.bitpos, field.bitsize or field.type.size * 8
        covered[first : first + bits] = True
        name, kind = prefix + field.name, field.type
        inner = kind
        while inner.kind == "array" and inner.element is not None:
            inner = inner.element
        steps = [base + first + i * inner.size * 8 for i in range(kind.size // inner.size)]
        if field.bitsize:
            yield Member(name, (base + first,), bits)
        elif inner.kind == "struct":
            for member in members(inner, f"{name}."):
                yield Member(
                    member.name, tuple(s + a for s in steps for a in member.at), member.bits
                )
        else:
            yield Member(name, tuple(steps), inner.size * 8)
    if not covered.all():
        yield Member(f"{prefix}padding", tuple((base + np.flatnonzero(~covered)).tolist()), 1)


class Collector:
    """Gathers the fields of one database."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.found: list[Field] = []

    def add(self, structure: str, name: str, places: np.ndarray, bits: int) -> None:
        """One field, unless there is no such object."""
        if len(places):
            self.found.append(Field(structure, name, places.astype(np.int64), bits))

    def struct(
        self, structure: str, desc: TypeDesc, starts: np.ndarray, skip: Collection[str] = ()
    ) -> None:
        """All members of objects at these physical addresses but those that do not count there."""
        starts = starts.astype(np.int64) * 8
        for member in members(desc):
            if member.name.split(".")[0] not in skip:
                at = np.array(member.at, np.int64)
                self.add(structure, member.name, (starts[:, None] + at).ravel(), member.bits)

    def blank(self, structure: str, name: str, starts: np.ndarray, size: int) -> None:
        """Bytes that hold nothing."""
        self.add(structure, name, starts.astype(np.int64) * 8, size * 8)

    def arena_pa(self, arena: str, byte: np.ndarray) -> np.ndarray:
        """Physical address of bytes of an arena."""
        pool = self.db.pool(arena)
        return pool.mfn[byte // PAGE] * PAGE + byte % PAGE

    def symbol_pa(self, name: str) -> int:
        """Of a variable of the kernel."""
        kernel = self.db.kernel
        symbol = kernel.types.symbol(name)
        pa = kernel.image_pa(symbol.va) if symbol else None
        assert pa is not None, name
        return pa

    # --- page tables --------------------------------------------------------------------------------

    def tables(self) -> None:
        """Entries by the level of their table, and by what they are."""
        slots = self.db.slots
        kernel = slots.space == self.db.spaces.rows[0].index
        for level in range(1, self.db.rules.levels + 1):
            slot = np.flatnonzero(slots.live & (slots.level == level))
            pa = slots.mfn[slot][:, None] * PAGE + np.arange(WORDS) * 8
            entry = slots.content[slot]
            present = (entry & np.uint64(1)) != 0
            large = (entry & np.uint64(0x80)) != 0
            leaf = present & (large if 1 < level < 4 else np.full_like(present, level == 1))
            shared = np.zeros_like(present)
            if level == self.db.rules.levels:
                shared[:, WORDS // 2 :] = ~kernel[slot][:, None]
            name = f"table of level {level}"
            for what, mask in (
                ("leaf", leaf & ~shared),
                ("entry to a table", present & ~leaf & ~shared),
                ("shared entry", present & shared),
            ):
                for bits, first, count in ENTRY:
                    self.add(name, f"{what}: {bits}", pa[mask] * 8 + first, count)
            self.add(name, "entry not present: P", pa[~present] * 8, 1)
            self.add(name, "entry not present: others", pa[~present] * 8 + 1, 63)
        spare = slots.mfn[slots.spare & slots.has_frame]
        self.blank("table in stock", "entries", spare * PAGE, PAGE)

    def slots(self) -> None:
        """struct table and struct shadow."""
        slots, size = self.db.slots, self.db.pool("ARENA_TABLES").size
        desc = self.db.layout("struct table").desc
        never = np.arange(slots.count) == 0
        kinds = {"live": slots.live, "in stock": slots.spare, "free": slots.free, "0": never}
        for name, mask in kinds.items():
            at = np.flatnonzero(mask)
            self.struct(f"slot, {name}", desc, self.arena_pa("ARENA_TABLES", at * size))
            pages = self.arena_pa("ARENA_SHADOWS", (at[:, None] * WORDS + np.arange(WORDS)) * 4)
            if name != "live":
                self.add(f"shadow, slot {name}", "entry", pages.ravel() * 8, 32)
                continue
            used = slots.shadow[at] != 0
            self.add("shadow, slot live", "entry used", pages[used] * 8, 32)
            self.add("shadow, slot live", "entry empty", pages[~used] * 8, 32)
        rest = np.arange(slots.count * size, self.db.pool("ARENA_TABLES").count * PAGE, size)
        self.struct("slot, none yet", desc, self.arena_pa("ARENA_TABLES", rest))
        rest = np.arange(slots.count * 2048, self.db.pool("ARENA_SHADOWS").count * PAGE, 2048)
        self.blank("shadow, none yet", "entries", self.arena_pa("ARENA_SHADOWS", rest), 2048)

    # --- objects ------------------------------------------------------------------------------------

    def frames(self) -> None:
        """Descriptors by what they describe."""
        db, frames = self.db, self.db.frames
        desc = db.layout("frame_t").desc
        heads = frames.heads
        free, table = frames.is_free[heads], frames.kind[heads] == db.kinds["FRAME_TABLE"]
        granule = np.zeros(frames.count, bool)
        for page in frames.granule_page.tolist():
            granule[page * 128 : page * 128 + 128] = True
        rest = granule & ~frames.is_head
        kinds = {
            "used": heads[~free & ~table],
            "page table": heads[table],
            "free": heads[free],
            "head of a ring": np.arange(1, frames.orders + 1),
            "tail": np.flatnonzero(rest & (frames.tail > 0)),
            "page without a frame": np.flatnonzero(rest & (frames.tail == 0)),
        }
        for name, index in kinds.items():
            skip = "epoch" if name == "page table" else "slot"  # they are one word
            self.struct(f"frame, {name}", desc, self.arena_pa("ARENA_FRAMES", index * 32), [skip])
        empty = np.array(frames.empty_pages)
        self.headers("ARENA_FRAMES", "empty page of frames", empty)
        at = self.arena_pa("ARENA_FRAMES", empty * PAGE + HEADER)
        self.blank("empty page of frames", "rest", at, PAGE - HEADER)
        self.objects("ARENA_FRAMES", frames.objects)

    def headers(self, arena: str, name: str, pages: np.ndarray) -> None:
        """struct arena_page."""
        self.struct(name, self.db.header.desc, self.arena_pa(arena, pages * PAGE))

    def objects(self, arena: str, objects: Objects) -> None:
        """Page headers, free objects, and what lies around objects."""
        pool = objects.pool
        self.headers(arena, f"header of a page of {pool.label}", objects.pages)
        free = np.flatnonzero(~objects.used.reshape(-1))
        at = self.arena_pa(arena, objects.index_of(free) * pool.unit)
        name = f"free object of {pool.label}"
        self.blank(name, "before the link", at, 8)
        self.blank(name, "link", at + 8, 4)
        self.blank(name, "behind the link", at + 12, pool.size - 12)
        page = self.arena_pa(arena, objects.pages * PAGE)
        name = f"page of {pool.label}"
        if objects.first_byte > HEADER:
            self.blank(name, "padding before", page + HEADER, objects.first_byte - HEADER)
        end = objects.first_byte + objects.per_page * pool.size
        if end < PAGE:
            self.blank(name, "padding behind", page + end, PAGE - end)

    def mappings(self) -> None:
        """Records in use, in the cache, free."""
        maps = self.db.mappings
        desc = self.db.layout("mapping_t").desc
        self.struct("mapping", desc, self.arena_pa("ARENA_MAPPINGS", maps.index * 4))
        cached = maps.objects.index_of(np.flatnonzero(maps.cached))
        self.struct("mapping in the cache", desc, self.arena_pa("ARENA_MAPPINGS", cached * 4))
        self.objects("ARENA_MAPPINGS", maps.objects)

    def spaces(self) -> None:
        """Address spaces."""
        spaces = self.db.spaces
        desc = self.db.layout("space_t").desc
        index = np.array([s.index for s in spaces.rows])
        for name, some in (("kernel", index[:1]), ("user", index[1:])):
            self.struct(f"space, {name}", desc, self.arena_pa("ARENA_SPACES", some * 128))
        self.objects("ARENA_SPACES", spaces.objects)

    def nodes(self) -> None:
        """The tree of frames."""
        tree = self.db.tree
        size = self.db.layout("struct frame_node").size
        taken, link = np.ones(len(tree.nodes), bool), self.db.pool("ARENA_NODES").empty
        while link:
            taken[link] = False
            link = int(tree.nodes[link][0])
        step = tree.nodes.itemsize
        byte = np.arange(len(tree.nodes))[:, None] * size + np.arange(size // step) * step
        pa = self.arena_pa("ARENA_NODES", byte)
        used = tree.nodes != 0
        self.add("node of the tree", "entry used", pa[taken][used[taken]] * 8, step * 8)
        self.add("node of the tree", "entry empty", pa[taken][~used[taken]] * 8, step * 8)
        self.add("free node", "entries", pa[~taken].ravel() * 8, step * 8)

    # --- roots --------------------------------------------------------------------------------------

    def root(self) -> None:
        """struct mm; its arrays apart by whether an element is in use."""
        db = self.db
        base = self.symbol_pa("mm") * 8
        online = int((db.mm["cpu"]["online"][0] != 0).sum())
        parts = {"region": db.number("region_count"), "cpu": online}
        for member in members(db.layout("struct mm").desc):
            head, at = member.name.split(".")[0], base + np.array(member.at, np.int64)
            structure = f"mm.{head}" if "." in member.name else "mm"
            count = parts.get(head, len(at))
            self.add(structure, member.name, at[:count], member.bits)
            self.add(f"{structure}, not in use", member.name, at[count:], member.bits)

    def cpus(self) -> None:
        """What each CPU has of its own, and what exceptions need."""
        db = self.db
        online = int((db.mm["cpu"]["online"][0] != 0).sum())
        number = np.arange(len(db.mm["cpu"][0]))
        for symbol, struct in (("percpu", "struct percpu"), ("tss", "struct tss")):
            desc = db.layout(struct).desc
            at = self.symbol_pa(symbol) + number * desc.size
            self.struct(symbol, desc, at[:online], RUNNING if symbol == "percpu" else ())
            self.struct(f"{symbol} of a CPU that is not there", desc, at[online:])
        at = self.symbol_pa("gdt") + number * 64
        self.blank("gdt", "descriptors", at[:online], 64)
        self.blank("gdt of a CPU that is not there", "descriptors", at[online:], 64)
        desc = db.layout("struct idt_gate").desc
        self.struct("idt", desc, self.symbol_pa("idt") + np.arange(256) * desc.size)
        desc = db.layout("struct stack_info").desc
        count = int.from_bytes(db.reader.read(self.symbol_pa("stack_count"), 4), "little")
        self.blank("stacks", "stack_count", np.array([self.symbol_pa("stack_count")]), 4)
        symbol_size = db.kernel.types.symbol("stacks")
        assert symbol_size is not None
        at = self.symbol_pa("stacks") + np.arange(symbol_size.size // desc.size) * desc.size
        self.struct("stacks", desc, at[:count])
        self.struct("stacks, not in use", desc, at[count:])

    def others(self) -> None:
        """Roots beside mm."""
        for name in ("kernel_cr3", "ap_cr3", "cpu_cr4"):
            self.blank("root", name, np.array([self.symbol_pa(name)]), 8)


def fields(db: Database) -> list[Field]:
    """All fields."""
    c = Collector(db)
    c.tables()
    c.slots()
    c.frames()
    c.mappings()
    c.nodes()
    c.spaces()
    c.root()
    c.cpus()
    c.others()
    return c.found


def pages(db: Database) -> list[tuple[str, int, int]]:
    """(structure, first, end): every page of physical memory that is a structure's, or the part of it that is."""
    c = Collector(db)
    found = []
    for level in range(1, db.rules.levels + 1):
        at = db.slots.live & (db.slots.level == level)
        found += [(f"table of level {level}", m * PAGE, PAGE) for m in db.slots.mfn[at].tolist()]
    for name in POOLS:
        pool = db.pool(name)
        found += [(f"arena of {pool.label}", m * PAGE, PAGE) for m in pool.mfn.tolist()]
    size = {"mm": db.layout("struct mm").size, "idt": PAGE}
    cpus = int((db.mm["cpu"]["online"][0] != 0).sum())
    for name, struct in (("percpu", "struct percpu"), ("tss", "struct tss")):
        size[name] = cpus * db.layout(struct).size
    size["gdt"] = cpus * 64
    for name, count in size.items():
        first = c.symbol_pa(name)
        for page in range(first // PAGE * PAGE, first + count, PAGE):
            start, end = max(first, page), min(first + count, page + PAGE)
            found.append((name, start, end - start))
    return [(name, first, first + count) for name, first, count in found]
