# SPDX-License-Identifier: BSD-2-Clause
# One frame, with everything that is known of it: block, counts, mappings, page table, buddy; values and text.
"""Block(db, index): the block of a descriptor; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from ktf.kernel.chains import NONE
from ktf.kernel.database import Database
from ktf.kernel.regions import Regions
from ktf.kernel.tree import GIB_ORDER
from ktf.memory.readers import PAGE
from ktf.show.text import size_text
from ktf.x86.memtype import NAMES
from ktf.x86.paging import PAGES, perm_text, U, W, X

MAPPINGS_SHOWN = 20  # of any number: all of it fits on a screen


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
        self.types = db.session.memory_types()[0]

    # --- values ------------------------------------------------------------------------------------

    def values(self) -> dict[str, Any]:
        """The contract's object."""
        keys = ("space", "va", "perm", "type", "refs")
        return {
            "mfn": f"{self.mfn:#x}",
            "order": self.order,
            "kind": self.kind,
            "refcount": self.refcount,
            "mapcount": self.mapcount,
            "mappings": [{key: m[key] for key in keys} for m in self.mappings],
        }

    def details(self) -> dict[str, Any]:
        """What else there is; "mappings" in the same order."""
        keys = ("page", "offset", "pages", "record", "entry", "table", "index", "problem")
        return {
            "free": self.free,
            "pages": self.pages,
            "descriptor": f"{self.db.pool('ARENA_FRAMES').va(self.index):#x}",
            "region": self.region(),
            "mappings": [{key: m[key] for key in keys} for m in self.mappings],
            "unrecorded": [self._leaf(i) for i in self.unrecorded()],
            "table": self.table() if self.is_table else None,
            "merge": self.merge(),
        }

    @cached_property
    def mappings(self) -> list[dict[str, Any]]:
        """All records."""
        return [self.mapping(row) for row in self.records.tolist()]

    def mapping(self, row: int) -> dict[str, Any]:
        """One record: where, how, by which entry, and what is wrong with it."""
        maps, slots = self.db.mappings, self.db.slots
        at = int(maps.at[row])
        slot, index = at >> 9, at & 511
        attr, level = int(maps.attr[row]), int(maps.level[row])
        placed = slot < slots.count and bool(slots.live[slot])
        va = space = None
        if placed:
            place = slots.entry_va(np.array([slot]), np.array([index]), self.db.rules)
            va, space = f"{int(place[0]):#x}", self.db.spaces.name_of(int(slots.space[slot]))
        return {
            "space": space,
            "va": va,
            "perm": perm_text(self._perm(attr)),
            "type": self._type(row, attr, level),
            "page": PAGES[level],
            "refs": int(maps.refs[row]),
            "offset": int(maps.offset[row]),
            "pages": 1 << min(int(maps.order[row]), GIB_ORDER),
            "record": f"{int(maps.index[row]):#x}",
            "entry": f"{int(slots.content[slot, index]):#x}" if placed else None,
            "table": f"{int(slots.mfn[slot]):#x}" if placed else None,
            "index": index,
            "problem": self._problem(row),
        }

    def _perm(self, attr: int) -> int:
        vattr = self.db.vattr
        bits = ((vattr["VATTR_W"], W), (vattr["VATTR_X"], X), (vattr["VATTR_U"], U))
        return sum(mine for theirs, mine in bits if attr & theirs)

    def _type(self, row: int, attr: int, level: int) -> str:
        """The effective memory type of what the record stands for (that of its first page)."""
        pa = (self.mfn + int(self.db.mappings.offset[row])) * PAGE
        entry = int(self.db.attrs.table[level, attr])
        place = (np.array([x], np.uint64) for x in (entry, level, pa))
        return NAMES[int(self.types.of(*place)[0])]

    def _problem(self, row: int) -> str | None:
        """What is wrong with the entries of a record."""
        claims = self.db.claims
        if claims.no_table[row] or claims.no_space[row]:
            return "its page table is gone (P7)"
        if claims.other_level[row] or claims.bad_shape[row]:
            return "its numbers make no sense (P3)"
        mine = claims.odd[claims.record[claims.odd] == row]
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

    def region(self) -> str:
        """Where in the boot's memory map."""
        regions = Regions(self.db)
        at = int(regions.of(np.array([self.mfn]))[0])
        if at == NONE:
            return "outside of it"
        first, last = int(regions.first[at]), int(regions.last[at]) - 1
        kind = self.db.kind_name(int(regions.kinds[at]))
        return f"region {int(regions.number[at])}, {kind}, mfn {first:#x} to {last:#x}"

    def table(self) -> dict[str, Any]:
        """Of a page table: slot, parent, what it maps, where it is reached; None what a slot not its own can't say."""
        slots, reach = self.db.slots, self.db.reach
        slot = int(self.db.frames.slot[self.index])
        rows = np.flatnonzero(reach.mfn == self.mfn)
        values: dict[str, Any] = {
            "level": self.level,
            "slot": slot,
            "stock": self.index in slots.spare_frames(),
            "paths": [reach.path(int(r)) for r in rows[:4]],
            "va": None,
            "size": None,
            "used": None,
            "parent": None,
        }
        if not (0 < slot < slots.count and slots.live[slot]):
            return values
        size = 1 << 12 + 9 * int(slots.level[slot])
        parent = int(slots.parent[slot])
        index = int(slots.index[slot])
        values |= {"va": f"{int(slots.va[slot]):#x}", "size": size, "used": int(slots.used[slot])}
        if 0 < parent < slots.count:
            values["parent"] = {
                "slot": parent,
                "mfn": f"{int(slots.mfn[parent]):#x}",
                "index": index,
                "entry": f"{int(slots.content[parent, index & 511]):#x}",
            }
        return values

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

    def lines(self, page: int = 0, va: int | None = None) -> Iterator[str]:
        """All of it, on one screen. page: the one of the block that was asked for; va: by which address, if by one."""
        first, last = self.mfn, self.mfn + self.pages - 1
        size = size_text(self.pages * PAGE)
        yield f"frame {first:#x}, order {self.order} ({size}), {self.kind}, {'free' if self.free else 'in use'}"
        yield f"  pages       mfn {first:#x} to {last:#x}, pa {first * PAGE:#x} to {last * PAGE + PAGE - 1:#x}"
        yield f"  counts      refcount {self.refcount} (who owns it), mapcount {self.mapcount} (where it is mapped)"
        yield f"  descriptor  {self._descriptor()}"
        yield f"  memory map  {self.region()}"
        if self.is_table:
            yield from self._table_lines()
        yield from self._mapping_lines(page, va)
        yield f"  merging     {self.merge()}"

    def _descriptor(self) -> str:
        """Its place and its links: ring, list of mappings, epoch."""
        frames = self.db.frames
        text = f"{self.db.pool('ARENA_FRAMES').va(self.index):#x} (index {self.index:#x})"
        text += f", ring {int(frames.prev[self.index]):#x} < > {int(frames.next[self.index]):#x}"
        epoch = 0 if self.is_table else int(frames.slot[self.index])  # one word for both
        if epoch:
            text += f", last unmapped in epoch {epoch}"
        return text

    def _table_lines(self) -> Iterator[str]:
        """Page table, parent, where it is reached."""
        table = self.table()
        if table["stock"]:
            yield f"  page table  in stock, slot {table['slot']}: empty until a mapping needs a table"
            return
        text = f"  page table  level {table['level']}, slot {table['slot']}"
        if table["va"] is None:
            yield f"{text}, which is not its own (T7)"
        else:
            va, size = int(table["va"], 16), table["size"]
            used = f"{table['used']} of its 512 entries used"
            yield f"{text}, maps {size_text(size)} from {va:#x} on, {used}"
        parent = table["parent"]
        if parent is not None:
            where = f"entry {parent['index']} of table {parent['mfn']} (slot {parent['slot']})"
            yield f"  parent      {where}: {parent['entry']}"
        elif table["va"] is not None:
            yield "  parent      none, it is a root"
        yield f"  reached     {'as ' + ', '.join(table['paths']) if table['paths'] else 'not reached from any root (T7)'}"

    def _asked(self, page: int, va: int | None) -> np.ndarray:
        """True for each record that maps the page; if one does so at the address, for that alone."""
        maps, slots = self.db.mappings, self.db.slots
        offset = maps.offset[self.records].astype(np.int64)
        pages = 1 << np.minimum(maps.order[self.records], GIB_ORDER).astype(np.int64)
        mine = (offset <= page) & (page < offset + pages)
        if va is None or not slots.count:
            return mine
        at = maps.at[self.records].astype(np.int64)
        slot = np.where(at >> 9 < slots.count, at >> 9, 0)
        start = slots.entry_va(slot, at & 511, self.db.rules) + ((page - offset) * PAGE).astype(
            np.uint64
        )
        here = mine & (start == np.uint64(va) & np.uint64(-PAGE & (1 << 64) - 1))
        return here if here.any() else mine

    def _mapping_lines(self, page: int, va: int | None) -> Iterator[str]:
        """How many, in which spaces; each with its place, those that were asked for first, and marked if others follow."""
        mine = self._asked(page, va)
        rows = self.records[np.argsort(~mine, kind="stable")].tolist()
        mark = "   >" if not mine.all() else "    "
        total = int(self.db.mappings.refs[self.records].sum())
        head = f"{len(rows)}, refs together {total}{self._in_spaces()}"
        head += "" if mine.any() else f"; none of page {page:#x}"
        yield f"  mappings    {head}" if rows else "  mappings    none"
        if rows:
            yield "    space      va                 perm type page       refs entry                                part"
        for i, row in enumerate(rows[:MAPPINGS_SHOWN]):
            m = self.mapping(row)
            head = f"{m['space'] or '?':10} {m['va'] or '?':18} {m['perm']} {m['type']:4}"
            place = f"{m['entry']} in {m['table']}[{m['index']}]" if m["entry"] else "-"
            start = mark if i < mine.sum() else "    "
            yield f"{start}{head} {m['page']:4} {m['refs']:10} {place:36} {self._part(m)}"
            if m["problem"]:
                yield f"      ! record {m['record']}: {m['problem']}"
        if len(rows) > MAPPINGS_SHOWN:
            yield f"    ... and {len(rows) - MAPPINGS_SHOWN} more (--json has all)"
        yield from self._lost_lines()

    def _in_spaces(self) -> str:
        """How many mappings which address space has, if there are several."""
        slots = self.db.slots
        slot = (self.db.mappings.at[self.records] >> 9).astype(np.int64)
        known = slots.space[slot[slot < slots.count]]
        counts = Counter(self.db.spaces.name_of(int(s)) for s in known)
        if len(counts) < 2:
            return ""
        names = [f"{name} {count}" for name, count in counts.most_common(4)]
        more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
        return f", in {len(counts)} spaces: {', '.join(names)}{more}"

    def _part(self, mapping: dict[str, Any]) -> str:
        """Of the block."""
        first, pages = mapping["offset"], mapping["pages"]
        if pages == self.pages:
            return "whole"
        return f"page {first:#x}" if pages == 1 else f"pages {first:#x} to {first + pages - 1:#x}"

    def _lost_lines(self) -> Iterator[str]:
        """Entries that map it and that no record stands for."""
        lost = self.unrecorded()
        for i in lost[:MAPPINGS_SHOWN]:
            leaf = self._leaf(i)
            yield (
                f"    ! {leaf['space']} {leaf['va']} {leaf['perm']} {leaf['page']} maps it, "
                f"entry {leaf['entry']}, without a record on its list (P4)"
            )
        if len(lost) > MAPPINGS_SHOWN:
            yield f"    ! ... and {len(lost) - MAPPINGS_SHOWN} more without a record"
