# SPDX-License-Identifier: BSD-2-Clause
# Rules T1 to T6: page tables are what the kernel believes, sound, and safe.
"""Each rule is a function of the database; docs/invariants.md says why and how each can be broken."""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Rule, Violation
from ktf.kernel.chains import NONE
from ktf.kernel.database import POOLS, SHADOW_TABLE, Database
from ktf.memory.readers import PAGE, WORDS
from ktf.rules.mappings import frame_text, leaf, table_entry
from ktf.x86.paging import (
    ACCESSED,
    DIRTY,
    F_ALIGN,
    F_BOUND,
    F_LOOP,
    F_PS,
    F_RESERVED,
    F_UNREADABLE,
    PCD,
    PWT,
    W,
)


def t1(db: Database, out: Report) -> None:
    """What an entry (or a space's cr3) points to is an allocated page-table frame."""
    reach = db.reach
    bad = np.flatnonzero(~reach.is_table & ~below_distrust(db))

    def describe(row: int) -> Violation:
        frame = int(reach.frame[row])
        who = "the root" if reach.parent[row] == NONE else "the entry"
        if not frame:
            what = "which is in no frame"
        else:
            state = ", free" if db.frames.is_free[frame] else ""
            what = f"{frame_text(db, frame)}{state}"
        text = f"{who} leads to mfn {int(reach.mfn[row]):#x}, {what}; should be a page table in use"
        return table_entry(db, "T1", row, text)

    out.each("T1", bad, describe)


def below_distrust(db: Database) -> np.ndarray:
    """Rows below one that is not trusted: what they are is not the kernel's doing."""
    reach = db.reach
    return (reach.parent != NONE) & ~reach.trusted[reach.parent]


def t2(db: Database, out: Report) -> None:
    """A table stands at its own level; only tables have one, and none of those in stock."""
    reach, frames = db.reach, db.frames
    bad = np.flatnonzero(reach.is_table & ~reach.right_level & ~below_distrust(db))

    def describe(row: int) -> Violation:
        level = int(frames.level[reach.frame[row]])
        text = f"leads to a table of level {level}, should be level {int(reach.level[row])}"
        return table_entry(db, "T2", row, text)

    out.each("T2", bad, describe)
    heads = frames.heads
    table = frames.kind[heads] == db.kinds["FRAME_TABLE"]
    table &= ~np.isin(heads, db.slots.spare_frames())
    tables = set(heads[table].tolist())
    level = frames.level[heads]
    odd = heads[np.where(table, (level == 0) | (level > 5), level != 0)]

    def odd_level(frame: int) -> Violation:
        text = f"{frame_text(db, frame)}: level {int(frames.level[frame])}, should be "
        text += "1 to 5" if frame in tables else "0, as it is no table in use"
        return Violation("T2", text, mfn=int(frames.mfn[frame]))

    out.each("T2", odd, odd_level)
    _t2_slots(db, out)


def _t2_slots(db: Database, out: Report) -> None:
    slots, frames = db.slots, db.frames
    at = np.flatnonzero(slots.live & slots.has_frame)
    bad = at[slots.level[at] != frames.level[slots.frame[at]]]

    def describe(slot: int) -> Violation:
        frame = int(slots.frame[slot])
        text = (
            f"slot {slot} has level {int(slots.level[slot])}, "
            f"its frame has level {int(frames.level[frame])}"
        )
        return slot_violation(db, "T2", slot, text)

    out.each("T2", bad, describe)


def slot_violation(db: Database, rule: str, slot: int, text: str) -> Violation:
    """A violation of a slot's struct table."""
    slots = db.slots
    mfn = int(slots.mfn[slot]) if slots.has_frame[slot] else None
    space = db.spaces.name_of(int(slots.space[slot])) if slots.live[slot] else None
    level = int(slots.level[slot]) if slots.live[slot] else None
    return Violation(rule, text, space, int(slots.va[slot]), level, None, mfn)


def t3(db: Database, out: Report) -> None:
    """One parent each, the one that the slot names; user roots share the kernel's upper half."""
    _t3_twice(db, out)
    _t3_parents(db, out)
    _t3_shared(db, out)


