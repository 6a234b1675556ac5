# SPDX-License-Identifier: BSD-2-Clause
# Rule A4: what can be counted agrees with what the kernel has counted.
"""Counters of orders, arenas, spaces and slots, and each word of struct mm that follows from others; docs/invariants.md has the list."""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Rule, Violation
from ktf.kernel.chains import NONE
from ktf.kernel.database import POOLS, Database
from ktf.kernel.locks import online_mask, owner
from ktf.memory.readers import PAGE
from ktf.rules.map import frame
from ktf.rules.tables import slot_violation

LOCKS = {"map_lock": "RANK_MAP", "frame_lock": "RANK_FRAME"}
# Words of struct mm that can only be 0, or 0 and 1.
ZERO = ("zero", "zero2")
FLAGS = ("live", "busy", "root_ready", "page_1g", "checking", "journal_on")


# --- A4 ------------------------------------------------------------------------------------------------


# Members of struct arena that say nothing for some arenas, and what is kept in stock.
UNUSED = {
    "ARENA_FRAMES": (),
    "ARENA_MAPPINGS": ("empty",),
    "ARENA_NODES": ("partial",),
    "ARENA_TABLES": ("free", "partial", "empty"),
    "ARENA_SHADOWS": ("free", "partial", "empty"),
    "ARENA_SPACES": ("empty",),
}


STOCKS = {
    "ARENA_FRAMES": "STOCK_FRAME_PAGES",
    "ARENA_MAPPINGS": "STOCK_MAPPINGS",
    "ARENA_NODES": "STOCK_NODES",
}


def a4(db: Database, out: Report) -> None:
    """Free is refcount 0 and mapcount 0, and every counter is what can be counted."""
    _a4_orders(db, out)
    _a4_free(db, out)
    _a4_arenas(db, out)
    _a4_spaces(db, out)
    _a4_slots(db, out)
    _state(db, out)


def _count(db: Database, out: Report, what: str, have: int, want: int) -> None:
    if have != want:
        out.add("A4", f"{what} is {have}, but {want} are counted")


def _a4_orders(db: Database, out: Report) -> None:
    """By ring, whatever order the blocks on it say that they have: that is A2's."""
    frames, rings = db.frames, db.rings
    ring = rings.ring[len(rings.marks) :]
    hung = np.flatnonzero(ring != NONE)
    heads = frames.heads if len(hung) == len(ring) else frames.heads[hung]
    ring = ring[hung] if len(hung) < len(ring) else ring
    every = np.bincount(ring, minlength=rings.count)
    free = np.bincount(ring[frames.is_free[heads]], minlength=rings.count)
    counted = (
        ("free", rings.free, free),
        ("used", rings.used, every - free),
        ("the sum of refcount", rings.refs, np.bincount(ring, frames.refcount[heads], rings.count)),
    )
    for order in range(rings.count):
        for name, have, want in counted:
            _count(db, out, f"order {order}: {name}", int(have[order]), int(want[order]))


def _a4_free(db: Database, out: Report) -> None:
    """Free blocks are available, have no mapping, and stand before the used ones of their ring."""
    frames, rings = db.frames, db.rings
    heads = frames.heads
    free = heads[frames.is_free[heads]]
    listed = free[frames.maps[free] != 0]
    out.each(
        "A4",
        listed,
        lambda i: frame(db, "A4", i, "is free by its counts, but has a list of mappings"),
    )
    device = free[frames.kind[free] == db.kinds["FRAME_DEVICE"]]
    out.each("A4", device, lambda i: frame(db, "A4", i, "neither owned nor mapped, should be gone"))
    owned = heads[frames.refcount[heads] > 1]
    extra = owned[frames.kind[owned] == db.kinds["FRAME_METADATA"]]

    def owners(i: int) -> Violation:
        return frame(
            db, "A4", i, f"refcount is {int(frames.refcount[i])}, should be 1: the manager's"
        )

    out.each("A4", extra, owners)
    first = len(rings.marks)
    is_free = np.concatenate([np.zeros(first, bool), frames.is_free[heads]])
    behind = np.flatnonzero(rings.forward_ok & ~is_free & is_free[rings.after])
    behind = behind[behind >= first]
    later = rings.nodes[rings.after[behind]]
    behind = behind[frames.order[rings.nodes[behind]] == frames.order[later]]

    def late(at: int) -> Violation:
        index = int(rings.nodes[rings.after[at]])
        return frame(db, "A4", index, "is free, but stands behind used ones in its ring")

    out.each("A4", behind, late)


def _a4_arenas(db: Database, out: Report) -> None:
    frames, maps, spaces = db.frames, db.mappings, db.spaces
    _count(
        db, out, "frames: free (empty pages)", db.pool("ARENA_FRAMES").free, len(frames.empty_pages)
    )
    _count(
        db, out, "mappings: free", db.pool("ARENA_MAPPINGS").free, int((~maps.objects.used).sum())
    )
    _count(db, out, "spaces: free", db.pool("ARENA_SPACES").free, int((~spaces.objects.used).sum()))
    for name in POOLS:
        pool = db.pool(name)
        for field in UNUSED.get(name, ()):
            if getattr(pool, field):
                out.add("A4", f"{pool.label}: {field} is {getattr(pool, field)}, should be 0")
        stock = db.constant(STOCKS[name]) if name in STOCKS else 0
        if pool.low != stock:
            out.add("A4", f"{pool.label}: low is {pool.low}, should be {stock}")
    levels = db.optional("levels")
    if levels not in (None, db.rules.levels):  # what a space says is T7's
        out.add("A4", f"mm.levels is {levels}, should be {db.rules.levels} as the CPU has them")


