# SPDX-License-Identifier: BSD-2-Clause
# The kernel's frame database, decoded from a stopped guest's memory into arrays that rules and commands read.
"""Database(session): frames, mappings, page-table slots, address spaces, regions.

    db.frames    descriptors.Frames       db.mappings  records.Mappings
    db.slots     slots.Slots              db.spaces    slots.Spaces
    db.reach     reach.Reach              db.rings     rings.Rings
    db.found     what was found to be broken while decoding: findings.Report

Each part is decoded when it is first asked for. Nothing is trusted: any bytes at all end in findings.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from ktf.errors import KtfError, NoGuest, NotYet
from ktf.findings import Report
from ktf.kernel.claims import AttrBits, Claims
from ktf.kernel.cpus import Cpus
from ktf.kernel.descriptors import Frames
from ktf.kernel.granules import Kinds
from ktf.kernel.kernel import VirtualMemory
from ktf.kernel.layout import Layout, Records, enum_names
from ktf.kernel.pools import Pool, PoolForm
from ktf.kernel.reach import Reach
from ktf.kernel.records import Mappings
from ktf.kernel.rings import Rings
from ktf.kernel.session import Session
from ktf.kernel.slots import Slots, Spaces
from ktf.kernel.tree import Tree
from ktf.memory.readers import PAGE
from ktf.x86.paging import Rules

# Macros, which DWARF does not carry: mm/mm.h and mm/table.h have them.
NODE_BLOCK = 1 << 31
SHADOW_TABLE = 1 << 31

# Arena: struct of its objects, name in messages. Indexes count in objects, those of records in words.
POOLS = {
    "ARENA_FRAMES": ("frame_t", "frames"),
    "ARENA_MAPPINGS": ("mapping_t", "mappings"),
    "ARENA_NODES": ("struct frame_node", "nodes"),
    "ARENA_TABLES": ("struct table", "tables"),
    "ARENA_SHADOWS": ("struct shadow", "shadows"),
    "ARENA_SPACES": ("space_t", "spaces"),
}
MAPPING_UNIT = 4


class Database:
    """All that the kernel knows about its memory, as it stands in memory now."""

    def __init__(self, session: Session) -> None:
        if session.kernel is None:
            session.need_paging()  # says it better
        self.session = session
        self.reader = session.reader
        self.kernel = session.need_kernel()
        self.found = Report()
        self.mm: Records = self.kernel.mm
        self.header = self.layout("struct arena_page")
        self.kinds = self.kernel.types.enum("frame_kind")
        self.kind_names = enum_names(self.kinds, "FRAME_")
        # An arena can't hold more pages than this: a sixteenth of RAM, and some for tiny guests.
        self.room = self.reader.ram.bytes() // PAGE // 16 + 1024
        self._pools: dict[str, Pool] = {}

    # --- constants, the root ----------------------------------------------------------------------

    def layout(self, name: str) -> Layout:
        """Of a struct or typedef."""
        return self.kernel.layout(name)

    def constant(self, name: str) -> int:
        """An enumerator."""
        return self.kernel.types.constant(name)

    def number(self, name: str) -> int:
        """A plain member of struct mm."""
        return self.mm.value(name, 0)

    def kind_name(self, kind: int) -> str:
        """Its name; "kind N" for a number that is none."""
        return self.kind_names.get(kind, f"kind {kind}")

    @cached_property
    def vattr(self) -> dict[str, int]:
        """enum vattr: the attributes of mappings."""
        return self.kernel.types.enum("vattr")

    def optional(self, name: str) -> int | None:
        """A plain member of struct mm that not every version has."""
        return self.number(name) if name in self.mm.layout.names else None

    @cached_property
    def rules(self) -> Rules:
        """How this kernel's page tables are to be read: as a CPU that uses them does, and what mm adds."""
        cpus = [self.session.cpu, *self.session.cpus]
        cpu = next((c for c in cpus if not c.paging_problem()), self.session.cpu)
        rules = replace(self.session.rules, levels=cpu.levels, nxe=cpu.nxe)
        rules = replace(rules, page_1g=self.number("page_1g") != 0)
        limit = self.number("phys_limit")
        if rules.phys_bits == 52 and limit & (limit - 1) == 0 and 1 << 32 <= limit <= 1 << 52:
            rules = replace(rules, phys_bits=limit.bit_length() - 1)
        return rules

    @cached_property
    def cpus(self) -> Cpus:
        """By the kernel's numbers, which rules speak of; the session has QEMU's."""
        known = "cpu" in self.mm.layout.names
        online = self.mm["cpu"]["online"][0] != 0 if known else np.zeros(0, bool)
        return Cpus(self.session, self.kernel, online)

    @cached_property
    def regions(self) -> Records:
        """mm.region[], as many as there are."""
        regions = self.mm["region"][0]
        count = self.number("region_count")
        if count > len(regions):
            text = f"mm.region_count is {count}, but mm has room for {len(regions)}"
            self.found.add_blind("A1", text)
        return regions[: min(count, len(regions))]

    # --- arenas -----------------------------------------------------------------------------------

    def pool(self, name: str) -> Pool:
        """An arena, by its enumerator."""
        if name not in self._pools:
            self._pools[name] = self._open(name, self.found)
        return self._pools[name]

    def _open(self, name: str, out: Report, whole: bool = True) -> Pool:
        struct, label = POOLS[name]
        size = self.layout(struct).size
        unit = MAPPING_UNIT if name == "ARENA_MAPPINGS" else size
        row = self.mm["arena"][0][self.constant(name)]
        return Pool(self.kernel, PoolForm(name, label, unit, size), row, self.room, out, whole)

    # --- parts ------------------------------------------------------------------------------------

    @cached_property
    def tree(self) -> Tree:
        """From mfn to descriptor."""
        tree = self._tree(self.pool("ARENA_NODES"), self.pool("ARENA_FRAMES"), self.found)
        tree.judge_free(tree.pool.empty, tree.pool.free)
        return tree

    def _tree(self, nodes: Pool, frames: Pool, out: Report) -> Tree:
        layout = self.layout("struct frame_node")
        high = self.mm["high_node"][0].astype(np.int64).tolist()
        return Tree(nodes, layout, high, NODE_BLOCK, frames.base, out)

    @cached_property
    def object_magic(self) -> int:
        """What the header of a page of objects holds."""
        return self.constant("ARENA_PAGE_OBJECTS")

    @cached_property
    def frames(self) -> Frames:
        """Descriptors of frames."""
        pool = self.pool("ARENA_FRAMES")
        return Frames(*self._descriptors(pool, self.tree), self.found)

    @cached_property
    def kinds_alone(self) -> Kinds:
        """The kinds of the frames, of which all else is left unread; what is broken there the frames tell."""
        out = Report()
        pool = self._open("ARENA_FRAMES", out, whole=False)
        tree = self._tree(self.pool("ARENA_NODES"), pool, out)
        return Kinds(*self._descriptors(pool, tree), out)

    def _descriptors(
        self, pool: Pool, tree: Tree
    ) -> tuple[Pool, Layout, Layout, Tree, int, tuple[int, int]]:
        """What descriptors are decoded from."""
        magics = self.object_magic, self.constant("ARENA_PAGE_EMPTY")
        orders = len(self.mm["order"][0])
        return pool, self.layout("frame_t"), self.header, tree, orders, magics

    @cached_property
    def rings(self) -> Rings:
        """Rings of the orders."""
        return Rings(self.frames, self.mm["order"][0])

    @cached_property
    def mappings(self) -> Mappings:
        """Mapping records."""
        pool = self.pool("ARENA_MAPPINGS")
        layout = self.layout("mapping_t")
        cache = self.mm["records"]
        place = cache.value("head", 0), cache.value("count", 0)
        magic = self.object_magic
        return Mappings(pool, layout, self.header, self.frames, magic, place, self.found)

    @cached_property
    def spaces(self) -> Spaces:
        """Address spaces."""
        pool = self.pool("ARENA_SPACES")
        first, live = self.number("space_list"), self.constant("SPACE_LIVE")
        spaces = Spaces(pool, self.layout("space_t"), self.header, first, live, self.found)
        spaces.objects.judge(self.object_magic, self.found)
        return spaces

    @cached_property
    def slots(self) -> Slots:
        """Page-table slots."""
        pools = self.pool("ARENA_TABLES"), self.pool("ARENA_SHADOWS")
        layouts = self.layout("struct table"), self.layout("struct shadow")
        count = self.number("slot_count")
        return Slots(*pools, layouts, count, self.frames, self.reader, self.found)

    @cached_property
    def reach(self) -> Reach:
        """What hangs on the roots of the address spaces."""
        table = self.kinds["FRAME_TABLE"]
        return Reach(self.reader, self.rules, self.spaces, self.frames, self.slots, table)

    @cached_property
    def claims(self) -> Claims:
        """What the records stand for, entry by entry."""
        live = self.spaces.is_live(self.slots.space)
        return Claims(self.mappings, self.frames, self.slots, self.attrs, self.rules, live)

    @cached_property
    def attrs(self) -> AttrBits:
        """What attributes of mappings make of an entry."""
        return AttrBits(self.vattr)

    # --- what maps and walks ask ------------------------------------------------------------------

    def kind_of_mfns(self, mfns: np.ndarray) -> np.ndarray:
        """Kind of the frame that holds each page, 0 for none (uint8)."""
        return self.kinds_alone.of(mfns)

    def read_kinds(self) -> None:
        """Reads what kind_of_mfns() needs, if it has not been read yet."""
        _ = self.kinds_alone

    def frame_line(self, mfn: int) -> str:
        """The frame that holds that page, in one line; says so if there is none."""
        frame = int(self.frames.find(np.array([mfn]))[0])
        if not frame:
            return f"mfn {mfn:#x}: no frame"
        f = self.frames
        first, order = int(f.mfn[frame]), int(f.order[frame])
        words = [f"frame {first:#x} order {order}", self.kind_name(int(f.kind[frame]))]
        if int(f.kind[frame]) == self.kinds["FRAME_TABLE"]:
            words.append(f"level {int(f.level[frame])}")
        words.append(f"refcount {int(f.refcount[frame])} mapcount {int(f.mapcount[frame])}")
        words.append("free" if f.is_free[frame] else "used")
        return ", ".join(words)