def _t3_twice(db: Database, out: Report) -> None:
    """Tables that different entries point to."""
    reach = db.reach
    rows = np.flatnonzero(reach.is_table & ~below_distrust(db))
    parent = np.where(reach.parent[rows] == NONE, NONE, reach.mfn[reach.parent[rows]])
    # A table below one that is shared is met twice by the same entry: that is not its own fault.
    place = parent * WORDS + reach.index[rows]
    place = np.where(parent == NONE, -2 - reach.space[rows], place)
    order = np.lexsort((place, reach.mfn[rows]))
    rows, place = rows[order], place[order]
    mfn = reach.mfn[rows]
    same = np.flatnonzero((mfn[1:] == mfn[:-1]) & (place[1:] != place[:-1])) + 1

    def describe(i: int) -> Violation:
        row, other = int(rows[i]), int(rows[i - 1])
        if hangs_right(db, np.array([row]))[0] and not hangs_right(db, np.array([other]))[0]:
            row, other = other, row
        text = f"the same table is also at {reach.path(other)}; should have one parent"
        return table_entry(db, "T3", row, text)

    out.each("T3", same, describe)


def _t3_parents(db: Database, out: Report) -> None:
    """Where each table hangs, and its shadow there, as its slot says."""
    reach, slots = db.reach, db.slots
    rows = primary_rows(db)
    slot, parent = reach.slot[rows], reach.parent[rows]
    above = np.where(parent == NONE, 0, reach.slot[parent])
    bad = (slots.parent[slot] != above) | (slots.index[slot] != reach.index[rows])

    def describe(i: int) -> Violation:
        at = int(slot[i])
        text = (
            f"slot {at} names as parent entry {int(slots.index[at])} of slot {int(slots.parent[at])}, "
            f"but it hangs at entry {int(reach.index[rows[i]])} of slot {int(above[i])}"
        )
        return table_entry(db, "T3", int(rows[i]), text)

    out.each("T3", np.flatnonzero(bad), describe)
    hung = np.flatnonzero(above > 0)
    shadow = slots.shadow[above[hung], reach.index[rows[hung]]]
    wrong = hung[shadow != (slot[hung] | SHADOW_TABLE)]

    def shadow_text(i: int) -> Violation:
        have = int(slots.shadow[above[i], reach.index[rows[i]]])
        text = f"the shadow of its entry is {have:#x}, should be {int(slot[i]) | SHADOW_TABLE:#x}"
        return table_entry(db, "T3", int(rows[i]), text)

    out.each("T3", wrong, shadow_text)


def hangs_right(db: Database, rows: np.ndarray) -> np.ndarray:
    """True for rows that hang where their slots say."""
    reach, slots = db.reach, db.slots
    parent, slot = reach.parent[rows], reach.slot[rows]
    above = np.where(parent == NONE, 0, reach.slot[parent])
    return (slots.parent[slot] == above) & (slots.index[slot] == reach.index[rows])


def primary_rows(db: Database) -> np.ndarray:
    """One trusted row for each slot: where the slot says that it hangs, else where it was met first."""
    reach = db.reach
    rows = np.flatnonzero(reach.trusted & (reach.slot > 0))
    order = np.lexsort((rows, ~hangs_right(db, rows), reach.slot[rows]))
    first = np.unique(reach.slot[rows][order], return_index=True)[1]
    return rows[order[first]]


def _t3_shared(db: Database, out: Report) -> None:
    """The upper half of every root is the kernel's."""
    slots, rows = db.slots, db.spaces.rows
    roots = [s for s in rows if s.root < slots.count and slots.readable[s.root]]
    kernel = next((s.root for s in roots if s.kernel), 0)
    ignored = ~np.uint64(ACCESSED | DIRTY)
    half = WORDS // 2
    for space in roots:
        if space.kernel or not kernel:
            continue
        mine, theirs = slots.content[space.root], slots.content[kernel]
        bad = np.flatnonzero(((mine ^ theirs) & ignored)[half:]) + half
        shadows = slots.shadow[space.root][half:] != slots.shadow[kernel][half:]
        for i in bad.tolist():
            text = f"entry {i} of the root is not the kernel's, {int(theirs[i]):#x}"
            va = int(db.rules.canonical(np.array([i << db.rules.va_bits - 9], np.uint64))[0])
            out.add(
                "T3",
                text,
                space=space.name,
                va=va,
                level=db.rules.levels,
                entry=int(mine[i]),
                mfn=space.mfn,
            )
        for i in (np.flatnonzero(shadows) + half).tolist():
            text = (
                f"shadow {i} of the root is {int(slots.shadow[space.root, i]):#x}, not the kernel's"
            )
            out.add("T3", text, space=space.name, mfn=space.mfn)


