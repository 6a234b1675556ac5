# SPDX-License-Identifier: BSD-2-Clause
# Rules X1 to X3: what may be done with an address, by the rights of all levels and the CPUs' protection.
"""Rules on effective rights; docs/invariants.md says why and how each can be broken."""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Rule, Violation
from ktf.kernel.database import Database
from ktf.memory.readers import PAGE
from ktf.x86.cpu import CR4_PKE, CR4_PKS

from ktf.rules.mappings import frame_text, leaf, record
from ktf.rules.stacks import Stacks
from ktf.x86.cpu import CR0_WP, CR4_SMAP, CR4_SMEP, CR4_UMIP
from ktf.x86.paging import perm_text, U, W, X


def what(db: Database, i: int) -> str:
    """What leaf i maps, in a few words."""
    frame = int(db.reach.leaf_frame[i])
    return frame_text(db, frame) if frame else f"mfn {int(db.reach.leaf_mfn[i]):#x}"


def x1(db: Database, out: Report) -> None:
    """By the effective rights of all levels nothing is writable and executable."""
    leaves = db.reach.leaves
    bad = np.flatnonzero((leaves.perm & (W | X)) == (W | X))

    def describe(i: int) -> Violation:
        rights = perm_text(int(leaves.perm[i]))
        return leaf(db, "X1", i, f"{what(db, i)} is {rights}: writable and executable")

    out.each("X1", bad, describe)
    _x1_image(db, out)
    for cpu in db.cpus.every:
        if not cpu.paging_problem() and not cpu.nxe:
            text = "EFER.NXE is off: everything that can be read can be executed"
            out.add("X1", f"{db.cpus.name(cpu)}: {text}")


# Parts of the kernel's image, from image_PART_start to image_PART_end (boot/kernel.ld), and what they may be at most.
IMAGE = {"text": X, "rodata": 0, "data": W, "bss": W}


def _x1_image(db: Database, out: Report) -> None:
    """At its own addresses no part of the kernel's image has more rights than the kernel's start gives it."""
    leaves = db.reach.leaves
    for part, most in IMAGE.items():
        start, end = (db.kernel.types.symbol(f"image_{part}_{e}") for e in ("start", "end"))
        if start is None or end is None or start.va >= end.va:
            continue
        # From the first large page that may reach it on.
        low, last = np.uint64(start.va & -(1 << 30)), np.uint64(end.va - 1)
        at = np.flatnonzero((leaves.va >= low) & (leaves.va <= last))
        at = at[leaves.va[at] + (leaves.take(at).size - np.uint64(1)) >= np.uint64(start.va)]
        have = leaves.perm[at] & np.uint8(W | X)
        bad = at[(have & np.uint8(~most & 255) != 0) & (have != W | X)]  # both: said above

        def describe(i: int, part: str = part, most: int = most) -> Violation:
            rights = f"{what(db, i)} is {perm_text(int(leaves.perm[i]))}"
            text = f"{rights}, the {part} of the kernel's image: should be {perm_text(most)}"
            return leaf(db, "X1", i, text)

        out.each("X1", bad, describe)


# --- X2 ------------------------------------------------------------------------------------------------

# Kinds of frames that ring 3 may not write, and those that it may not even read.
NOT_WRITTEN = ("FRAME_IMAGE", "FRAME_TEXT", "FRAME_RODATA", "FRAME_DATA", "FRAME_BSS")
NOT_READ = ("FRAME_TABLE", "FRAME_METADATA")
# Protection in CR4, and what is open without it.
PROTECTION = (
    (CR4_SMEP, "SMEP", "the kernel can execute what user code can reach"),
    (CR4_SMAP, "SMAP", "the kernel can read and write what user code can reach by mistake"),
    (CR4_UMIP, "UMIP", "user code can read where the kernel's tables are"),
)


def x2(db: Database, out: Report) -> None:
    """Ring 3 reaches nothing outside of the lower half of user spaces; the CPUs' protection is on."""
    reach = db.reach
    leaves = reach.leaves
    kernel = np.array([s.kernel for s in db.spaces.rows] or [True], bool)
    some = np.flatnonzero(leaves.perm & U)
    space = reach.space[leaves.table[some]]
    bad = some[kernel[space] | (leaves.va[some] >> np.uint64(63) != 0)]

    def describe(i: int) -> Violation:
        rights = perm_text(int(leaves.perm[i]))
        text = f"{what(db, i)} is {rights} by all levels together: ring 3 reaches the kernel's half"
        return leaf(db, "X2", i, f"{text}, should not")

    out.each("X2", bad, describe)
    _x2_frames(db, np.setdiff1d(some, bad, assume_unique=True), out)
    _x2_records(db, out)
    _x2_cpus(db, out)
    x2_control(db, out)


def _x2_frames(db: Database, at: np.ndarray, out: Report) -> None:
    """Of some leaves that ring 3 reaches: not what the kernel works with."""
    reach, kinds = db.reach, db.kinds
    kind = db.frames.kind[reach.leaf_frame[at]]
    read = np.isin(kind, [kinds[k] for k in NOT_READ])
    written = np.isin(kind, [kinds[k] for k in NOT_WRITTEN])
    written &= (reach.leaves.perm[at] & W) != 0

    def describe(i: int) -> Violation:
        rights = perm_text(int(reach.leaves.perm[i]))
        does = "writes" if reach.leaves.perm[i] & W else "reads"
        text = f"{what(db, i)} is {rights} by all levels together: ring 3 {does} the kernel's own"
        return leaf(db, "X2", i, f"{text}, should not")

    out.each("X2", at[read | written], describe)


