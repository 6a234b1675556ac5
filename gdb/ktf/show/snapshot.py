# SPDX-License-Identifier: BSD-2-Clause
# Frames and mappings at one stop, kept as arrays; and what differs between two of them.
"""take(db, name) -> Snapshot; Difference(a, b): what came, what went, what changed; pure.

A block is the same in both if it has the same place and order and is in use in both; a mapping, if it is of the same
space and at the same address. All else came or went.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ktf.errors import KtfError
from ktf.kernel import journal
from ktf.kernel.database import Database
from ktf.kernel.journal import Journal
from ktf.kernel.tree import GIB_ORDER

FRAME = np.dtype(
    [("mfn", "u8"), ("order", "u1"), ("kind", "u1"), ("refcount", "u4"), ("mapcount", "u4")]
)
# space: its id, which is never used again; mfn: the first page that is mapped; order: it maps 2^order pages.
MAPPING = np.dtype(
    [
        ("space", "u4"),
        ("va", "u8"),
        ("mfn", "u8"),
        ("order", "u1"),
        ("level", "u1"),
        ("attr", "u1"),
        ("refs", "u4"),
    ]
)


@dataclass(frozen=True)
class Snapshot:
    """One stop. used: blocks in use, by place; mappings by space and address; journal: None if there was none."""

    name: str
    boot: int  # tells one boot from another
    used: np.ndarray
    mappings: np.ndarray
    spaces: dict[int, str]
    kind_names: dict[int, str]
    available: int  # the kind of frames that are handed out
    journal: Journal | None

    @property
    def events(self) -> int:
        """Number of the next event of its journal, 0 if there was none."""
        return 0 if self.journal is None else self.journal.next


def take(db: Database, name: str) -> Snapshot:
    """The guest as it stands now."""
    frames = db.frames
    heads = frames.heads[~frames.is_free[frames.heads]]
    used = np.zeros(len(heads), FRAME)
    for column in FRAME.names or ():
        used[column] = getattr(frames, column)[heads]
    try:
        events = journal.events(db.session)
    except KtfError:
        events = None
    spaces = {row.id: row.name for row in db.spaces.rows}
    boot = db.optional("boot_ticks") or 0
    available = db.kinds["FRAME_AVAILABLE"]
    mapped = _mappings(db)
    return Snapshot(name, boot, used, mapped, spaces, db.kind_names, available, events)


def _mappings(db: Database) -> np.ndarray:
    """The records that stand in a live table of a live space and on a frame's list."""
    maps, slots = db.mappings, db.slots
    slot = (maps.at >> 9).astype(np.int64)
    placed = (slot < slots.count) & (maps.owner > 0)
    placed &= slots.live[np.where(placed, slot, 0)]
    space = slots.space[np.where(placed, slot, 0)].astype(np.int64)
    ids = np.zeros(int(max(space.max(initial=0), max(db.spaces.by_index, default=0))) + 1, "u4")
    known = np.zeros(len(ids), bool)
    for row in db.spaces.rows:
        ids[row.index], known[row.index] = row.id, True
    rows = np.flatnonzero(placed & known[space])
    found = np.zeros(len(rows), MAPPING)
    found["space"] = ids[space[rows]]
    found["va"] = slots.entry_va(slot[rows], (maps.at[rows] & 511), db.rules)
    found["mfn"] = db.frames.mfn[maps.owner[rows]] + maps.offset[rows]
    for column in ("order", "level", "attr", "refs"):
        found[column] = getattr(maps, column)[rows]
    return found[np.lexsort((found["va"], found["space"]))]