def _a4_spaces(db: Database, out: Report) -> None:
    slots = db.slots
    for row in db.spaces.rows:
        tables = int((slots.live & (slots.space == row.index)).sum())
        if row.tables != tables:
            text = f"tables is {row.tables}, but {tables} are counted"
            out.add("A4", text, space=row.name)
    ids = [r.id for r in db.spaces.rows]
    for row in db.spaces.rows:
        if (
            ids.count(row.id) > 1
            or row.id >= db.number("next_space")
            or (row.id == 0) != row.kernel
        ):
            text = f"id {row.id} is not its own, below mm.next_space, 0 for the kernel's"
            out.add("A4", text, space=row.name)


def _a4_slots(db: Database, out: Report) -> None:
    slots = db.slots
    _count(db, out, "mm.free_slots", db.number("free_slots"), int(slots.free.sum()))
    _count(db, out, "mm.stock_count", db.number("stock_count"), int(slots.spare.sum()))
    present = ((slots.content & np.uint64(1)) != 0).sum(axis=1)
    at = np.flatnonzero(slots.live & slots.readable)
    bad = at[slots.used[at] != present[at]]

    def describe(slot: int) -> Violation:
        text = f"slot {slot}: used is {int(slots.used[slot])}, but {int(present[slot])} entries are present"
        return slot_violation(db, "A4", slot, text)

    out.each("A4", bad, describe)


def _state(db: Database, out: Report) -> None:
    """Flags, sums and spare words."""
    _flags(db, out)
    _sums(db, out)
    _locks(db, out)
    _batch(db, out)


def _most(db: Database, out: Report, name: str, most: int) -> None:
    value = db.optional(name)
    if value is not None and value > most:
        out.add("A4", f"mm.{name} is {value:#x}, should be at most {most}")


def _flags(db: Database, out: Report) -> None:
    for name in ZERO:
        _most(db, out, name, 0)
    for name in FLAGS:
        _most(db, out, name, 1)
    _most(db, out, "work", 7)
    if db.mm["order"]["zero"][0].any():
        order = int(np.flatnonzero(db.mm["order"]["zero"][0])[0])
        out.add("A4", f"order {order}: zero is not 0")
    if db.number("live") != db.number("root_ready"):
        text = f"mm.live is {db.number('live')}, mm.root_ready is {db.number('root_ready')}"
        out.add("A4", f"{text}: both are 1 once the kernel's tables are loaded")
    if db.number("busy") and db.number("live") and not owner(db, "map_lock"):
        out.add("A4", "mm.busy is 1, but nobody holds map_lock")
    counts = db.number("check_every") != 0
    if counts != bool(db.number("work") & db.constant("MM_CHECK")) and not db.number("busy"):
        text = f"mm.check_every is {db.number('check_every')}, mm.work is {db.number('work'):#x}"
        out.add("A4", f"{text}: MM_CHECK should be set exactly if operations are counted")
    if not counts and (db.number("checking") or db.number("operations")):
        out.add("A4", "operations are counted or checked for mm.check_every, which is 0")


def _sums(db: Database, out: Report) -> None:
    """What is the sum or the multiple of something else."""
    size = db.layout("frame_t").size
    shown = db.pool("ARENA_FRAMES").pages * (PAGE // size)
    if db.number("frame_limit") != shown:
        text = f"mm.frame_limit is {db.number('frame_limit'):#x}"
        out.add("A4", f"{text}, but the window shows {shown:#x} descriptors")
    boot = sum(db.pool(name).boot for name in POOLS)
    if db.number("boot_pages") != boot:
        out.add("A4", f"mm.boot_pages is {db.number('boot_pages')}, but arenas have {boot}")
    step = db.layout("struct journal_event").size
    if db.number("journal_seq") % step:
        text = f"mm.journal_seq is {db.number('journal_seq'):#x}"
        out.add("A4", f"{text}, should be a multiple of an event's {step} bytes")


def _locks(db: Database, out: Report) -> None:
    """A lock's rank is its own; a CPU inside what it guards owns it; only CPUs wait for it."""
    ranks, mask = db.kernel.types.enum("lock_rank"), online_mask(db)
    mask |= sum(1 << n for n in db.cpus.starting() if n < db.cpus.room)  # go_online() may wait
    for lock, rank in LOCKS.items():
        row = db.mm[lock]
        inside, waiting, sleepers = (int(row[n][0]) for n in ("inside", "waiting", "sleepers"))
        if row["rank"][0] != ranks[rank]:
            out.add("A4", f"mm.{lock}: rank is {int(row['rank'][0])}, should be {ranks[rank]}")
        if inside and not owner(db, lock):  # another owner: smp.held()
            text = f"CPU {inside - 1} is inside, but nobody is the owner"
            out.add("A4", f"mm.{lock}: {text}")
        if waiting > 1 or sleepers & ~mask:
            text = f"waiting is {waiting:#x}, sleepers {sleepers:#x}"
            out.add("A4", f"mm.{lock}: {text}; should be 0 or 1, and running CPUs alone")


def _batch(db: Database, out: Report) -> None:
    """Nothing is to be flushed while nobody holds map_lock."""
    row = db.mm["batch"]
    if int(row["zero"][0]):
        out.add("A4", "mm.batch: zero is not 0")
    if owner(db, "map_lock"):
        return
    for name in ("pending", "all", "count", "tables", "records", "cpus", "runs"):
        if int(row[name][0]):
            text = f"mm.batch: {name} is {int(row[name][0]):#x}"
            out.add("A4", f"{text}, but nobody holds map_lock; should be 0")


# --- B1 ------------------------------------------------------------------------------------------------


# --- C1 ------------------------------------------------------------------------------------------------


RULES = [
    Rule(
        "A4", "free is exactly refcount 0 and mapcount 0; counters agree with what is counted", a4
    ),
]
