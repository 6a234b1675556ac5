# SPDX-License-Identifier: BSD-2-Clause
# All frames by order and kind; and which frame a number means.
"""What ktf-frame shows of all frames; pure. block.Block is one of them.

    Summary(db)                  blocks by order and kind, free and used
    locate(db, value, how)       the page that a number means
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ktf.errors import KtfError
from ktf.kernel.chains import NONE
from ktf.kernel.database import Database
from ktf.kernel.regions import Regions
from ktf.memory.readers import PAGE
from ktf.show.text import size_text
from ktf.x86.trace import trace


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
    va: int | None = None  # if an address was given


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
        text = f"{va:#x} is not mapped in {name}: {found.problem}{where}"
        raise KtfError(f"{text}; `ktf-journal {va:#x}` knows who unmapped it, if that was lately")
    return Place(found.pa >> 12, f"address in {name}, mapped to {found.pa:#x}", va)


def no_frame(db: Database, mfn: int) -> str:
    """Why a page is in no frame."""
    if Regions(db).of(np.array([mfn]))[0] == NONE:
        return (
            f"mfn {mfn:#x} is in no frame: the boot's memory map does not list it, "
            "and nobody has asked for it as device memory"
        )
    return f"mfn {mfn:#x} is in no frame, though the boot's memory map lists it (A1)"
