# SPDX-License-Identifier: BSD-2-Clause
# Rules P1 to P7: leaf entries, frames and mapping records agree, each with each of the others.
"""Each rule is a function of the database; docs/invariants.md says why and how each can be broken."""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Rule, Violation
from ktf.kernel.chains import NONE
from ktf.kernel.claims import Claims, type_bits
from ktf.kernel.database import Database
from ktf.kernel.memory_types import pat_names
from ktf.x86.memtype import pat_index
from ktf.x86.paging import perm_text, GLOBAL, NX, RW, US, entry_perm

LEAF_LEVELS = 3
ODD = np.array([bin(n).count("1") & 1 for n in range(32)], np.uint8)  # of home, by its value


def leaf(db: Database, rule: str, i: int, message: str) -> Violation:
    """A violation at leaf number i."""
    reach = db.reach
    leaves = reach.leaves
    return Violation(
        rule,
        message,
        space=reach.name(int(leaves.table[i])),
        va=int(leaves.va[i]),
        level=int(leaves.level[i]),
        entry=int(leaves.entry[i]),
        mfn=int(reach.leaf_mfn[i]),
    )


def at_entry(db: Database, rule: str, at: int, mfn: int | None, message: str) -> Violation:
    """A violation at entry `at` (slot * 512 + number)."""
    slots = db.slots
    slot, number = np.array([at >> 9]), np.array([at & 511])
    va = int(slots.entry_va(slot, number, db.rules)[0])
    space = db.spaces.name_of(int(slots.space[at >> 9]))
    entry = int(slots.content[at >> 9, at & 511])
    return Violation(rule, message, space, va, int(slots.level[at >> 9]), entry, mfn)


def rights(entry: int) -> str:
    """ "rw-u" and the like, as one entry has them."""
    return perm_text(int(entry_perm(np.array([entry], np.uint64), True)[0]))


def type_name(db: Database, entry: int, level: int) -> str:
    """Memory type that a leaf chooses."""
    index = pat_index(np.array([entry], np.uint64), np.array([level]))
    return pat_names(db.kernel.types)[int(index[0])]


def frame_text(db: Database, frame: int) -> str:
    """A frame in a few words."""
    f = db.frames
    kind = db.kind_name(int(f.kind[frame]))
    return f"frame {int(f.mfn[frame]):#x} (order {int(f.order[frame])}, {kind})"


# --- leaves against frames ---------------------------------------------------------------------------


def p1(db: Database, out: Report) -> None:
    """Every page of a leaf is in some frame."""
    reach, frames = db.reach, db.frames
    missing = reach.leaf_frame == 0
    large = np.flatnonzero(reach.leaf_pages > 1)
    if len(large):
        first, pages = reach.leaf_mfn[large], reach.leaf_pages[large]
        missing[large] |= frames.pages_in(first, first + pages) < pages

    def describe(i: int) -> Violation:
        first, pages = int(reach.leaf_mfn[i]), int(reach.leaf_pages[i])
        there = int(frames.pages_in(np.array([first]), np.array([first + pages]))[0])
        if pages == 1:
            text = f"maps mfn {first:#x}, which is in no frame; a leaf maps frames that exist"
        else:
            text = f"maps {pages} pages from mfn {first:#x} on, only {there} of them are in frames"
        return leaf(db, "P1", i, text)

    out.each("P1", np.flatnonzero(missing), describe)


def p2(db: Database, out: Report) -> None:
    """No leaf maps a page of a free frame."""
    reach, frames = db.reach, db.frames
    frame = reach.leaf_frame
    bad = (frame > 0) & frames.is_free[frame]
    large = np.flatnonzero((reach.leaf_pages > 1) & ~bad)
    free = frames.is_free[frames.heads]
    if len(large):
        first, pages = reach.leaf_mfn[large], reach.leaf_pages[large]
        bad[large] = frames.count_in(free, first, first + pages) > 0

    def describe(i: int) -> Violation:
        at = int(frame[i])
        if not frames.is_free[at]:
            first = int(reach.leaf_mfn[i])
            inside = frames.heads[free & (frames.place >= first)]
            at = int(inside[0])
        text = f"maps {frame_text(db, at)}, which is free: refcount 0, mapcount 0"
        return leaf(db, "P2", i, f"{text}; it may be handed out at any time")

    out.each("P2", np.flatnonzero(bad), describe)


