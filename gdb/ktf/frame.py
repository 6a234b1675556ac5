# SPDX-License-Identifier: BSD-2-Clause
# One frame, with everything that is known of it; and all frames by order and kind.
"""What ktf-frame shows, as values and as text; pure.

    Summary(db)                  blocks by order and kind, free and used
    Block(db, index)             the block of a descriptor: counts, mappings, buddy
    locate(db, value, how)       the page that a number means
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .chains import NONE
from .database import Database
from .errors import KtfError
from .maps import PAGES, perm_text
from .memtype import pat_names
from .paging import U, W, X
from .readers import PAGE
from .rules_map import Regions
from .text import size_text
from .trace import trace
from .tree import GIB_ORDER

MAPPINGS_SHOWN = 200


# --- all frames --------------------------------------------------------------------------------------


class Summary:
    """Blocks by order and by kind."""

    def __init__(self, db: Database) -> None:
        self.db = db
        frames = db.frames
        heads = frames.heads
        self.order = frames.order[heads].astype(np.int64)
        self.kind = frames.kind[heads].astype(np.int64)
        self.free = frames.is_free[heads]
        self.pages = frames.sizes

    def orders(self) -> list[dict[str, int]]:
        """The contract's list."""
        count = max(len(self.db.mm["order"][0]), int(self.order.max(initial=0)) + 1)
        free = np.bincount(self.order[self.free], minlength=count)
        used = np.bincount(self.order[~self.free], minlength=count)
        return [
            {"order": order, "free": int(free[order]), "used": int(used[order])}
            for order in range(count)
        ]

    def kinds(self) -> list[dict[str, Any]]:
        """Blocks and pages of each kind that there is."""
        found = []
        for kind in np.unique(self.kind).tolist():
            mine = self.kind == kind
            free, used = mine & self.free, mine & ~self.free
            found.append(
                {
                    "kind": self.db.kind_name(kind),
                    "free": int(free.sum()),
                    "used": int(used.sum()),
                    "free_pages": int(self.pages[free].sum()),
                    "used_pages": int(self.pages[used].sum()),
                }
            )
        return found

    def lines(self) -> Iterator[str]:
        """Two tables."""
        yield "order   size      free      used  free pages"
        for row in self.orders():
            order, free = row["order"], row["free"]
            if free or row["used"]:
                size = size_text(PAGE << order)
                yield f"{order:5} {size:>6} {free:9} {row['used']:9} {free << order:11}"
        yield ""
        yield "kind            blocks      used       pages     size"
        for kind in self.kinds():
            pages = kind["free_pages"] + kind["used_pages"]
            blocks = kind["free"] + kind["used"]
            size = size_text(pages * PAGE)
            yield f"{kind['kind']:12} {blocks:9} {kind['used']:9} {pages:11} {size:>8}"
        free = int(self.pages[self.free].sum())
        yield (
            f"{len(self.order)} frames, {int(self.free.sum())} free: {free} pages, "
            f"{size_text(free * PAGE)}"
        )


def free_blocks(db: Database) -> Iterator[tuple[int, int]]:
    """Order and first mfn of every free block, in the order in which they would be handed out."""
    rings, frames = db.rings, db.frames
    after = rings.after.tolist()
    for order, mark in enumerate(rings.marks.tolist()):
        found: list[int] = []
        at = after[mark]
        while at != NONE and not rings.is_mark[at] and len(found) < len(after):
            index = int(rings.nodes[at])
            if not frames.is_free[index]:
                break  # used ones follow
            found.append(int(frames.mfn[index]))
            at = after[at]
        for mfn in reversed(found):  # the last free one goes first
            yield order, mfn


# --- which page is meant -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A page, and how the number given was understood."""

    mfn: int
    taken: str


