# SPDX-License-Identifier: BSD-2-Clause
# Rules M1 and M2: memory types of what is mapped, by the PAT and the MTRRs.
"""Rules on memory types; docs/invariants.md says why and how each can be broken."""

from __future__ import annotations

import numpy as np

from ktf.errors import KtfError
from ktf.findings import Report, Rule, Violation
from ktf.kernel.chains import NONE
from ktf.kernel.database import Database
from ktf.kernel.layout import Records
from ktf.kernel.memory_types import memory_types
from ktf.memory.readers import PAGE
from ktf.x86.cpu import CR0_CD, CR0_NW

from ktf.rules.mappings import frame_text, leaf
from ktf.x86.memtype import EFFECTIVE, MIXED, NAMES, UC, WB, WC, WP, WT, MemoryTypes, Mtrr

ALLOWED = (UC, WC, WT, WP, WB)  # in MTRRs


def m1(db: Database, out: Report) -> None:
    """No leaf of a device's frame chooses write-back, whatever the MTRRs make of it."""
    reach, frames = db.reach, db.frames
    device = frames.kind == db.kinds["FRAME_DEVICE"]
    some = np.flatnonzero(device[reach.leaf_frame] & (reach.leaf_frame > 0))
    if not len(some):
        return
    types, _ = memory_types(db.kernel)
    few = reach.leaves.take(some)
    bad = some[types.of_entry(few.entry, few.level) == WB]

    def describe(i: int) -> Violation:
        one = reach.leaves.take(slice(i, i + 1))
        made = NAMES[int(types.of(one.entry, one.level, one.pa)[0])]
        text = (
            f"device memory, {frame_text(db, int(reach.leaf_frame[i]))}, is mapped WB "
            f"(the MTRRs make {made} of it), should be uncached"
        )
        return leaf(db, "M1", i, text)

    out.each("M1", bad, describe)


def m2(db: Database, out: Report) -> None:
    """All leaves of a frame have one effective type, and each has one over its whole size."""
    types, unknown = memory_types(db.kernel)
    for text in unknown:
        out.add("M2", text)
    _m2_sources(db, out)
    if types.mtrr is not None:
        _m2_kinds(db, types.mtrr, out)
    _m2_several(db, types, out)
    _m2_within(db, types, out)
    m2_control(db, out)


def _m2_sources(db: Database, out: Report) -> None:
    """The guest's table for the PAT MSR, and its copy of the MTRRs, hold what there can be."""
    kernel = db.kernel
    symbol = kernel.types.symbol("memtype_pat")
    names = kernel.types.enum("memtype")
    try:
        if symbol is not None:
            pat = kernel.read(symbol.va, symbol.size)
            types, _ = memory_types(kernel)
            for i in range(names["MEMTYPE_COUNT"]):
                if pat[i] != types.pat[i]:
                    have, want = NAMES[min(pat[i], MIXED)], NAMES[int(types.pat[i])]
                    out.add("M2", f"memtype_pat[{i}] is {pat[i]:#x} ({have}), should be {want}")
        _m2_mtrr(db, kernel.variable("mtrr", "struct mtrr"), out)
    except KtfError as e:
        out.add("M2", f"PAT and MTRRs can't be read: {e}")


def _m2_mtrr(db: Database, row: Records, out: Report) -> None:
    bits = db.kernel.types.enum("mtrr_bits")
    cap, default, count = (row.value(n, 0) for n in ("cap", "def_type", "count"))
    base, mask = row["base"][0], row["mask"][0]
    if row.value("limit", 0) != db.number("phys_limit"):
        have, want = row.value("limit", 0), db.number("phys_limit")
        out.add("M2", f"mtrr.limit is {have:#x}, but mm.phys_limit is {want:#x}")
    if count != min(cap & bits["MTRR_CAP_COUNT"], len(base)):
        out.add("M2", f"mtrr.count is {count}, but mtrr.cap is {cap:#x}")
        count = min(count, len(base))
    if row.value("zero", 0) or base[count:].any() or mask[count:].any():
        out.add("M2", f"mtrr is not blank behind its {count} ranges")
    used = (mask[:count] & np.uint64(bits["MTRR_MASK_VALID"])) != 0
    kinds = (base[:count][used] & np.uint64(0xFF)).tolist()
    if cap and default & bits["MTRR_DEF_ENABLE"]:
        kinds.append(default & bits["MTRR_DEF_TYPE"])
    if default & bits["MTRR_DEF_FIXED"] and cap & bits["MTRR_CAP_FIXED"]:
        kinds += row["fixed"][0].copy().view(np.uint8).tolist()
    for kind in sorted(set(kinds) - set(ALLOWED)):
        out.add("M2", f"mtrr holds type {kind:#x}, which no MTRR can have")


