# SPDX-License-Identifier: BSD-2-Clause
# Rule T7: every page table is reached, and its slot tells the truth about it.
"""The rule on page-table frames, slots and roots; docs/invariants.md says why and how it can be broken."""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Rule, Violation
from ktf.kernel.database import Database
from ktf.rules.mappings import frame_text, table_entry
from ktf.rules.tables import below_distrust, primary_rows, slot_violation


def t7(db: Database, out: Report) -> None:
    """Every page-table frame is reached or in stock, has its slot, and the slot tells the truth about it."""
    _t7_frames(db, out)
    _t7_slots(db, out)
    _t7_stock(db, out)
    _t7_rows(db, out)
    _t7_recent(db, out)
    _t7_free(db, out)


def _t7_frames(db: Database, out: Report) -> None:
    reach, frames, slots = db.reach, db.frames, db.slots
    tables = frames.heads[frames.kind[frames.heads] == db.kinds["FRAME_TABLE"]]
    mfn = frames.mfn[tables].astype(np.int64)
    spare = np.isin(tables, slots.spare_frames())
    lost = tables[~np.isin(mfn, reach.mfn[~below_distrust(db)]) & ~spare]
    slot = np.minimum(frames.slot[lost].astype(np.int64), slots.count - 1) if slots.count else lost
    # Below a table that can't be reached, all the others can't be either: the topmost ones are named.
    parent = slots.parent[slot].astype(np.int64) if slots.count else lost * 0
    hidden = np.isin(parent, slot) & (parent > 0)
    below = int(hidden.sum())

    def describe(frame: int) -> Violation:
        text = f"page table {frame_text(db, frame)} can't be reached from any address space"
        if below:
            text += f" (nor {below} tables below such ones)"
        number = int(frames.slot[frame])
        if number < slots.count and slots.live[number]:
            return slot_violation(db, "T7", number, f"{text}; slot {number}")
        return Violation("T7", text, mfn=int(frames.mfn[frame]))

    out.each("T7", lost[~hidden], describe)
    number = frames.slot[tables].astype(np.int64)
    inside = number < slots.count
    number = np.where(inside, number, 0)
    bad = tables[~((slots.live[number] | slots.spare[number]) & (slots.frame[number] == tables))]

    def mismatch(frame: int) -> Violation:
        text = f"{frame_text(db, frame)} says slot {int(frames.slot[frame])}, which is not its own"
        return Violation("T7", text, mfn=int(frames.mfn[frame]))

    out.each("T7", bad, mismatch)


def _t7_slots(db: Database, out: Report) -> None:
    slots, frames = db.slots, db.frames
    at = np.flatnonzero(slots.live)
    frame = np.where(slots.has_frame[at], slots.frame[at], 0).astype(np.int64)
    kind = np.where(frame > 0, frames.kind[frame], 0)
    bad = at[(kind != db.kinds["FRAME_TABLE"]) | (frames.slot[frame] != at)]

    def describe(slot: int) -> Violation:
        index = int(slots.frame[slot])
        what = frame_text(db, index) if slots.has_frame[slot] else f"{index:#x}, which is no frame"
        return slot_violation(
            db, "T7", slot, f"slot {slot} names frame {what}; should be its table"
        )

    out.each("T7", bad, describe)
    spaces = db.spaces.is_live(slots.space[at])

    def no_space(slot: int) -> Violation:
        text = f"slot {slot} belongs to space {int(slots.space[slot]):#x}, which is gone"
        return slot_violation(db, "T7", slot, text)

    out.each("T7", at[~spaces], no_space)
    pins = _expected_pins(db)
    for name, want in (("zero", pins * 0), ("stock", pins * 0), ("pins", pins)):
        have = getattr(slots, name)

        def field(slot: int, n: str = name) -> Violation:
            text = (
                f"slot {slot}: {n} is {int(getattr(slots, n)[slot])}, should be {int(want[slot])}"
            )
            return slot_violation(db, "T7", slot, text)

        out.each("T7", at[have[at] != want[at]], field)


def _t7_stock(db: Database, out: Report) -> None:
    """A table in stock is empty, has a frame of its own, and its slot says nothing else."""
    slots, frames = db.slots, db.frames
    at = np.flatnonzero(slots.spare)
    frame = np.where(slots.has_frame[at], slots.frame[at], 0).astype(np.int64)
    table = (frame > 0) & (frames.kind[frame] == db.kinds["FRAME_TABLE"])
    bad = ~table | (frames.slot[frame] != at) | (frames.level[frame] != 0)

    def no_table(slot: int) -> Violation:
        index = int(slots.frame[slot])
        what = frame_text(db, index) if slots.has_frame[slot] else f"{index:#x}, which is no frame"
        return slot_violation(db, "T7", slot, f"slot {slot}, in stock, names frame {what}")

    out.each("T7", at[bad], no_table)
    dirty = (slots.stock[at] != 1) | slots.content[at].any(axis=1) | slots.shadow[at].any(axis=1)
    for name in ("va", "space", "index", "used", "pins", "zero"):
        dirty |= getattr(slots, name)[at] != 0

    def not_blank(slot: int) -> Violation:
        text = f"slot {slot}, in stock, is not blank: its entries, shadow or description"
        return slot_violation(db, "T7", slot, text)

    out.each("T7", at[dirty], not_blank)