def p3(db: Database, out: Report) -> None:
    """Leaves lie inside their frame and where their record says; records fit their frame."""
    _p3_leaves(db, out)
    _p3_places(db, out)
    _p3_records(db, out)


def _p3_leaves(db: Database, out: Report) -> None:
    reach, frames = db.reach, db.frames
    frame = reach.leaf_frame
    large = np.flatnonzero((reach.leaf_pages > 1) & (frame > 0))
    order = np.minimum(frames.order[frame[large]], 40).astype(np.int64)
    end = frames.mfn[frame[large]].astype(np.int64) + (np.int64(1) << order)
    bad = large[reach.leaf_mfn[large] + reach.leaf_pages[large] > end]

    def describe(i: int) -> Violation:
        at = int(frame[i])
        last = int(frames.mfn[at]) + (1 << int(frames.order[at])) - 1
        text = (
            f"maps {int(reach.leaf_pages[i])} pages, but {frame_text(db, at)} ends at mfn {last:#x}"
        )
        return leaf(db, "P3", i, text)

    out.each("P3", bad, describe)


def _p3_places(db: Database, out: Report) -> None:
    """Entries that map another page of the right block than their record says."""
    claims, frames = db.claims, db.frames
    some = claims.odd[claims.is_leaf(claims.odd)]
    some = some[((claims.want[some] ^ claims.have[some]) & claims.address(some)) != 0]
    mapped = (claims.have[some] & claims.address(some)) >> np.uint64(12)
    same = frames.find(mapped) == db.mappings.owner[claims.record[some]]

    def describe(i: int) -> Violation:
        have, want = mfn_of(claims, i, claims.have), mfn_of(claims, i, claims.want)
        row = int(claims.record[i])
        first = int(frames.mfn[db.mappings.owner[row]])
        text = (
            f"maps page {have - first:#x} of frame {first:#x}, {db.mappings.name(row)} "
            f"says page {want - first:#x}"
        )
        return at_entry(db, "P3", int(claims.at[i]), have, text)

    out.each("P3", some[same], describe)


def mfn_of(claims: Claims, i: int, entries: np.ndarray) -> int:
    """Frame number in claim i's entry, as it is or should be."""
    return (int(entries[i]) & int(claims.address(np.array([i]))[0])) >> 12


def _p3_records(db: Database, out: Report) -> None:
    """A record's own numbers: order, offset, level, and what they were at first."""
    maps, frames, claims = db.mappings, db.frames, db.claims
    known = maps.owner > 0
    order, home = maps.order.astype(np.int8), maps.home.astype(np.int8)
    offset = maps.offset.astype(np.int32)
    block = np.minimum(frames.order[maps.owner], 18).astype(np.int8)
    pages = np.int32(1) << np.minimum(order, 20).astype(np.int32)  # 18 is the largest
    home_depth = maps.home_level.astype(np.int8) * 9 - 9
    level_3 = claims.bad_shape & False if db.rules.page_1g else maps.level == 3
    tests = (
        (claims.bad_shape, "its order is too small for pages of its level (1 to 3)"),
        (level_3, "level 3, but this CPU has no 1 GiB pages"),
        (claims.other_level, "its level is not that of the table where it stands"),
        (offset & (pages - 1) != 0, "its offset is no multiple of 2^order"),
        (known & (offset + pages - 1 >> block != 0), "it reaches beyond its frame"),
        ((home < order) | (known & (home > block)), "home is below its order or above the frame's"),
        (
            (maps.home_level < maps.level) | (home < home_depth),
            "home_level is below its level, or too large for home",
        ),
        (maps.home_odd != ODD[maps.home & 31], "home_odd does not tell whether home is"),
        (maps.home_1g != (maps.home_level == 3), "home_1g does not tell whether home_level is 3"),
    )
    for bad, text in tests:
        rows = np.flatnonzero(bad & ~claims.no_table)
        out.each("P3", rows, lambda r, t=text: record(db, "P3", r, t))  # type: ignore[misc]


