# SPDX-License-Identifier: BSD-2-Clause
# Rules A1 and A6: frames cover the boot's memory map, and their kinds agree with it.
"""Rules on the memory map; docs/invariants.md says why and how each can be broken."""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Rule, Violation
from ktf.kernel.chains import NONE
from ktf.kernel.database import POOLS, Database
from ktf.kernel.regions import Regions
from ktf.memory.readers import PAGE
from ktf.rules.mappings import frame_text


# Kinds that no boot map has.
NOT_BOOTED = ("FRAME_NONE", "FRAME_TABLE", "FRAME_METADATA", "FRAME_DEVICE", "FRAME_KIND_COUNT")
# Parts of the kernel's image, from image_PART_start to image_PART_end (boot/kernel.ld), and the kind of their regions.
PARTS = {
    "boot": "FRAME_IMAGE",
    "text": "FRAME_TEXT",
    "rodata": "FRAME_RODATA",
    "data": "FRAME_DATA",
    "bss": "FRAME_BSS",
}


def frame(db: Database, rule: str, index: int, text: str) -> Violation:
    """A violation at the frame with that descriptor."""
    return Violation(rule, f"{frame_text(db, index)}: {text}", mfn=int(db.frames.mfn[index]))


def a1(db: Database, out: Report) -> None:
    """Every page of the boot map is in exactly one frame; outside of it only devices have frames."""
    regions, frames = Regions(db), db.frames
    _a1_regions(db, regions, out)
    place, ends = frames.place, frames.ends
    over = np.flatnonzero(ends[:-1] > place[1:])

    def overlap(i: int) -> Violation:
        other = frame_text(db, int(frames.heads[i + 1]))
        return frame(db, "A1", int(frames.heads[i]), f"overlaps {other}")

    out.each("A1", over, overlap)
    _a1_gaps(db, regions, out)
    at = regions.of_sorted(place)
    outside = np.flatnonzero(at == NONE)
    outside = outside[frames.kind[frames.heads[outside]] != db.kinds["FRAME_DEVICE"]]
    out.each(
        "A1",
        frames.heads[outside],
        lambda i: frame(db, "A1", i, "lies outside the memory map; only device memory does"),
    )
    last = np.append(
        regions.last, np.iinfo(np.int64).max
    )  # where none is: NONE counts from the end
    beyond = np.flatnonzero(ends > last[at])

    def reaches(i: int) -> Violation:
        end = int(regions.last[at[i]])
        return frame(
            db, "A1", int(frames.heads[i]), f"reaches beyond its region, which ends at mfn {end:#x}"
        )

    out.each("A1", beyond, reaches)
    limit = db.number("phys_limit") >> 12
    high = frames.heads[ends > limit] if limit else frames.heads[:0]
    out.each("A1", high, lambda i: frame(db, "A1", i, f"lies beyond mm.phys_limit, mfn {limit:#x}"))


def _a1_regions(db: Database, regions: Regions, out: Report) -> None:
    limit = db.number("phys_limit")
    if limit & (limit - 1) or not 1 << 32 <= limit <= 1 << 52:
        out.add("A1", f"mm.phys_limit is {limit:#x}, should be a power of two from 2^32 to 2^52")
    elif db.session.rules.phys_bits != 52 and limit != 1 << db.session.rules.phys_bits:
        bits = db.session.rules.phys_bits
        out.add(
            "A1", f"mm.phys_limit is {limit:#x}, but the CPU has {bits} bits of physical address"
        )
    if not len(regions.start):
        out.add("A1", "the memory map is empty")
    for i in np.flatnonzero(regions.bad).tolist():
        raw = db.regions[i : i + 1]
        text = f"[{raw.value('start', 0):#x}, {raw.value('end', 0):#x}) zero {raw.value('zero', 0)}"
        out.add("A1", f"region {i} {text} is no stretch of whole pages")
    rest = db.mm["region"][0][len(db.regions) :]
    if any(rest[name].any() for name in ("start", "end", "kind", "zero")):
        out.add("A1", f"mm.region[] is not blank behind its {len(db.regions)} regions")
    for i in range(1, len(regions.start)):
        if regions.start[i] < regions.end[i - 1]:
            text = (
                f"region {i} starts at mfn {int(regions.start[i]):#x}, before region {i - 1} ends"
            )
            out.add("A1", text, mfn=int(regions.start[i]))