def locate(db: Database, value: int, how: str = "") -> Place:
    """The page that a number means. how: "mfn", "pa", "va", "" to judge by the value."""
    limit = 1 << db.rules.phys_bits
    if how == "mfn":
        if value >= 1 << 40:
            raise KtfError(f"{value:#x} is no frame number: they end at 0xffffffffff")
        return Place(value, "frame number")
    if how == "pa":
        if value >= 1 << 52:
            raise KtfError(f"{value:#x} is no physical address: they end at {(1 << 52) - 1:#x}")
        return Place(value >> 12, "physical address")
    if how == "va":
        return _by_va(db, value)
    pool = db.pool("ARENA_FRAMES")
    if pool.base <= value < pool.base + pool.pages * PAGE:
        return _by_pointer(db, value)
    maps = db.pool("ARENA_MAPPINGS")
    if maps.base <= value < maps.base + maps.pages * PAGE:
        return _by_record(db, value)
    if value >= limit:
        return _by_va(db, value)
    if value % PAGE == 0 and value:
        return Place(value >> 12, "physical address (--mfn or --va if it is not)")
    if value < limit >> 12 and db.frames.find(np.array([value]))[0]:
        return Place(value, "frame number (--pa or --va if it is not)")
    return Place(value >> 12, "physical address (--mfn or --va if it is not)")