def record(db: Database, rule: str, row: int, text: str) -> Violation:
    """A violation of a record: where it maps, and its numbers."""
    maps = db.mappings
    numbers = ", ".join(
        f"{n} {int(getattr(maps, n)[row])}"
        for n in ("order", "offset", "level", "home", "home_level", "refs")
    )
    frame = int(maps.owner[row])
    message = (
        f"{maps.name(row)}: {text} ({numbers}; {frame_text(db, frame) if frame else 'no frame'})"
    )
    mfn = int(db.frames.mfn[frame]) if frame else None
    at = int(maps.at[row])
    if db.claims.no_table[row]:
        return Violation(rule, message, mfn=mfn)
    found = at_entry(db, rule, at, mfn, message)
    return Violation(rule, message, found.space, found.va, found.level, found.entry, mfn)


# --- leaves against records --------------------------------------------------------------------------


def p4(db: Database, out: Report) -> None:
    """Every leaf has its record, on its frame's list, with the same rights and type."""
    reach, claims, maps = db.reach, db.claims, db.mappings
    at = reach.leaf_at
    row = claims.record_at[at].astype(np.int64)
    here = at > 0
    lost = here & (row == NONE)
    out.each("P4", np.flatnonzero(lost), lambda i: _without_record(db, i))
    owner = np.where(row == NONE, 0, maps.owner[row]) if len(maps) else row * 0
    foreign = here & (row != NONE) & (owner > 0) & (owner != reach.leaf_frame)
    out.each("P4", np.flatnonzero(foreign), lambda i: _foreign(db, i, int(row[i])))
    shadow = db.slots.shadow.reshape(-1)[at]
    wrong = here & (row != NONE) & (shadow != (maps.index[row] if len(maps) else 0))

    def shadow_text(i: int) -> Violation:
        text = f"its shadow is {int(shadow[i]):#x}, should be its record's index: {maps.name(int(row[i]))}"
        return leaf(db, "P4", i, text)

    out.each("P4", np.flatnonzero(wrong), shadow_text)
    _p4_bits(db, out)
    _p4_above(db, out)


def _without_record(db: Database, i: int) -> Violation:
    frame = int(db.reach.leaf_frame[i])
    what = frame_text(db, frame) if frame else f"mfn {int(db.reach.leaf_mfn[i]):#x}"
    shadow = int(db.slots.shadow.reshape(-1)[db.reach.leaf_at[i]])
    text = f"maps {what}, but no record stands for this entry (its shadow is {shadow:#x})"
    return leaf(db, "P4", i, text)


def _foreign(db: Database, i: int, row: int) -> Violation:
    owner, frame = int(db.mappings.owner[row]), int(db.reach.leaf_frame[i])
    what = frame_text(db, frame) if frame else "no frame"
    text = f"maps {what}, but its record {db.mappings.name(row)} is on the list of {frame_text(db, owner)}"
    return leaf(db, "P4", i, text)


def _p4_bits(db: Database, out: Report) -> None:
    claims = db.claims
    some = claims.odd[claims.is_leaf(claims.odd)]
    bits = np.uint64(RW | US | NX) | type_bits(claims.level[some])
    some = some[((claims.want[some] ^ claims.have[some]) & bits) != 0]
    out.each("P4", some, lambda i: _bits_text(db, "P4", i))


def _bits_text(db: Database, rule: str, i: int) -> Violation:
    claims = db.claims
    have, want, level = int(claims.have[i]), int(claims.want[i]), int(claims.level[i])
    name = db.mappings.name(int(claims.record[i]))
    each = [f"{rights(e)} {type_name(db, e, level)}" for e in (have, want)]
    text = f"entry is {each[0]}, {name} says {each[1]}"
    if each[0] == each[1]:
        bits = (have ^ want) & claims.compared
        text = f"entry is {have:#x}, {name} says {want:#x}: bits {bits:#x} differ"
    return at_entry(db, rule, int(claims.at[i]), mfn_of(claims, i, claims.have), text)


