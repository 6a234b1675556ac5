# SPDX-License-Identifier: BSD-2-Clause
# Rule B1, and which locks are held: what a stop in the middle of an operation can say nothing about.
"""B1 compares unmap epochs; held() names the locks that CPUs hold, and the rules that each covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ktf.findings import Report, Rule, Violation
from ktf.kernel.database import Database
from ktf.kernel.locks import owner


# While a lock is held, what it guards may be between two states: these rules then prove nothing.
COVERED = {
    "map_lock": "P3 P4 P5 P6 P7 T1 T2 T3 T4 T7 A2 A3 A4 A6 M2 C1".split(),
    "frame_lock": "P1 P2 P3 A1 A2 A3 A4 A5 A6 B1".split(),
}


@dataclass(frozen=True)
class Held:
    """A lock that a CPU holds at this stop."""

    lock: str
    cpu: int
    where: str = ""

    def text(self) -> str:
        """Who has it, and where."""
        return f"CPU {self.cpu} holds {self.lock}" + (f", {self.where}" if self.where else "")


def held(db: Database, out: Report) -> list[Held]:
    """The locks held. An owner that is no CPU which runs, or runs outside of mm/, is a violation of A3, and covers nothing."""
    found = []
    online = _online(db)
    for lock in COVERED:
        if lock not in db.mm.layout.names:
            continue
        owner = int(db.mm[lock]["owner"][0])
        inside = int(db.mm[lock]["inside"][0])
        if inside and owner and inside != owner:
            text = f"mm.{lock}: CPU {inside - 1} is inside, but the owner is {owner:#x}"
            out.add_blind("A4", f"{text}, as no operation leaves it")
            continue
        if owner == 0:
            continue
        # One that is about to be online takes the lock for it.
        if owner <= len(online) and (online[owner - 1] or owner - 1 in db.cpus.starting()):
            at = db.session.unwind(db.cpus.index(owner - 1))
            if not at.outside():
                found.append(Held(lock, owner - 1, at.text()))
                continue
            text = f"mm.{lock} is held by CPU {owner - 1}, which is in no function of mm/"
            out.add_blind("A3", f"{text} but in {at.chain()}: it was not given back")
        else:
            out.add_blind("A3", f"mm.{lock} is held by {owner:#x}, which stands for no running CPU")
    return found


def _online(db: Database) -> np.ndarray:
    """Which CPU numbers are up."""
    if "cpu" not in db.mm.layout.names:
        return np.zeros(0, bool)
    online: np.ndarray = db.mm["cpu"]["online"][0] != 0
    return online


def b1(db: Database, out: Report) -> None:
    """No frame is free that some CPU was asked to flush for, and has not."""
    if "cpu" not in db.mm.layout.names:
        return
    frames = db.frames
    heads = frames.heads
    free = heads[(frames.refcount[heads] | frames.mapcount[heads]) == 0]
    epoch = frames.slot[free].astype(np.uint32)
    cpus = db.mm["cpu"][0]
    for number in range(len(cpus)):
        asked = np.uint32(cpus.value("asked", number))
        flushed = np.uint32(cpus.value("flushed", number))
        if not cpus.value("online", number):
            if (asked or flushed) and number not in db.cpus.starting():
                text = f"CPU {number} is not online, but was asked to flush up to epoch {asked}"
                out.add("B1", text)
            continue
        # Epochs wrap around: differences count.
        with np.errstate(over="ignore"):
            late = (epoch - flushed).astype(np.int32) > 0
            late &= (asked - epoch).astype(np.int32) >= 0
        bad = np.flatnonzero(late)

        def describe(i: int, cpu: int = number, done: int = int(flushed)) -> Violation:
            frame = int(free[i])
            text = (
                f"frame {int(frames.mfn[frame]):#x} (order {int(frames.order[frame])}) is free; it was last "
                f"unmapped in epoch {int(epoch[i])}, and CPU {cpu} has flushed up to epoch {done}"
            )
            return Violation("B1", text, mfn=int(frames.mfn[frame]))

        out.each("B1", bad, describe)
    b1_rounds(db, out)


WRAPS = 1 << 31  # epochs beyond this may have wrapped around


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


RULES = [
    Rule("B1", "no frame is free that some CPU has not flushed since its last unmap", b1),
]