class Difference:
    """What is in b and not in a, the other way round, and what is in both but not alike.

    got, put             rows of b.used and a.used
    held                 rows of b.used: got, owned, and mapped nowhere: leaked, unless somebody means it so
    made, gone           rows of b.mappings and a.mappings
    rights, counts, ...  pairs of rows (of a, of b): mappings with other rights or memory type; with other refs;
    moved                mappings that lead elsewhere, or are of another size; blocks with other counts or kind
    """

    def __init__(self, a: Snapshot, b: Snapshot) -> None:
        self.a, self.b = a, b
        shift = np.uint64(5)
        first = a.used["mfn"] << shift | a.used["order"]
        second = b.used["mfn"] << shift | b.used["order"]
        self.put, self.got, blocks = _apart(first, second)
        old, new = a.used[blocks[0]], b.used[blocks[1]]
        counts = (old["refcount"] != new["refcount"]) | (old["mapcount"] != new["mapcount"])
        self.block_counts = _pairs(blocks, counts)
        self.block_kinds = _pairs(blocks, old["kind"] != new["kind"])
        fresh = b.used[self.got]
        bare = (fresh["refcount"] > 0) & (fresh["mapcount"] == 0)
        self.held = self.got[bare & (fresh["kind"] == b.available)]
        ids = sorted({*a.spaces, *b.spaces})
        self.gone, self.made, same = _apart(_keys(a.mappings, ids), _keys(b.mappings, ids))
        was, now = a.mappings[same[0]], b.mappings[same[1]]
        moved = was["mfn"] != now["mfn"]
        for column in ("order", "level"):
            moved |= was[column] != now[column]
        self.moved = _pairs(same, moved)
        self.rights = _pairs(same, ~moved & (was["attr"] != now["attr"]))
        self.refs = _pairs(same, ~moved & (was["refs"] != now["refs"]))
        self.spaces_made = sorted(set(b.spaces) - set(a.spaces))
        self.spaces_gone = sorted(set(a.spaces) - set(b.spaces))

    @property
    def other_boot(self) -> bool:
        """True if they can't be two stops of one run."""
        return self.a.boot != self.b.boot

    def who_got(self, mfn: int, order: int) -> np.void | None:
        """The last event that took the frame, since a; None if the journal no longer has it."""
        return self._last(mfn, order, ("get",))

    def who_put(self, mfn: int, order: int) -> np.void | None:
        """The last event that gave it back, or took its last mapping away."""
        return self._last(mfn, order, ("put", "unmap", "put_range", "put_frames"))

    def _last(self, mfn: int, order: int, ops: tuple[str, ...]) -> np.void | None:
        found = self._since()
        return None if found is None else _last_of(found.of_frame(mfn, order), ops)

    def who_mapped(self, va: int, size: int) -> np.void | None:
        """The last event that mapped something there, since a."""
        found = self._since()
        ops = ("map", "map_range", "map_frames")
        return None if found is None else _last_of(found.of_va(va, size), ops)

    def who_changed(self, va: int, size: int) -> np.void | None:
        """The last event that unmapped something there or changed its rights."""
        found = self._since()
        ops = ("unmap", "put_range", "put_frames", "protect")
        return None if found is None else _last_of(found.of_va(va, size), ops)

    def _since(self) -> Journal | None:
        events = self.b.journal
        return None if events is None or self.other_boot else events.since(self.a.events)


def _last_of(found: Journal, ops: tuple[str, ...]) -> np.void | None:
    numbers = [number for number, name in found.op_names.items() if name in ops]
    rows = found.rows[np.isin(found.rows["op"], numbers)]
    last: np.void | None = rows[-1] if len(rows) else None
    return last


def _apart(
    first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Rows of the first alone, of the second alone, and the pairs of rows of both."""
    _, old, new = np.intersect1d(first, second, return_indices=True)
    return (
        np.flatnonzero(~np.isin(first, second)),
        np.flatnonzero(~np.isin(second, first)),
        (old, new),
    )


def _pairs(
    rows: tuple[np.ndarray, np.ndarray], chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return rows[0][chosen], rows[1][chosen]


def _keys(mappings: np.ndarray, ids: list[int]) -> np.ndarray:
    """One number for space and address: 45 bits of page number, 19 of the space's place in ids."""
    place = np.searchsorted(np.array(ids, np.int64), mappings["space"].astype(np.int64))
    page = (mappings["va"] >> np.uint64(12)) & np.uint64((1 << 45) - 1)
    return page | place.astype(np.uint64) << np.uint64(45)


def pages_of(order: int) -> int:
    """Pages of a block or a mapping of that order."""
    return 1 << min(order, GIB_ORDER)