def _p4_above(db: Database, out: Report) -> None:
    """Entries that point to tables: writable and executable, user exactly in user spaces."""
    reach = db.reach
    entry = reach.entry
    user = np.array([not s.kernel for s in db.spaces.rows], bool)[reach.space]
    want = np.uint64(RW) | np.where(user, np.uint64(US), np.uint64(0))
    wrong = (entry & np.uint64(RW | US | NX)) != want
    wrong &= (reach.parent != NONE) & reach.trusted

    def describe(row: int) -> Violation:
        have, should = int(entry[row]), int(want[row])
        text = (
            f"entry to a table is {rights(have)}, should be {rights(should)}: "
            "it changes the rights of all that is mapped below"
        )
        return table_entry(db, "P4", row, text)

    out.each("P4", np.flatnonzero(wrong), describe)


def table_entry(db: Database, rule: str, row: int, message: str) -> Violation:
    """A violation at the entry that points to the table of a row."""
    reach = db.reach
    text = f"{reach.path(row)}: {message}"
    level = int(reach.level[row])
    if reach.parent[row] == NONE:
        return Violation(rule, text, reach.name(row), None, level, None, int(reach.mfn[row]))
    va, entry = int(reach.va[row]), int(reach.entry[row])
    return Violation(rule, text, reach.name(row), va, level + 1, entry, int(reach.mfn[row]))


# --- records against leaves --------------------------------------------------------------------------


def p5(db: Database, out: Report) -> None:
    """Every entry of a record is there, as the record says; what no record stands for is empty."""
    claims, maps = db.claims, db.mappings
    bad = claims.odd
    # Another page of the right block is P3's.
    shape = claims.address(bad)
    moved = ((claims.want[bad] ^ claims.have[bad]) & shape) != 0
    frame = db.frames.find((claims.have[bad] & shape) >> np.uint64(12))
    within = moved & claims.is_leaf(bad) & (frame == maps.owner[claims.record[bad]])
    only_place = (
        (claims.want[bad] ^ claims.have[bad]) & ~shape & np.uint64(0x800000000001FFF)
    ) == 0
    bad = bad[~(within & only_place)]
    rows, first, counts = np.unique(claims.record[bad], return_index=True, return_counts=True)

    def describe(k: int) -> Violation:
        i = int(bad[first[k]])
        return _p5_text(db, i, int(counts[k]))

    out.each("P5", np.arange(len(rows)), describe)
    if claims.cut:
        out.add("P5", f"{claims.cut} records claim too many entries to be looked at")
    _p5_vacant(db, out)
    _p5_bits(db, out)


def _p5_text(db: Database, i: int, count: int) -> Violation:
    claims, maps = db.claims, db.mappings
    row = int(claims.record[i])
    have, want = int(claims.have[i]), int(claims.want[i])
    whole = 1 << (int(maps.order[row]) - 9 * (int(maps.level[row]) - 1))
    many = f" ({count} of its {whole} entries are wrong)" if whole > 1 else ""
    mfn = mfn_of(claims, i, claims.want)
    says = f"{maps.name(row)} says entry {want:#x}"
    if i in claims.missing:
        return record(db, "P5", row, f"no table covers all of it{many}")
    if not claims.present(np.array([i]))[0]:
        text = f"{says}, but it is not present"
    elif not claims.is_leaf(np.array([i]))[0]:
        text = f"{says}, but it points to a table: another page size"
    elif mfn_of(claims, i, claims.have) != mfn:
        text = f"{says}, but it maps mfn {mfn_of(claims, i, claims.have):#x}, should be {mfn:#x}"
    elif (have ^ want) & GLOBAL:
        text = f"{says}, but it is global"
    else:
        found = _bits_text(db, "P5", i)
        text = found.message
    return at_entry(db, "P5", int(claims.at[i]), mfn, text + many)


def _p5_vacant(db: Database, out: Report) -> None:
    """Entries that are not present, and that no record stands for, are 0, and so are their shadows."""
    slots, claims = db.slots, db.claims
    content, shadow = slots.content.reshape(-1), slots.shadow.reshape(-1)
    vacant = (content & np.uint64(1)) == 0
    vacant &= (content != 0) | (shadow != 0)
    at = np.flatnonzero(vacant)
    at = at[(claims.record_at[at] == NONE) & slots.readable[at >> 9]]

    def describe(i: int) -> Violation:
        text = f"the entry is not present, yet its shadow is {int(shadow[i]):#x}; both should be 0"
        return at_entry(db, "P5", i, None, text)

    out.each("P5", at, describe)