def t4(db: Database, out: Report) -> None:
    """Tables are written in the window alone, each at its own slot."""
    reach, frames, slots = db.reach, db.frames, db.slots
    leaves = reach.leaves
    window = db.number("window")
    table = frames.kind[frames.heads] == db.kinds["FRAME_TABLE"]
    frame = reach.leaf_frame
    writable = (leaves.perm & W) != 0
    at = np.flatnonzero((frames.kind[frame] == db.kinds["FRAME_TABLE"]) & (frame > 0) & writable)
    large = np.flatnonzero((leaves.level > 1) & writable)
    first, pages = reach.leaf_mfn[large], reach.leaf_pages[large]
    at = np.union1d(at, large[frames.count_in(table, first, first + pages) > 0])
    own = np.uint64(window) + (frames.slot[reach.leaf_frame[at]].astype(np.uint64) << np.uint64(12))
    bad = at[(leaves.va[at] != own) | (reach.leaf_pages[at] != 1)]

    def describe(i: int) -> Violation:
        frame = int(reach.leaf_frame[i])
        slot = int(frames.slot[frame])
        text = (
            f"a page table, {frame_text(db, frame)}, can be written here; "
            f"should be only at {_shown_at(window, slot):#x} (slot {slot})"
        )
        return leaf(db, "T4", i, text)

    out.each("T4", bad, describe)
    end = np.uint64(min(window + (slots.count << 12), (1 << 64) - 1))
    inside = np.flatnonzero((leaves.va >= np.uint64(window)) & (leaves.va < end))
    slot = ((leaves.va[inside] - np.uint64(window)) >> np.uint64(12)).astype(np.int64)
    shown = slots.live | slots.spare
    mine = shown[slot] & (slots.frame[slot] == reach.leaf_frame[inside])
    strange = inside[~mine]

    def describe_window(i: int) -> Violation:
        number = (int(leaves.va[i]) - window) >> 12
        state = "holds another table" if shown[number] else "is free"
        text = f"the window shows mfn {int(reach.leaf_mfn[i]):#x} for slot {number}, which {state}"
        return leaf(db, "T4", i, text)

    out.each("T4", strange, describe_window)
    hidden = shown & slots.has_frame
    hidden[slot[mine]] = False

    def describe_hidden(slot: int) -> Violation:
        text = f"slot {slot}'s table is not shown at its place in the window, {_shown_at(window, slot):#x}"
        return slot_violation(db, "T4", slot, text)

    # Where a record says that it is, P5 says that the entry is not there.
    place = db.claims.record_at
    leaf_slot = _window_entries(db)
    told = (leaf_slot > 0) & (place[leaf_slot] != NONE)
    out.each("T4", np.flatnonzero(hidden & ~told), describe_hidden)
    _t4_metadata(db, out)


def _shown_at(window: int, slot: int) -> int:
    """Where the window shows a slot's table; within 64 bits, whatever mm.window holds."""
    return window + slot * PAGE & (1 << 64) - 1


def _t4_metadata(db: Database, out: Report) -> None:
    """The records of tables, frames and mappings are written in the arenas' windows alone."""
    reach, frames = db.reach, db.frames
    leaves = reach.leaves
    metadata = frames.kind[frames.heads] == db.kinds["FRAME_METADATA"]
    elsewhere = (leaves.perm & W) != 0
    for name in POOLS:
        arena = db.pool(name)
        if not 0 < arena.limit <= 1 << 40:
            return  # A3 tells that
        elsewhere &= leaves.va - np.uint64(arena.base) >= np.uint64(arena.limit)
    of = reach.leaf_frame
    known = elsewhere & (of > 0)
    at = np.flatnonzero(known & (frames.kind[of] == db.kinds["FRAME_METADATA"]))
    large = np.flatnonzero(elsewhere & (leaves.level > 1))
    first, pages = reach.leaf_mfn[large], reach.leaf_pages[large]
    bad = np.union1d(at, large[frames.count_in(metadata, first, first + pages) > 0])

    def describe(i: int) -> Violation:
        frame = frame_text(db, int(reach.leaf_frame[i]))
        return leaf(
            db,
            "T4",
            i,
            f"the manager's records, {frame}, can be written here; should be only in an arena",
        )

    out.each("T4", bad, describe)


