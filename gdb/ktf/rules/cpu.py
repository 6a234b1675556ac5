# SPDX-License-Identifier: BSD-2-Clause
# Rule C1: what the CPUs use is known.
"""The rule on control registers; docs/invariants.md says why and how it can be broken."""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Rule
from ktf.kernel.database import Database
from ktf.kernel.locks import online_mask, owner
from ktf.kernel.slots import SpaceRow
from ktf.x86.cpu import CR4_PCIDE


from ktf.x86.cpu import Cpu

START_CODE = 256  # bytes; neither part of kernel/ap_start.S is longer
ROOT_BITS = 0x7FFF_FFFF_FFFF_F000  # of CR3: without PWT, PCD or a PCID


def c1(db: Database, out: Report) -> None:
    """Every CPU that pages uses the root of a live address space, and spaces know their root."""
    roots = {s.cr3 for s in db.spaces.rows}
    for cpu in db.cpus.every:
        if cpu.paging_problem():
            continue  # not started yet
        if _is_starting(db, cpu):
            continue
        if cpu.cr3 & ROOT_BITS not in roots:
            text = f"CR3 is {cpu.cr3:#x}, which is no address space's root"
            out.add("C1", f"{db.cpus.name(cpu)}: {text}", mfn=cpu.root)
        elif not db.cpus.is_online(cpu) and db.cpus.is_past_start(cpu):
            text = f"mm.cpu[] says that it is not online, but it runs, at {cpu.rip:#x}"
            out.add("C1", f"{db.cpus.name(cpu)}: {text}", va=cpu.rip)
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
    c1_control(db, out)
    c1_masks(db, out)


def _is_starting(db: Database, cpu: Cpu) -> bool:
    """Whether it is in kernel/ap_start.S, still on the boot's page tables: not one of the kernel's CPUs yet."""
    symbols = db.kernel.types.symbol
    boot = symbols("boot_l4")
    if boot is None or cpu.cr3 & ROOT_BITS != boot.va or db.cpus.is_online(cpu):
        return False
    # The trampoline's RIP counts from the start of its page, which CS holds.
    places = [0, *(s.va for s in map(symbols, ("ap_long", "ap_high")) if s is not None)]
    return any(at <= cpu.rip < at + START_CODE for at in places)


def _c1_current(db: Database, out: Report) -> None:
    """Each running CPU pages, with the root of the space that it is said to have."""
    if "cpu" not in db.mm.layout.names or out.counts["C1"]:
        return
    cpus = {c.number: c for c in db.cpus.every}
    row = db.mm["cpu"][0]
    for number in range(len(row)):
        if not row.value("online", number):
            continue
        index = row.value("space", number)
        at = db.spaces.by_index.get(index)
        if at is None:
            out.add("C1", f"mm.cpu[{number}].space is {index:#x}, which is no address space")
            continue
        space = db.spaces.rows[at]
        if number not in cpus:
            text = f"mm.cpu[{number}] is online, but none of the machine's {len(cpus)} CPUs is it"
            out.add("C1", text, space=space.name)
        elif text := _differs(db, cpus[number], space):
            out.add("C1", f"CPU {number}: {text}", space=space.name)
    _c1_up(db, out)


def _differs(db: Database, cpu: Cpu, space: SpaceRow) -> str:
    """Where a running CPU's registers are not those of its space; empty if they are."""
    if cpu.paging_problem():
        return f"mm.cpu[] says that it runs, but CR0 is {cpu.cr0:#x}, EFER {cpu.efer:#x}"
    if cpu.levels != db.number("levels"):
        return (
            f"CR4 is {cpu.cr4:#x}: {cpu.levels} levels, but the tables have {db.number('levels')}"
        )
    if cpu.cr3 & ROOT_BITS != space.cr3:
        return f"mm.cpu[] says {space.name}, whose root is {space.cr3:#x}, but CR3 is {cpu.cr3:#x}"
    return ""


def _c1_up(db: Database, out: Report) -> None:
    """The CPUs that were started are online."""
    symbol = db.kernel.types.symbol("smp_up")
    if symbol is None or not db.number("live"):
        return
    up = int.from_bytes(db.kernel.read(symbol.va, 4), "little")
    online = db.mm["cpu"]["online"][0]
    if not 0 < up <= len(online):
        out.add("C1", f"smp_up is {up:#x}, should be from 1 to {len(online)}")
        return
    for number in np.flatnonzero(online[:up] == 0).tolist():
        out.add(
            "C1", f"CPU {number} was started (smp_up is {up}), but mm.cpu[] says it is not online"
        )


CR3_LOW = 0xFFF  # PWT, PCD, a PCID


def c1_control(db: Database, out: Report) -> None:
    """CR3 is a root and nothing else."""
    for cpu in db.cpus.running():
        if cpu.cr4 & CR4_PCIDE:
            text = f"CR4 is {cpu.cr4:#x}, PCIDE should be off: CR3 names a PCID"
            out.add("C1", f"CPU {cpu.number}: {text}")
        if cpu.cr3 & CR3_LOW:
            text = f"CR3 is {cpu.cr3:#x}, should be the root's address alone"
            out.add("C1", f"CPU {cpu.number}: {text}")


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


RULES = [
    Rule("C1", "CR3 of every CPU is a known root", c1),
]