def _x2_records(db: Database, out: Report) -> None:
    """No mapping of the kernel's space is for ring 3, though the levels above keep it out (an entry alone: P4)."""
    reach, maps = db.reach, db.mappings
    at = np.flatnonzero(maps.attr & np.uint8(db.attrs.u))
    slot = (maps.at[at] >> 9).astype(np.int64)
    kernel = [r.index for r in db.spaces.rows if r.kernel]
    at = at[(slot < db.slots.count) & ~db.claims.no_table[at]]
    at = at[np.isin(db.slots.space[(maps.at[at] >> 9).astype(np.int64)], kernel)]
    if not len(at):
        return
    open_to_all = reach.leaf_at[(reach.leaves.perm & U) != 0]  # said above
    at = at[~np.isin(maps.at[at], open_to_all)]
    text = "user access, in the kernel's space; should not have it"
    out.each("X2", at, lambda row: record(db, "X2", row, text))


def _x2_cpus(db: Database, out: Report) -> None:
    """CR0.WP, SMEP, SMAP and UMIP of each CPU, as the kernel switched them on where there are any."""
    symbol = db.kernel.types.symbol("cpu_cr4")
    wanted = int.from_bytes(db.kernel.read(symbol.va, 8), "little") if symbol else 0
    for cpu in db.cpus.running():
        if not cpu.cr0 & CR0_WP:
            text = f"CR0 is {cpu.cr0:#x}, WP should be on: the kernel can write what is read-only"
            out.add("X2", f"CPU {cpu.number}: {text}")
        for bit, name, opens in PROTECTION:
            if wanted & bit and not cpu.cr4 & bit:
                text = f"CR4 is {cpu.cr4:#x}, {name} should be on: {opens}"
                out.add("X2", f"CPU {cpu.number}: {text}")
        known = CR4_SMEP | CR4_SMAP | CR4_UMIP
        if symbol and (wanted | (cpu.cr4 & known)) != (wanted & known):
            text = f"cpu_cr4 is {wanted:#x}, but CR4 of CPU {cpu.number} is {cpu.cr4:#x}"
            out.add("X2", f"{text}; should be its bits {known:#x}")


# --- X3 ------------------------------------------------------------------------------------------------


def x3(db: Database, out: Report) -> None:
    """Below and above each stack a page is not mapped, and between the stacks nothing is."""
    stacks = Stacks(db)
    if stacks.problem:
        out.add("X3", stacks.problem)
    unsound = [i for i in range(len(stacks)) if not stacks.sound(i)]
    for i in unsound[:20]:
        text = f"[{int(stacks.bottom[i]):#x}, {int(stacks.top[i]):#x})"
        out.add("X3", f"stack {i} {text} does not follow the guard pages of the one before")
    if not len(stacks) or unsound:
        return
    leaves = db.reach.leaves
    low, high = int(stacks.bottom[0]) - PAGE, int(stacks.top[-1]) + PAGE
    near = np.flatnonzero(
        (leaves.va >= np.uint64(low & -(1 << 30))) & (leaves.va < np.uint64(high))
    )
    last = leaves.va[near] + (leaves.take(near).size - np.uint64(1))
    near, last = near[last >= np.uint64(low)], last[last >= np.uint64(low)]
    at = np.searchsorted(stacks.bottom, leaves.va[near], side="right") - 1
    at = np.maximum(at, 0)
    inside = (leaves.va[near] >= stacks.bottom[at]) & (last < stacks.top[at])

    def describe(i: int) -> Violation:
        va = max(int(leaves.va[i]), low)
        below = int(np.searchsorted(stacks.bottom, np.uint64(va), side="right")) - 1
        if below >= 0 and va < int(stacks.top[below]) + PAGE:
            text = f"the guard page above stack '{stacks.names[below]}'"
        else:
            text = f"the guard page below stack '{stacks.names[below + 1]}'"
        return leaf(db, "X3", i, f"{text} is mapped, to {what(db, i)}; should not be")

    out.each("X3", near[~inside], describe)
    size = leaves.take(near[inside]).size.astype(np.int64)
    mapped = np.bincount(at[inside], size, len(stacks)).astype(np.uint64)
    for i in np.flatnonzero(mapped != stacks.top - stacks.bottom)[:20].tolist():
        text = f"stack '{stacks.names[i]}' [{int(stacks.bottom[i]):#x}, {int(stacks.top[i]):#x})"
        out.add("X3", f"{text}: only {int(mapped[i]):#x} bytes of it are mapped")


RFLAGS_IOPL = 3 << 12


def x2_control(db: Database, out: Report) -> None:
    """Protection keys and the I/O privilege level."""
    for cpu in db.cpus.running():
        for bit, name in ((CR4_PKE, "PKE"), (CR4_PKS, "PKS")):
            if cpu.cr4 & bit:
                text = f"CR4 is {cpu.cr4:#x}, {name} should be off: protection keys limit rights"
                out.add("X2", f"CPU {cpu.number}: {text}")
        mine = db.cpus.registers.get(cpu.number)
        if mine is not None and mine["rflags"] & RFLAGS_IOPL:
            text = f"RFLAGS is {mine['rflags']:#x}, IOPL should be 0: ring 3 reaches I/O ports"
            out.add("X2", f"CPU {cpu.number}: {text}")


RULES = [
    Rule("X1", "nothing is both writable and executable", x1),
    Rule(
        "X2",
        "user access only in user areas, by the effective bits of all levels, CR0.WP, EFER.NXE, "
        "SMEP and SMAP considered",
        x2,
    ),
    Rule("X3", "guard pages are not mapped", x3),
]