def database_of(session: Session) -> Database | None:
    """The session's, made once; None if the guest has none that can be read (session.notes say why)."""
    if "database" not in session.kept and session.kernel is not None:
        try:
            session.kept["database"] = Database(session)
        except KtfError as e:
            session.notes.append(f"no frame database: {e}")
    found = session.kept.get("database")
    return found if isinstance(found, Database) else None


def need_live(db: Database) -> None:
    """NotYet while mm_init() is still at work: what it builds agrees with itself only at its end.

    Once it has ended neither mm.live nor kernel_cr3 is ever 0, and more CPUs may run: one of them overwritten is
    still a finding. It sets the two one right after the other, and may be stopped between them.
    """
    root = db.kernel.variable_bytes("kernel_cr3")
    if "live" not in db.mm.layout.names or root is None:
        return
    unset = [not db.number("live"), not any(root)]
    more = int.from_bytes(db.kernel.variable_bytes("smp_up") or b"\1", "little") > 1
    if more or not any(unset) or not (all(unset) or _runs(db, "mm_init")):
        return
    raise NotYet(
        "the memory manager is not set up yet: mm_init() is still at work; let it boot further"
    )


def _runs(db: Database, name: str) -> bool:
    """Whether some CPU is inside that function itself."""
    symbol = db.kernel.types.symbol(name)
    if symbol is None:
        return False
    return any(symbol.va <= c.rip < symbol.va + symbol.size for c in db.session.cpus)


def overwritten(session: Session) -> str:
    """If struct mm is mapped but holds nonsense: what is wrong with it. "" if it is sound, or not there yet."""
    if session.types is None or session.kernel is not None or session.cpu.paging_problem():
        return ""
    symbol = session.types.symbol("mm")
    memory = VirtualMemory(session.reader, session.cpu.root, session.rules)
    root = session.types.symbol("kernel_cr3")  # set once the kernel's tables are loaded
    try:
        if (
            symbol is None
            or memory.read(symbol.va, 8) == bytes(8)
            and (root is None or memory.read(root.va, 8) == bytes(8))
        ):
            return ""
        session.need_kernel()
    except NoGuest as e:
        return str(e)
    except KtfError:
        pass  # not mapped: this kernel does not run yet
    return ""