def _m2_kinds(db: Database, mtrr: Mtrr, out: Report) -> None:
    """mm.wb_kinds names the kinds whose regions are write-back throughout, by the MTRRs."""
    size = mtrr.mask & (~mtrr.mask + np.uint64(1))
    if (mtrr.mask + size != np.uint64(mtrr.limit)).any():
        return  # ranges in pieces: where they change is not listed
    first = mtrr.base & mtrr.mask
    low = np.arange(0, 1 << 20, PAGE, dtype=np.uint64)
    edges = np.concatenate([first, first + size, low if mtrr.fixed is not None else low[:0]])
    want = (1 << 32) - 1 & ~(1 << db.kinds["FRAME_DEVICE"])
    for i in range(len(db.regions)):
        start, end, kind = (db.regions.value(name, i) for name in ("start", "end", "kind"))
        inside = edges[(edges > start) & (edges < end)]
        places = np.append(inside, np.uint64(start))
        if kind < 32 and mtrr.active and (mtrr.at(places) != WB).any():
            want &= ~(1 << kind)
    have = db.number("wb_kinds")
    if have != want:
        out.add("M2", f"mm.wb_kinds is {have:#x}, but by the MTRRs it should be {want:#x}")


def _m2_several(db: Database, types: MemoryTypes, out: Report) -> None:
    """Leaves of one frame, by their entries; where these differ, by what the MTRRs make of both."""
    reach = db.reach
    leaves, frame = reach.leaves, reach.leaf_frame
    entry = types.of_entry(leaves.entry, leaves.level)
    odd = np.flatnonzero((entry != WB) & (frame > 0))
    if not len(odd):
        return
    first = np.full(db.frames.count, NONE, np.int64)
    has = np.zeros(db.frames.count, bool)
    has[frame[odd]] = True
    some = np.flatnonzero(has[frame] & (frame > 0))
    first[frame[some[::-1]]] = some[::-1]  # the lowest address stays
    differs = some[entry[some] != entry[first[frame[some]]]]
    few = leaves.take(differs)
    mine = types.of(few.entry, few.level, few.pa)
    theirs = _at(types, entry[first[frame[differs]]], few.pa, few.level)

    def describe(k: int) -> Violation:
        i = int(differs[k])
        other = int(first[frame[i]])
        place = f"{reach.name(int(leaves.table[other]))} va {int(leaves.va[other]):#x}"
        text = (
            f"{frame_text(db, int(frame[i]))} is {NAMES[int(mine[k])]} here, but "
            f"{NAMES[int(theirs[k])]} at {place}; should be of one memory type"
        )
        return leaf(db, "M2", i, text)

    out.each("M2", np.flatnonzero(mine != theirs), describe)


def _at(types: MemoryTypes, own: np.ndarray, pa: np.ndarray, level: np.ndarray) -> np.ndarray:
    """What the MTRRs there make of these types of entries."""
    return own if types.mtrr is None else EFFECTIVE[own, types.mtrr.sets(pa, level)]


def _m2_within(db: Database, types: MemoryTypes, out: Report) -> None:
    """Large pages over which the MTRRs change: the effective type is not defined (SDM vol. 3, 12.11.9)."""
    reach = db.reach
    large = np.flatnonzero(reach.leaves.level > 1)
    few = reach.leaves.take(large)
    bad = large[types.of(few.entry, few.level, few.pa) == MIXED]

    def describe(i: int) -> Violation:
        text = f"maps {int(reach.leaf_pages[i])} pages, of which the MTRRs say several types"
        return leaf(db, "M2", i, text)

    out.each("M2", bad, describe)


def m2_control(db: Database, out: Report) -> None:
    """Caches are on."""
    for cpu in db.cpus.running():
        if cpu.cr0 & (CR0_CD | CR0_NW):
            text = f"CR0 is {cpu.cr0:#x}, CD and NW should be off: nothing is cached"
            out.add("M2", f"CPU {cpu.number}: {text}")


RULES = [
    Rule("M1", "device memory is never mapped write-back", m1),
    Rule("M2", "all mappings of a frame have one effective memory type (PAT MSR and MTRRs)", m2),
]