def _by_pointer(db: Database, value: int) -> Place:
    """A pointer to a descriptor."""
    pool, frames = db.pool("ARENA_FRAMES"), db.frames
    index, inside = divmod(value - pool.base, pool.unit)
    if index >= frames.count or not pool.ok[index * pool.unit // PAGE]:
        raise KtfError(
            f"{value:#x} points into the frame descriptors, to a page that can't be read"
        )
    name = f"frame_t * (descriptor {index:#x})"
    if inside:
        name = f"pointer {inside} bytes into descriptor {index:#x}"
    if frames.is_head[index]:
        at = np.flatnonzero(frames.heads == index)
        return Place(int(frames.place[at[0]]), name)
    head = index - int(frames.tail[index])
    if frames.tail[index] and head > 0 and frames.is_head[head]:
        return Place(int(frames.mfn[head]) + int(frames.tail[index]), f"{name}, a tail")
    what = "not in use"
    if 0 < index <= frames.orders:
        what = f"the head of the ring of order {index - 1}"
    raise KtfError(f"{value:#x} is descriptor {index:#x}, which is no frame: {what}")


def _by_record(db: Database, value: int) -> Place:
    """A pointer to a mapping record."""
    pool, maps = db.pool("ARENA_MAPPINGS"), db.mappings
    index = (value - pool.base) // pool.unit
    row = int(maps.row_of(np.array([index]))[0])
    if row == NONE:
        raise KtfError(f"{value:#x} points into the mapping records, but to none in use")
    owner = int(maps.owner[row])
    if not owner:
        raise KtfError(f"{value:#x} is {maps.name(row)}, which is on no frame's list")
    mfn = int(db.frames.mfn[owner]) + int(maps.offset[row])
    return Place(mfn, f"mapping_t * ({maps.name(row)})")


def _by_va(db: Database, va: int) -> Place:
    """A virtual address: of the kernel, or of the space that the selected CPU uses."""
    session, rules = db.session, db.rules
    if va >> 63 and db.spaces.rows:
        root, name = db.spaces.rows[0].mfn, db.spaces.rows[0].name
    else:
        root = session.cpu.root
        known = [s.name for s in db.spaces.rows if s.mfn == root]
        name = known[0] if known else "cr3"
    found = trace(db.reader, root, rules, va)
    if found.pa is None:
        step = found.steps[-1]
        where = "" if not rules.is_canonical(va) else f" (level {step.level}, entry {step.index})"
        raise KtfError(f"{va:#x} is not mapped in {name}: {found.problem}{where}; see ktf-maps")
    return Place(found.pa >> 12, f"address in {name}, mapped to {found.pa:#x}")


# --- one block ---------------------------------------------------------------------------------------


class Block:
    """The block of one descriptor."""

    def __init__(self, db: Database, index: int) -> None:
        self.db = db
        self.index = index
        frames = db.frames
        self.mfn = int(frames.mfn[index])
        self.order = int(frames.order[index])
        self.kind_number = int(frames.kind[index])
        self.kind = db.kind_name(self.kind_number)
        self.level = int(frames.level[index])
        self.refcount = int(frames.refcount[index])
        self.mapcount = int(frames.mapcount[index])
        self.free = bool(frames.is_free[index])
        self.pages = 1 << min(self.order, GIB_ORDER)
        self.is_table = self.kind_number == db.kinds["FRAME_TABLE"]
        self.records = db.mappings.of_frame(index)

    def values(self) -> dict[str, Any]:
        """The contract's object, and some more."""
        values: dict[str, Any] = {
            "mfn": f"{self.mfn:#x}",
            "order": self.order,
            "kind": self.kind,
            "level": self.level if self.is_table else None,
            "refcount": self.refcount,
            "mapcount": self.mapcount,
            "free": self.free,
            "descriptor": f"{self.db.pool('ARENA_FRAMES').va(self.index):#x}",
            "mappings": [self._mapping(row) for row in self.records.tolist()],
            "unrecorded": [self._leaf(i) for i in self.unrecorded()],
            "merge": self.merge(),
        }
        return values

    def _mapping(self, row: int) -> dict[str, Any]:
        maps, slots = self.db.mappings, self.db.slots
        at = int(maps.at[row])
        slot = at >> 9
        attr = int(maps.attr[row])
        placed = slot < slots.count and bool(slots.live[slot])
        va = None
        if placed:
            place = slots.entry_va(np.array([slot]), np.array([at & 511]), self.db.rules)
            va = f"{int(place[0]):#x}"
        return {
            "space": self.db.spaces.name_of(int(slots.space[slot])) if placed else None,
            "va": va,
            "perm": perm_text(self._perm(attr)),
            "type": self._types()[attr >> self.db.vattr["VATTR_TYPE_SHIFT"] & 7],
            "page": PAGES[int(maps.level[row])],
            "refs": int(maps.refs[row]),
            "offset": int(maps.offset[row]),
            "pages": 1 << min(int(maps.order[row]), GIB_ORDER),
            "record": f"{int(maps.index[row]):#x}",
            "problem": self._problem(row),
        }

    def _perm(self, attr: int) -> int:
        vattr = self.db.vattr
        bits = ((vattr["VATTR_W"], W), (vattr["VATTR_X"], X), (vattr["VATTR_U"], U))
        return sum(mine for theirs, mine in bits if attr & theirs)

    def _types(self) -> tuple[str, ...]:
        return pat_names(self.db.kernel.types)

    def _problem(self, row: int) -> str | None:
        """What is wrong with the entries of a record."""
        claims = self.db.claims
        if claims.no_table[row] or claims.no_space[row]:
            return "its page table is gone (P7)"
        if claims.other_level[row] or claims.bad_shape[row]:
            return "its numbers make no sense (P3)"
        mine = np.flatnonzero((claims.record == row) & claims.differs)
        if not len(mine):
            return None
        have, want = int(claims.have[mine[0]]), int(claims.want[mine[0]])
        return f"entry is {have:#x}, should be {want:#x} ({len(mine)} wrong; P3, P4, P5)"

    def unrecorded(self) -> list[int]:
        """Leaves that map some page of the block without a record on its list."""
        reach, claims, maps = self.db.reach, self.db.claims, self.db.mappings
        first = reach.leaf_mfn
        inside = (first < self.mfn + self.pages) & (first + reach.leaf_pages > self.mfn)
        some = np.flatnonzero(inside)
        row = claims.record_at[reach.leaf_at[some]].astype(np.int64)
        mine = (row != NONE) & (maps.owner[row] == self.index if len(maps) else False)
        return [int(i) for i in some[~mine]]

    def _leaf(self, i: int) -> dict[str, Any]:
        reach = self.db.reach
        return {
            "space": reach.name(int(reach.leaves.table[i])),
            "va": f"{int(reach.leaves.va[i]):#x}",
            "perm": perm_text(int(reach.leaves.perm[i])),
            "page": PAGES[int(reach.leaves.level[i])],
            "entry": f"{int(reach.leaves.entry[i]):#x}",
        }

    def merge(self) -> str:
        """Why the block does not merge with its buddy."""
        frames, kinds = self.db.frames, self.db.kinds
        if self.order >= GIB_ORDER:
            return "it has the largest order"
        if self.kind_number != kinds["FRAME_AVAILABLE"]:
            return f"only available frames merge, this one is of kind {self.kind}"
        place = self.mfn ^ self.pages
        buddy = int(frames.find(np.array([place]))[0])
        if not buddy:
            return f"its buddy {place:#x} is in no frame"
        other = Block.short(self.db, buddy)
        if int(frames.mfn[buddy]) != place or int(frames.order[buddy]) != self.order:
            why = f"its buddy {place:#x} is not one block of order {self.order}: {other}"
        elif int(frames.kind[buddy]) != kinds["FRAME_AVAILABLE"]:
            why = f"its buddy is no available memory: {other}"
        elif not frames.is_free[buddy]:
            why = f"its buddy is in use: {other}"
        elif self.free:
            return f"BROKEN (A5): both it and its buddy are free, should be one block: {other}"
        else:
            why = f"its buddy is free: {other}"
        return why if self.free else f"it is in use; {why}"

    @staticmethod
    def short(db: Database, index: int) -> str:
        """A block in a few words."""
        f = db.frames
        return (
            f"{int(f.mfn[index]):#x} order {int(f.order[index])} {db.kind_name(int(f.kind[index]))} "
            f"refcount {int(f.refcount[index])} mapcount {int(f.mapcount[index])}"
        )

    # --- text --------------------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """All of it, on one screen."""
        first, last = self.mfn, self.mfn + self.pages - 1
        size = size_text(self.pages * PAGE)
        pool = self.db.pool("ARENA_FRAMES")
        yield f"frame {first:#x}, order {self.order} ({size}), {self.kind}, {'free' if self.free else 'in use'}"
        yield f"  pages       mfn {first:#x} to {last:#x}, pa {first * PAGE:#x} to {last * PAGE + PAGE - 1:#x}"
        yield f"  counts      refcount {self.refcount}, mapcount {self.mapcount}"
        yield f"  descriptor  {pool.va(self.index):#x} (index {self.index:#x})"
        yield f"  memory map  {self._region()}"
        if self.is_table:
            yield f"  page table  {self._table()}"
        yield from self._mapping_lines()
        yield f"  merging     {self.merge()}"

    def _region(self) -> str:
        regions = Regions(self.db)
        at = int(regions.of(np.array([self.mfn]))[0])
        if at == NONE:
            return "outside of it"
        first, last = int(regions.first[at]), int(regions.last[at]) - 1
        kind = self.db.kind_name(int(regions.kinds[at]))
        return f"region {int(regions.number[at])}, {kind}, mfn {first:#x} to {last:#x}"

    def _table(self) -> str:
        """Where a page table stands."""
        slots, reach = self.db.slots, self.db.reach
        slot = int(self.db.frames.slot[self.index])
        rows = np.flatnonzero(reach.mfn == self.mfn)
        places = [reach.path(int(r)) for r in rows[:4]]
        where = f"reached as {', '.join(places)}" if places else "not reached from any root (T7)"
        if 0 < slot < slots.count and slots.spare[slot] and slots.frame[slot] == self.index:
            return f"empty, in stock, slot {slot}"
        if not 0 < slot < slots.count or not slots.live[slot]:
            return f"level {self.level}, slot {slot}, which is not its own (T7), {where}"
        parent = int(slots.parent[slot])
        above = f"entry {int(slots.index[slot])} of slot {parent}" if parent else "none, a root"
        return (
            f"level {self.level}, slot {slot}, {where}, maps from {int(slots.va[slot]):#x} on, "
            f"{int(slots.used[slot])} entries used, parent: {above}"
        )

    def _mapping_lines(self) -> Iterator[str]:
        rows = self.records.tolist()
        shown = rows[:MAPPINGS_SHOWN]
        total = sum(int(self.db.mappings.refs[r]) for r in rows)
        yield f"  mappings    {len(rows)}, refs together {total}" if rows else "  mappings    none"
        if shown:
            yield "    space      va                 perm type page       refs part"
        for row in shown:
            m = self._mapping(row)
            pages, offset = m["pages"], m["offset"]
            part = (
                "whole" if pages == self.pages else f"pages {offset:#x} to {offset + pages - 1:#x}"
            )
            head = f"    {m['space'] or '?':10} {m['va'] or '?':18} {m['perm']} {m['type']:4}"
            yield f"{head} {m['page']:4} {m['refs']:10} {part}"
            if m["problem"]:
                yield f"      ! record {m['record']}: {m['problem']}"
        if len(rows) > len(shown):
            yield f"    ... and {len(rows) - len(shown)} more (--json has all)"
        lost = self.unrecorded()
        for i in lost[:MAPPINGS_SHOWN]:
            leaf = self._leaf(i)
            yield (
                f"    ! {leaf['space']} {leaf['va']} {leaf['perm']} {leaf['page']} maps it, "
                f"entry {leaf['entry']}, without a record on its list (P4)"
            )