def _window_entries(db: Database) -> np.ndarray:
    """For each slot the entry (slot * 512 + number) that should show it in the window, 0 if no table has it."""
    slots = db.slots
    va = np.uint64(db.number("window")) + (np.arange(slots.count, dtype=np.uint64) << np.uint64(12))
    kernel = db.spaces.rows[0].index if db.spaces.rows else 0
    one = np.ones(slots.count, np.uint8)
    found = slots.find(np.full(slots.count, kernel), one, va)
    return np.where(found > 0, found * WORDS + ((va >> np.uint64(12)).astype(np.int64) & 511), 0)


def t5(db: Database, out: Report) -> None:
    """What the CPU would refuse: reserved bits, PS where no pages are, large pages out of place."""
    for number, walk in enumerate(db.reach.walks):
        base = int(db.reach.base[number])
        kinds = np.isin(walk.findings.kind, (F_RESERVED, F_PS, F_ALIGN))
        trusted = db.reach.trusted[walk.findings.table + base]
        rows = np.flatnonzero(kinds & trusted)
        out.each("T5", rows, lambda i, n=number: _finding(db, "T5", n, i))  # type: ignore[misc]
    _t5_tables(db, out)


def _t5_tables(db: Database, out: Report) -> None:
    """Entries that point to tables are cached like everything else: no type bits in them."""
    reach = db.reach
    bad = (reach.entry & np.uint64(PWT | PCD)) != 0
    bad &= (reach.parent != NONE) & reach.trusted

    def describe(row: int) -> Violation:
        text = "an entry to a table has PWT or PCD set, should be clear"
        return table_entry(db, "T5", row, text)

    out.each("T5", np.flatnonzero(bad), describe)


def _finding(db: Database, rule: str, number: int, i: int) -> Violation:
    """What a walk found, with the path to it."""
    walk = db.reach.walks[number]
    f = walk.findings
    row = int(f.table[i]) + int(db.reach.base[number])
    text = f"{db.reach.path(row)}: {walk.describe(i)}"
    level, entry = int(f.level[i]), int(f.entry[i])
    name = db.spaces.rows[number].name
    return Violation(rule, text, name, int(f.va[i]), level, entry, int(walk.tables.mfn[f.table[i]]))


def t6(db: Database, out: Report) -> None:
    """Nothing hides: loops, tables outside RAM, walks that a bound ended."""
    for number, walk in enumerate(db.reach.walks):
        base = int(db.reach.base[number])
        kinds = np.isin(walk.findings.kind, (F_LOOP, F_UNREADABLE, F_BOUND))
        # The finding stands at the entry's own table, which must be one that is trusted.
        rows = np.flatnonzero(kinds)
        parents = walk.findings.table[rows] + base
        root = walk.tables.state[0] != 0
        keep = db.reach.trusted[parents] | root
        out.each("T6", rows[keep], lambda i, n=number: _finding(db, "T6", n, i))  # type: ignore[misc]
        for note in walk.notes:
            out.add("T6", f"{db.spaces.rows[number].name}: {note}")


RULES = [
    Rule("T1", "an entry that points to a table points to an allocated page-table frame", t1),
    Rule("T2", "of the right level", t2),
    Rule("T3", "with exactly one parent, or declared shared", t3),
    Rule("T4", "no table is writable outside the window meant for it", t4),
    Rule(
        "T5",
        "reserved bits clear (by MAXPHYADDR), PS only where allowed, large pages aligned",
        t5,
    ),
    Rule("T6", "no loop, nothing unreadable: what can't be read is a finding with its path", t6),
]
