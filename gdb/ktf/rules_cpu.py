# SPDX-License-Identifier: BSD-2-Clause
# Rule C1: what the CPUs use is known.
"""The rule on control registers; docs/invariants.md says why and how it can be broken."""

from __future__ import annotations

from .database import Database
from .findings import Report, Rule
from .rules_state import c1_masks

ROOT_BITS = 0x7FFF_FFFF_FFFF_F000  # of CR3: without PWT, PCD or a PCID


def c1(db: Database, out: Report) -> None:
    """Every CPU that pages uses the root of a live address space, and spaces know their root."""
    roots = {s.cr3 for s in db.spaces.rows}
    for cpu in db.session.cpus:
        if cpu.paging_problem():
            continue  # not started yet
        if cpu.cr3 & ROOT_BITS not in roots:
            text = f"CPU {cpu.number}: CR3 is {cpu.cr3:#x}, which is no address space's root"
            out.add("C1", text, mfn=cpu.root)
    slots = db.slots
    for space in db.spaces.rows:
        if space.root < slots.count and slots.has_frame[space.root]:
            want = int(slots.mfn[space.root]) << 12
            if space.cr3 != want:
                text = (
                    f"space {space.index:#x}: cr3 is {space.cr3:#x}, its root table is at {want:#x}"
                )
                out.add("C1", text, space=space.name, mfn=space.mfn)
    _c1_current(db, out)
    c1_masks(db, out)


def _c1_current(db: Database, out: Report) -> None:
    """The space that each running CPU is said to have is that of some CPU."""
    if "cpu" not in db.mm.layout.names or out.counts["C1"]:
        return
    cpus = [c for c in db.session.cpus if not c.paging_problem()]
    for number in range(len(db.mm["cpu"][0])):
        row = db.mm["cpu"][0]
        if not row.value("online", number):
            continue
        index = row.value("space", number)
        at = db.spaces.by_index.get(index)
        if at is None:
            out.add("C1", f"mm.cpu[{number}].space is {index:#x}, which is no address space")
            continue
        space = db.spaces.rows[at]
        if all(c.cr3 & ROOT_BITS != space.cr3 for c in cpus):
            text = f"mm.cpu[{number}] says {space.name}, but no CPU has its root in CR3"
            out.add("C1", text, space=space.name)


RULES = [
    Rule("C1", "CR3 of every CPU is a known root", c1),
]