def _a1_gaps(db: Database, regions: Regions, out: Report) -> None:
    frames = db.frames
    covered = frames.pages_in(regions.first, regions.last)
    short = np.flatnonzero(covered != regions.last - regions.first)

    def describe(i: int) -> Violation:
        ends = frames.ends
        first, last = int(regions.first[i]), int(regions.last[i])
        points = np.concatenate([[first], ends[(ends > first) & (ends < last)]])
        empty = frames.pages_in(points, points + 1) == 0
        at = int(points[empty].min()) if empty.any() else first
        missing = last - first - int(covered[i])
        kind = db.kind_name(int(regions.kinds[i]))
        where = f"region {int(regions.number[i])} ({kind}, mfn {first:#x} to {last - 1:#x})"
        text = f"{missing} pages have no frame, the first is {at:#x}"
        if missing < 0:  # of blocks that overlap pages count twice
            text = f"its frames have {-missing} pages more than it has"
        return Violation("A1", f"{where}: {text}", mfn=at)

    out.each("A1", short, describe)


def a6(db: Database, out: Report) -> None:
    """Kinds agree with the memory map, and what is not available is owned."""
    frames, kinds = db.frames, db.kinds
    heads, kind = frames.heads, frames.kind[frames.heads]
    unknown = kind >= kinds["FRAME_KIND_COUNT"]
    out.each("A6", heads[unknown], lambda i: frame(db, "A6", i, "is of no kind"))
    regions = Regions(db)
    at = regions.of_sorted(frames.place)
    region_kind = np.append(regions.kinds, np.uint32(0))[at]
    # What the manager makes of available memory.
    given = np.isin(np.arange(256), [kinds[k] for k in ("FRAME_TABLE", "FRAME_METADATA")])
    bad = np.flatnonzero((kind != region_kind) & (at != NONE) & ~unknown)
    bad = bad[(region_kind[bad] != kinds["FRAME_AVAILABLE"]) | ~given[kind[bad]]]

    def misfit(i: int) -> Violation:
        says = db.kind_name(int(region_kind[i]))
        return frame(db, "A6", int(heads[i]), f"the memory map says {says}")

    out.each("A6", bad, misfit)
    handed = np.array([kinds["FRAME_AVAILABLE"], kinds["FRAME_DEVICE"]])
    free = heads[frames.refcount[heads] == 0]
    free = free[~np.isin(frames.kind[free], handed)]
    out.each(
        "A6",
        free,
        lambda i: frame(db, "A6", i, "refcount is 0; it is never handed out, so never given back"),
    )
    valid = np.array([value for name, value in kinds.items() if name not in NOT_BOOTED])
    for i in np.flatnonzero(~np.isin(regions.kind, valid)).tolist():
        out.add("A6", f"region {i} is of kind {int(regions.kind[i])}, which no boot map has")
    _a6_image(db, regions, out)
    meta = heads[kind == kinds["FRAME_METADATA"]]
    pools = [db.pool(name).mfn for name in POOLS]
    stray = meta[~np.isin(frames.mfn[meta].astype(np.int64), np.concatenate(pools))]
    out.each("A6", stray, lambda i: frame(db, "A6", i, "is metadata, but no page of an arena"))


def _a6_image(db: Database, regions: Regions, out: Report) -> None:
    """The regions of the image's parts are of their kinds: a region and all its frames could be wrong alike."""
    for part, name in PARTS.items():
        edges = [db.kernel.types.symbol(f"image_{part}_{edge}") for edge in ("start", "end")]
        if edges[0] is None or edges[1] is None:
            continue
        start, end = (db.kernel.image_pa(va) for va in (edges[0].va, edges[1].va - 1))
        if start is None or end is None:
            continue
        pages = np.arange(start // PAGE, end // PAGE + 1)
        kind = np.append(regions.kinds, np.uint32(0))[regions.of(pages)]
        bad = pages[kind != db.kinds[name]]
        if len(bad):
            says = db.kind_name(int(kind[bad[0] - pages[0]]))
            text = f"mfn {int(bad[0]):#x} is of the image's part {part}: the memory map says {says}"
            out.add("A6", text, mfn=int(bad[0]))


RULES = [
    Rule("A1", "the boot memory map is covered, without gap or overlap", a1),
    Rule("A6", "a reserved frame is never free and its kind agrees with the memory map", a6),
]
