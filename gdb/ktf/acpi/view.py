# SPDX-License-Identifier: BSD-2-Clause
# ACPI tables as text and JSON, with the frames that hold them and where these are mapped.
"""Holders(db): who holds a table; the forms of one table and of all; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ktf.acpi.tables import ENTRIES_MAX, FADT_LINKS, HEADER, Root, Table, Tables, number
from ktf.kernel.database import Database
from ktf.memory.readers import PAGE
from ktf.show.block import Block

SHOWN = 20  # mappings of one table in its text
ROWS = 12  # lines of 16 bytes, unless all are asked for
BLOCKS_MAX = 4096  # frames of one table that are looked at
HEAD = "table   address               length rev OEM    OEM table checksum"
HELD = " frame              maps  refs"


class Holders:
    """The frames behind tables. Without a frame database nothing is known of them."""

    def __init__(self, db: Database | None) -> None:
        self.db = db
        self._blocks: dict[int, Block] = {}

    def blocks(self, table: Table) -> list[Block]:
        """The blocks that hold its bytes."""
        if self.db is None:
            return []
        first, last = table.pa // PAGE, (table.pa + max(len(table.data), 1) - 1) // PAGE
        found = self.db.frames.find(np.arange(first, last + 1)[:BLOCKS_MAX])
        return [self._block(i) for i in dict.fromkeys(found.tolist()) if i]

    def _block(self, index: int) -> Block:
        assert self.db is not None
        if index not in self._blocks:
            self._blocks[index] = Block(self.db, index)
        return self._blocks[index]

    def rows(self, table: Table, block: Block) -> list[int]:
        """The mapping records of a block that cover a page of the table."""
        assert self.db is not None
        maps = self.db.mappings
        first, last = table.pa // PAGE, (table.pa + max(len(table.data), 1) - 1) // PAGE
        start = block.mfn + maps.offset[block.records].astype(np.int64)
        end = start + (np.int64(1) << np.minimum(maps.order[block.records], 18).astype(np.int64))
        return [int(r) for r in block.records[(start <= last) & (end > first)]]

    def mappings(self, table: Table) -> list[dict[str, Any]]:
        """Where its pages are mapped: block.mapping() of each, and its first frame number."""
        found = []
        for block in self.blocks(table):
            for row in self.rows(table, block):
                one = block.mapping(row)
                found.append({**one, "mfn": f"{block.mfn + one['offset']:#x}"})
        return found

    def kind(self, table: Table) -> str | None:
        """The kinds of these frames; None if that is not known."""
        if self.db is None:
            return None
        return "+".join(dict.fromkeys(b.kind for b in self.blocks(table))) or "no frame"

    def count(self, table: Table) -> tuple[int, int]:
        """Mappings, and their references together."""
        if self.db is None:
            return 0, 0
        rows = [r for b in self.blocks(table) for r in self.rows(table, b)]
        return len(rows), sum(int(self.db.mappings.refs[r]) for r in rows)


def root_table(root: Root) -> Table:
    """The root pointer, as if it were a table."""
    table = Table("RSDP", root.pa, len(root.data), root.data, root.where, root.problem)
    table.sum_wrong = "checksum wrong" in root.problem
    table.whole = True
    return table


# --- JSON --------------------------------------------------------------------------------------------


def values(table: Table, holders: Holders, whole: bool = False) -> dict[str, Any]:
    """A table's object; whole: with its bytes."""
    fields = table.fields
    keys = ("oem", "oem_table", "oem_revision", "creator", "creator_revision")
    rest = dict(zip(keys, fields[1:] if fields else (None,) * 5))
    shown = ("space", "va", "perm", "type", "page", "refs", "mfn")
    known = holders.db is not None
    data = {"data": table.data.hex()} if whole else {}
    return {
        "signature": table.signature,
        "name": table.name,
        "pa": f"{table.pa:#x}",
        "length": table.length,
        "revision": table.revision,
        **rest,
        "checksum": table.checksum,
        "via": table.via,
        "problem": table.problem or None,
        "mfn": f"{table.pa // PAGE:#x}",
        "kind": holders.kind(table),
        "mappings": [{k: m[k] for k in shown} for m in holders.mappings(table)] if known else None,
        **data,
    }


def root_values(root: Root) -> dict[str, Any]:
    """The root pointer's object."""
    return {
        "pa": f"{root.pa:#x}",
        "revision": root.revision,
        "oem": root.oem,
        "rsdt": f"{root.rsdt:#x}",
        "xsdt": f"{root.xsdt:#x}" if root.xsdt else None,
        "found": root.where,
        "problem": root.problem or None,
    }


# --- text --------------------------------------------------------------------------------------------


