# SPDX-License-Identifier: BSD-2-Clause
# What struct mm says of the manager's own state: flags, sums, locks, who has which space. Parts of A4, B1 and C1.
"""Each word of struct mm that something else tells as well, held against that; docs/invariants.md has the list."""

from __future__ import annotations

import numpy as np

from ktf.findings import Report
from ktf.kernel.database import POOLS, Database
from ktf.memory.readers import PAGE

LOCKS = {"map_lock": "RANK_MAP", "frame_lock": "RANK_FRAME"}
WRAPS = 1 << 31  # epochs beyond this may have wrapped around
# Words of struct mm that can only be 0, or 0 and 1.
ZERO = ("zero", "zero2")
FLAGS = ("live", "busy", "root_ready", "page_1g", "checking", "journal_on")


def owner(db: Database, lock: str) -> int:
    """Token of the CPU that holds it, 0 if nobody does."""
    return int(db.mm[lock]["owner"][0]) if lock in db.mm.layout.names else 0


def online_mask(db: Database) -> int:
    """A bit for each CPU that is up."""
    return sum(1 << i for i in np.flatnonzero(db.mm["cpu"]["online"][0] != 0).tolist())


# --- A4 ------------------------------------------------------------------------------------------------


def a4_state(db: Database, out: Report) -> None:
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
        if inside and not owner(db, lock):  # another owner: rules_smp.held()
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


def b1_rounds(db: Database, out: Report) -> None:
    """No epoch lies in the future; while nobody holds map_lock every CPU has flushed all that it was asked for."""
    if owner(db, "map_lock") or out.counts["B1"]:
        return  # the frames that this leads to are reported already
    epoch = db.number("epoch")
    cpus = db.mm["cpu"][0]
    for number in np.flatnonzero(cpus["online"] != 0).tolist():
        asked, flushed = cpus.value("asked", number), cpus.value("flushed", number)
        if asked != flushed:
            text = f"CPU {number} was asked to flush up to epoch {asked}, has up to {flushed}"
            out.add("B1", f"{text}, and nobody holds map_lock")
        if epoch < WRAPS and asked > epoch:
            out.add("B1", f"CPU {number} was asked to flush up to epoch {asked}, now is {epoch}")
    if epoch >= WRAPS:
        return
    frames = db.frames
    heads = frames.heads[frames.kind[frames.heads] != db.kinds["FRAME_TABLE"]]
    for frame in heads[frames.slot[heads] > epoch][:50].tolist():
        text = f"frame {int(frames.mfn[frame]):#x} was unmapped in epoch {int(frames.slot[frame])}"
        out.add("B1", f"{text}, now is {epoch}", mfn=int(frames.mfn[frame]))


# --- C1 ------------------------------------------------------------------------------------------------


def c1_masks(db: Database, out: Report) -> None:
    """Each space knows the CPUs that may hold its entries; CPUs that are not there have no space."""
    if owner(db, "map_lock") or not db.number("live"):
        return
    cpus = db.mm["cpu"][0]
    online = cpus["online"]
    for number in np.flatnonzero(online > 1).tolist():
        out.add("C1", f"mm.cpu[{number}].online is {int(online[number]):#x}, should be 0 or 1")
    for number in np.flatnonzero((online == 0) & (cpus["space"] != 0)).tolist():
        out.add("C1", f"mm.cpu[{number}] is not online, but has a space")
    for space in db.spaces.rows:
        flat = int(db.spaces.objects.flat_of(np.array([space.index]))[0])
        have = db.spaces.raw.value("cpus", flat)
        mine = (online != 0) & (space.kernel | (cpus["space"] == space.index))
        want = sum(1 << i for i in np.flatnonzero(mine).tolist())
        if have != want:
            text = f"cpus is {have:#x}, but the CPUs that use it are {want:#x}"
            out.add("C1", f"space {space.index:#x}: {text}", space=space.name)
    _roots(db, out)


def _roots(db: Database, out: Report) -> None:
    """kernel_cr3 and ap_cr3 (0 if no CPU was to be started) hold the kernel's root."""
    kernel = next((s for s in db.spaces.rows if s.kernel), None)
    for name, optional in (("kernel_cr3", False), ("ap_cr3", True)):
        symbol = db.kernel.types.symbol(name)
        if symbol is None or kernel is None:
            continue
        value = int.from_bytes(db.kernel.read(symbol.va, 8), "little")
        started = optional and bin(online_mask(db)).count("1") == 1
        if value != kernel.cr3 and not (started and value == 0):
            text = f"{name} is {value:#x}, but the kernel's root is at {kernel.cr3:#x}"
            out.add("C1", text, mfn=value >> 12)
