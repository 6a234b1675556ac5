# SPDX-License-Identifier: BSD-2-Clause
# Parts of X2, M2, C1 and C2: registers of a CPU that is online hold nothing that the kernel never sets.
"""Control registers, RFLAGS, selectors, GS base and RSP; each rule calls its own part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktf.errors import KtfError
from ktf.findings import Report
from ktf.kernel.database import Database
from ktf.x86.registers import Registers

if TYPE_CHECKING:
    from ktf.rules.stacks import Stacks

CR0_NW, CR0_CD = 1 << 29, 1 << 30
CR4_PCIDE, CR4_FSGSBASE, CR4_PKE, CR4_CET, CR4_PKS = (1 << n for n in (17, 16, 22, 23, 24))
CR3_LOW = 0xFFF  # PWT, PCD, a PCID
RFLAGS_IOPL = 3 << 12
# Macros, which DWARF does not carry: kernel/gdt.h. SS is 0 after an exception from ring 3.
CODE = {0: (0x08,), 3: (0x23,)}
STACK = {0: (0x10, 0), 3: (0x1B,)}
FRAME_CS = 32  # bytes below the top of a stack of the IST: CS, as an exception pushes it


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


def m2_control(db: Database, out: Report) -> None:
    """Caches are on."""
    for cpu in db.cpus.running():
        if cpu.cr0 & (CR0_CD | CR0_NW):
            text = f"CR0 is {cpu.cr0:#x}, CD and NW should be off: nothing is cached"
            out.add("M2", f"CPU {cpu.number}: {text}")


def c1_control(db: Database, out: Report) -> None:
    """CR3 is a root and nothing else."""
    for cpu in db.cpus.running():
        if cpu.cr4 & CR4_PCIDE:
            text = f"CR4 is {cpu.cr4:#x}, PCIDE should be off: CR3 names a PCID"
            out.add("C1", f"CPU {cpu.number}: {text}")
        if cpu.cr3 & CR3_LOW:
            text = f"CR3 is {cpu.cr3:#x}, should be the root's address alone"
            out.add("C1", f"CPU {cpu.number}: {text}")


def c2_control(db: Database, out: Report, stacks: Stacks) -> None:
    """What exceptions and the kernel's code rely on."""
    percpu = db.kernel.types.symbol("percpu")
    for cpu in db.cpus.running():
        say = f"CPU {cpu.number}:"
        for bit, name in ((CR4_FSGSBASE, "FSGSBASE"), (CR4_CET, "CET")):
            if cpu.cr4 & bit:
                out.add("C2", f"{say} CR4 is {cpu.cr4:#x}, {name} should be off")
        mine = db.cpus.registers.get(cpu.number)
        if mine is None:
            continue  # reported by c2
        _selectors(out, say, mine)
        if percpu is not None:
            want = percpu.va + cpu.number * (percpu.size // db.cpus.room)
            if mine["gs_base"] != want:
                text = f"GS base is {mine['gs_base']:#x}, should be {want:#x}, percpu[{cpu.number}]"
                out.add("C2", f"{say} {text}", va=mine["gs_base"])
        if not mine["cs"] & 3:
            _stack(db, out, stacks, cpu.number, cpu.rsp)


def _selectors(out: Report, say: str, mine: Registers) -> None:
    """CS, SS and LDTR."""
    ring = mine["cs"] & 3
    if mine["cs"] not in CODE.get(ring, ()):
        out.add("C2", f"{say} CS is {mine['cs']:#x}, should be {CODE[0][0]:#x} or {CODE[3][0]:#x}")
    elif mine["ss"] not in STACK[ring]:
        out.add("C2", f"{say} SS is {mine['ss']:#x}, should be {STACK[ring][0]:#x}")
    if mine["ldt"]:
        out.add("C2", f"{say} LDTR is {mine['ldt']:#x}, should be 0")


def _stack(db: Database, out: Report, stacks: Stacks, number: int, rsp: int) -> None:
    """RSP is on a stack of its own CPU; on one of the IST only below what an exception pushed."""
    name = stacks.name_at(rsp)
    if not name:
        return  # reported by c2
    if not stacks.is_of(name, number):
        text = f"RSP is {rsp:#x}, on stack '{name}', which is another CPU's"
        out.add("C2", f"CPU {number}: {text}", va=rsp)
    elif " " in name:
        top = stacks.top_of(name)
        try:
            cs = int.from_bytes(db.kernel.read(top - FRAME_CS, 8), "little")
        except KtfError:
            return
        if cs not in (*CODE[0], *CODE[3]):
            text = f"RSP is {rsp:#x}, on stack '{name}', but no exception has led there"
            out.add("C2", f"CPU {number}: {text}", va=rsp)