def _held(table: Table, holders: Holders) -> str:
    if holders.db is None:
        return ""
    maps, refs = holders.count(table)
    frame = f"{table.pa // PAGE:#x} {holders.kind(table)}"
    return f" {frame:18} {maps:4} {refs:5}"


def listing(tables: Tables, holders: Holders) -> Iterator[str]:
    """A line for each table, the root pointer first; then what is wrong, and a sum."""
    yield HEAD + (HELD if holders.db is not None else "")
    root = tables.root
    assert root is not None
    for table in [root_table(root), *tables.tables]:
        _, oem, name, *_ = table.fields or (0, root.oem if table.signature == "RSDP" else "", "")
        revision = "-" if table.revision is None else str(table.revision)
        head = f"{table.name:7} 0x{table.pa:016x} {table.length:9} {revision:>3} {oem:6} {name:9}"
        yield f"{head} {table.checksum:8}{_held(table, holders)}".rstrip()
    yield from (f"! {problem}" for problem in tables.problems)
    size = sum(len(t.data) for t in tables.tables)
    count = len(tables.problems)
    word = "no problem" if not count else f"{count} problem{'' if count == 1 else 's'}"
    yield f"{len(tables.tables)} tables, {size} bytes, by the RSDP at {root.pa:#x} ({root.where}): {word}"


def one(table: Table, tables: Tables, holders: Holders, whole: bool) -> Iterator[str]:
    """One table: its head, its frames, its bytes."""
    yield f"{table.name} at {table.pa:#x}, {table.length} bytes, by {table.via}"
    if table.problem:
        yield f"  ! {table.problem}"
    yield from (f"  {name:11} {text}" for name, text in _facts(table, tables))
    yield from _holder_lines(table, holders)
    yield from _dump(table, whole)


def _facts(table: Table, tables: Tables) -> Iterator[tuple[str, str]]:
    """What the head says."""
    revision = "?" if table.revision is None else table.revision
    yield "revision", f"{revision}, checksum {table.checksum}"
    if table.fields is not None:
        _, oem, name, oem_revision, creator, creator_revision = table.fields
        yield "OEM", f"{oem or '-'}, table {name or '-'}, revision {oem_revision:#x}"
        yield "creator", f"{creator or '-'}, revision {creator_revision:#x}"
    elif table.signature == "RSDP":
        yield "OEM", Root(table.pa, table.data).oem
    named = [f"{tables.name_at(pa) or '?'} {pa:#x}" for pa in _named(table)]
    if named:
        more = f" ... and {len(named) - ROWS} more" if len(named) > ROWS else ""
        yield "names", f"{', '.join(named[:ROWS])}{more}"


def _named(table: Table) -> list[int]:
    """The addresses of the tables that it names."""
    data = table.data
    if table.signature == "RSDP":
        root = Root(table.pa, data)
        return [pa for pa in (root.rsdt, root.xsdt) if pa]
    if not table.whole:
        return []
    if table.signature in ("RSDT", "XSDT"):
        width = 8 if table.signature == "XSDT" else 4
        places = range(HEADER.size, len(data) - width + 1, width)
        return [number(data, i, width) for i in places[:ENTRIES_MAX]]
    if table.signature == "FACP":
        both = (number(data, new, 8) or number(data, old, 4) for _, old, new in FADT_LINKS)
        return [pa for pa in both if pa]
    return []


def _holder_lines(table: Table, holders: Holders) -> Iterator[str]:
    """Its frames, and where its pages are mapped."""
    if holders.db is None:
        return
    for block in holders.blocks(table)[:ROWS]:
        yield f"  {'frame':11} {Block.short(holders.db, block.index)}"
    rows = holders.mappings(table)
    if not rows:
        yield f"  {'mappings':11} none"
    for m in rows[:SHOWN]:
        place = f"{m['space'] or '?'} {m['va'] or '?'} {m['perm']} {m['type']} {m['page']}"
        yield f"  {'mapped':11} {place} refs {m['refs']}, frame {m['mfn']}"
    if len(rows) > SHOWN:
        yield f"  {'':11} ... and {len(rows) - SHOWN} more (--json has all)"


def _dump(table: Table, whole: bool) -> Iterator[str]:
    """Its bytes, 16 a line, by physical address."""
    data = table.data
    size = len(data) if whole else min(len(data), 16 * ROWS)
    for i in range(0, size, 16):
        part = data[i : i + 16]
        words = f"{part[:8].hex(' ')}  {part[8:].hex(' ')}"
        text = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in part)
        yield f"{table.pa + i:#012x}  {words:49}  {text}".rstrip()
    if size < len(data):
        yield f"... and {len(data) - size} more bytes (--all shows them)"