def _expected_pins(db: Database) -> np.ndarray:
    """The tables of level 1 that show the window's slots are kept: one pin each."""
    slots = db.slots
    pins = np.zeros(slots.count, np.int64)
    window = np.uint64(db.number("window"))
    offset = slots.va - window
    kernel = slots.space == (db.spaces.rows[0].index if db.spaces.rows else 0)
    inside = (slots.va >= window) & (offset < np.uint64(slots.count << 12))
    pins[slots.live & kernel & (slots.level == 1) & inside] = 1
    return pins


def _t7_rows(db: Database, out: Report) -> None:
    """Address and space of each slot, as the walk met it."""
    reach, slots = db.reach, db.slots
    rows = primary_rows(db)
    slot = reach.slot[rows]
    index = np.array([s.index for s in db.spaces.rows] or [0])
    space = index[reach.space[rows]]
    bad = np.flatnonzero((slots.va[slot] != reach.va[rows]) | (slots.space[slot] != space))

    def describe(i: int) -> Violation:
        at, row = int(slot[i]), int(rows[i])
        text = (
            f"slot {at} says va {int(slots.va[at]):#x} of {db.spaces.name_of(int(slots.space[at]))}, "
            f"but it maps {int(reach.va[row]):#x} of {reach.name(row)}"
        )
        return table_entry(db, "T7", row, text)

    out.each("T7", bad, describe)
    for space_row in db.spaces.rows:
        _t7_root(db, space_row.index, out)


def _t7_root(db: Database, index: int, out: Report) -> None:
    slots = db.slots
    row = db.spaces.rows[db.spaces.by_index[index]]
    if row.levels != db.rules.levels:
        text = f"{row.levels} levels, but the CPU uses {db.rules.levels}"
        out.add("T7", f"space {row.index:#x}: {text}", space=row.name)
    if row.root >= slots.count or not slots.live[row.root]:
        text = f"its root is slot {row.root}, which holds no table"
        out.add("T7", f"space {row.index:#x}: {text}", space=row.name, mfn=row.mfn)
        return
    if slots.level[row.root] != row.levels or slots.parent[row.root] or slots.va[row.root]:
        text = f"slot {row.root}: a root has level {row.levels}, no parent and va 0"
        out.put(slot_violation(db, "T7", row.root, text))


def _t7_recent(db: Database, out: Report) -> None:
    """The tables that a space used last are its own, of level 1 and 2."""
    raw, slots, pool = db.spaces.raw, db.slots, db.pool("ARENA_TABLES")
    if "recent" not in raw.layout.names:
        return
    for row in db.spaces.rows:
        flat = int(db.spaces.objects.flat_of(np.array([row.index]))[0])
        recent = raw["recent"][flat]
        members = (recent[name].tolist() for name in ("va", "table", "at", "count"))
        for i, (va, table, at, count) in enumerate(zip(*members)):
            slot = at >> 9
            good = slot < slots.count and slots.live[slot] and slots.level[slot] == i + 1
            good = good and slots.space[slot] == row.index and int(slots.va[slot]) == va
            good = good and table == pool.va(slot) and (at & 511, count) == (0, 512)
            if any((va, table, at, count)) and not good:
                text = f"recent[{i}] is slot {slot} for {va:#x}, no such table of level {i + 1}"
                out.add("T7", f"space {row.index:#x}: {text}", space=row.name)


def _t7_free(db: Database, out: Report) -> None:
    """Free slots hold nothing; slot 0 is never used."""
    slots = db.slots
    free = slots.free.copy()
    free[:1] = slots.ok[:1]
    words = np.zeros(slots.count, bool)
    for name in ("va", "space", "index", "used", "pins", "stock", "zero", "level"):
        words |= getattr(slots, name) != 0
    words |= slots.shadow.any(axis=1)
    if slots.count:
        words[0] |= bool(slots.frame[0] or slots.parent[0])

    def describe(slot: int) -> Violation:
        what = "slot 0, never used," if not slot else f"free slot {slot}"
        return Violation("T7", f"{what} is not blank", va=db.pool("ARENA_TABLES").va(slot))

    out.each("T7", np.flatnonzero(words & free), describe)
    pool = db.pool("ARENA_TABLES")
    rest = pool.data.reshape(-1)[slots.count * pool.size :]
    if rest.any():
        slot = slots.count + int(np.flatnonzero(rest)[0]) // pool.size
        text = f"struct table {slot} is not blank, but there are only {slots.count} slots"
        out.add("T7", text, va=pool.va(slot))


RULES = [Rule("T7", "every page-table frame is reachable from a known root", t7)]