def _p5_bits(db: Database, out: Report) -> None:
    """No record has a memory type that there is not; the kernel's own table of what attributes make of an entry."""
    attrs, none = db.attrs, db.kernel.types.enum("memtype")["MEMTYPE_COUNT"]
    rows = np.flatnonzero(db.mappings.attr >= none << attrs.shift)

    def typeless(row: int) -> Violation:
        kind = int(db.mappings.attr[row]) >> attrs.shift
        return record(db, "P5", row, f"memory type {kind}, there are 0 to {none - 1}")

    out.each("P5", rows, typeless)
    if "leaf_bits" not in db.mm.layout.names:
        return
    attr = np.arange(attrs.table.shape[1])
    refused = (attr & (attrs.w | attrs.x) == attrs.w | attrs.x) | (attr >> attrs.shift >= none)
    have = db.mm["leaf_bits"][0]
    want = np.where(refused, np.uint64(0), attrs.table[1 : 1 + len(have)])
    for level, number in np.argwhere(have != want).tolist():
        text = f"is {int(have[level, number]):#x}, should be {int(want[level, number]):#x}"
        out.add("P5", f"mm.leaf_bits[{level}][{number}] {text}", level=level + 1)


# --- counts and places of records --------------------------------------------------------------------


def p6(db: Database, out: Report) -> None:
    """refs >= 1, mapcount is their sum, and no entry has two records."""
    maps, frames, claims = db.mappings, db.frames, db.claims
    out.each("P6", np.flatnonzero(maps.refs == 0), lambda r: record(db, "P6", r, "refs is 0"))
    sums = np.bincount(maps.owner, maps.refs, frames.count) if len(maps) else np.zeros(frames.count)
    wrong = frames.heads[sums[frames.heads] != frames.mapcount[frames.heads]]

    def describe(frame: int) -> Violation:
        text = (
            f"{frame_text(db, frame)}: mapcount is {int(frames.mapcount[frame])}, "
            f"but the refs of its mappings are {int(sums[frame])}"
        )
        return Violation("P6", text, mfn=int(frames.mfn[frame]))

    out.each("P6", wrong, describe)
    if not len(claims.at):
        return
    again = np.flatnonzero((claims.record_at[claims.at] != claims.record) & (claims.at > 0))

    def twice(i: int) -> Violation:
        first, second = int(claims.record[i]), int(claims.record_at[claims.at[i]])
        text = f"two records stand for this entry: {maps.name(first)} and {maps.name(second)}"
        return at_entry(db, "P6", int(claims.at[i]), None, text)

    out.each("P6", again, twice)


def p7(db: Database, out: Report) -> None:
    """Every record stands in a table of a live address space."""
    maps, slots, claims = db.mappings, db.slots, db.claims

    def no_table(row: int) -> Violation:
        at = int(maps.at[row])
        text = f"{maps.name(row)} stands in slot {at >> 9}, which holds no page table of any space"
        return _of_frame(db, row, text)

    def no_space(row: int) -> Violation:
        slot = int(maps.at[row]) >> 9
        text = f"{maps.name(row)} stands in slot {slot} of space {int(slots.space[slot]):#x}, which is gone"
        return _of_frame(db, row, text)

    out.each("P7", np.flatnonzero(claims.no_table), no_table)
    out.each("P7", np.flatnonzero(claims.no_space), no_space)


def _of_frame(db: Database, row: int, text: str) -> Violation:
    frame = int(db.mappings.owner[row])
    return Violation("P7", text, mfn=int(db.frames.mfn[frame]) if frame else None)


RULES = [
    Rule("P1", "a leaf entry maps frames that exist, over its whole size", p1),
    Rule("P2", "no leaf maps a free frame", p2),
    Rule(
        "P3",
        "the entry's size and place agree with the frame and its record: order, offset, alignment",
        p3,
    ),
    Rule(
        "P4",
        "a leaf has its record on the frame's list: same space, VA, permissions, memory type",
        p4,
    ),
    Rule("P5", "a record has its entries: present, same frame, size, bits", p5),
    Rule("P6", "refs >= 1; mapcount is the sum of the refs; no record twice or on two lists", p6),
    Rule("P7", "no record for an address space that is gone", p7),
]
