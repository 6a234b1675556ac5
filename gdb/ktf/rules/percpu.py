# SPDX-License-Identifier: BSD-2-Clause
# Part of C2 (traps.py has the rule): what each CPU has of its own says what it should, word by word.
"""percpu[], gdt[], tss[] and idt[] against what the kernel makes of them; control registers, selectors, GS base and RSP."""

from __future__ import annotations

import numpy as np

from ktf.errors import KtfError
from ktf.findings import Report
from ktf.kernel.database import Database
from ktf.kernel.layout import Records
from ktf.rules.stacks import Stacks
from ktf.x86.cpu import CR4_CET, CR4_FSGSBASE
from ktf.x86.registers import Registers

GATES = 256
STUB = 16  # bytes of vector_stubs for one vector
STACKED = {2: "IST_NMI", 8: "IST_DOUBLE_FAULT", 18: "IST_MACHINE_CHECK"}
STACK_NAMES = {"IST_NMI": " NMI", "IST_DOUBLE_FAULT": " #DF", "IST_MACHINE_CHECK": " #MC"}
BUSY_TSS = 0x8B
TSS_SELECTOR = 5  # number of its descriptor's first word


def c2_own(db: Database, out: Report) -> None:
    """Of all CPUs, those that are not there included."""
    try:
        online = db.mm["cpu"]["online"][0] != 0
        # One that runs, but is not online yet, is about to make these.
        starting = {c.number for c in db.cpus.every if not c.paging_problem()}
        gone = np.array([not up and n not in starting for n, up in enumerate(online.tolist())])
        _percpu(db, out, online, gone)
        # The first CPU is online before it loads its TSS.
        early = [n for n, r in db.cpus.registers.items() if not r.segments["tr"].selector]
        tasks = ~np.isin(np.arange(len(online)), early)
        _gdt(db, out, online, gone, tasks)
        _tss(db, out, online & tasks, gone)
        if not out.counts["C2"]:  # else a gate that does not work at all is reported already
            _idt(db, out)
    except KtfError as e:
        out.add("C2", f"what the CPUs have of their own can't be read: {e}")


def _rows(db: Database, name: str, struct: str) -> tuple[Records, int] | None:
    """An array of the kernel's, and its address; None if the symbols have none."""
    symbol = db.kernel.types.symbol(name)
    if symbol is None:
        return None
    return db.kernel.layout(struct).records(db.kernel.read(symbol.va, symbol.size)), symbol.va


def _percpu(db: Database, out: Report, online: np.ndarray, gone: np.ndarray) -> None:
    """A CPU's number, token, mask and ring are its own; rules_control: its GS base leads to them."""
    found = _rows(db, "percpu", "struct percpu")
    ring = db.kernel.types.symbol("journal_ring")
    if found is None or ring is None:
        return
    rows, va = found
    count = len(rows)
    rings = np.frombuffer(db.kernel.read(ring.va, ring.size), np.uint64)
    if len(rings) != count:
        return
    number = np.arange(count, dtype=np.uint64)
    want = {
        "number": number,
        "token": number + np.uint64(1),
        "others": ~(np.uint64(1) << number),
        "journal": rings,
        "apic_id": number,
    }
    blank = ~rows.data.view(np.uint8).reshape(count, -1).any(axis=1)
    for name, values in want.items():
        have = rows[name].astype(np.uint64)
        for n in np.flatnonzero((have != values) & (online | gone & ~blank)).tolist():
            if gone[n] and name == "apic_id" and not have[n]:
                continue  # it came, but did not come up
            text = f"percpu[{n}].{name} is {int(have[n]):#x}, should be {int(values[n]):#x}"
            out.add("C2", f"CPU {n}: {text}", va=va + n * rows.layout.size)
    rest = rows.data.view(np.uint8).reshape(count, -1).copy()
    for name in want:
        at = rows.layout.dtype.fields[name]  # type: ignore[index]
        rest[:, at[1] : at[1] + at[0].itemsize] = 0
    for n in np.flatnonzero(gone & rest.any(axis=1)).tolist():
        text = "was never up, but percpu[] says something of it"
        out.add("C2", f"CPU {n}: {text}", va=va + n * rows.layout.size)


def _gdt(
    db: Database, out: Report, online: np.ndarray, gone: np.ndarray, tasks: np.ndarray
) -> None:
    """The descriptors are those of the kernel's table, and the TSS's where that is loaded."""
    types = db.kernel.types
    table, source, task = (types.symbol(n) for n in ("gdt", "segments", "tss"))
    if table is None or source is None or task is None or source.size * len(online) != table.size:
        return
    words = source.size // 8
    have = np.frombuffer(db.kernel.read(table.va, table.size), np.uint64).reshape(-1, words)
    want = np.frombuffer(db.kernel.read(source.va, source.size), np.uint64).tolist()
    size = task.size // len(online)
    for n in range(len(online)):
        base = task.va + n * size
        low = size - 1 | (base & 0xFFFFFF) << 16 | BUSY_TSS << 40 | (base >> 24 & 0xFF) << 56
        task_words = [low, base >> 32] if tasks[n] else have[n, TSS_SELECTOR:][:2].tolist()
        row = want[:TSS_SELECTOR] + task_words + want[TSS_SELECTOR + 2 :]
        if gone[n] and not have[n].any() or not (online[n] or gone[n]):
            continue
        for i in np.flatnonzero(have[n] != np.array(row, np.uint64)).tolist():
            text = f"gdt[{n}][{i}] is {int(have[n, i]):#x}, should be {row[i]:#x}"
            out.add("C2", f"CPU {n}: {text}", va=table.va + (n * words + i) * 8)


def _tss(db: Database, out: Report, online: np.ndarray, gone: np.ndarray) -> None:
    """Of the TSS only RSP0 and the stacks of the IST are in use; these are the tops of its own CPU's, or 0."""
    found = _rows(db, "tss", "struct tss")
    if found is None:
        return
    rows, va = found
    spare = [rows[f"reserved{i}"] != 0 for i in range(4)]
    spare.append(rows["rsp"][:, 1:].any(axis=1))
    spare.append(rows["io_map"] != np.where(online, rows.layout.size, 0))
    stacks = Stacks(db)
    spare.append(gone & (rows["rsp"][:, 0] != 0))
    bad = np.logical_or.reduce(spare) & (online | gone)
    for n in np.flatnonzero(bad).tolist():
        text = f"tss[{n}] holds more than RSP0, the tops of stacks and the I/O map's end"
        out.add("C2", f"CPU {n}: {text}", va=va + n * rows.layout.size)
    tops = dict(zip(stacks.names, stacks.top.tolist()))
    want = np.zeros_like(rows["ist"])
    for name, what in STACK_NAMES.items():
        want[:, db.constant(name) - 1] = [tops.get(f"cpu{n}{what}", 0) for n in range(len(want))]
    wrong = (rows["ist"] != want) & (online[:, None] | gone[:, None] & (rows["ist"] != 0))
    for n, i in np.argwhere(wrong)[:50].tolist():
        text = (
            f"tss[{n}]: IST {i + 1} is {int(rows['ist'][n, i]):#x}, should be {int(want[n, i]):#x}"
        )
        out.add("C2", f"CPU {n}: {text}", va=va + n * rows.layout.size)
    for n in np.flatnonzero(online).tolist():
        top, mine = int(rows["rsp"][n, 0]), db.cpus.registers.get(n)
        user = mine is not None and mine["cs"] & 3 == 3
        if (top or user) and not _own_stack(stacks, top, n):
            where = f"stack '{stacks.name_at(top)}'" if stacks.name_at(top) else "no known stack"
            text = f"tss[{n}]: RSP0 is {top:#x}, on {where}, should be on 'cpu{n}'"
            out.add("C2", f"CPU {n}: {text}", va=va + n * rows.layout.size)


def _own_stack(stacks: Stacks, top: int, number: int) -> bool:
    """Whether ring 3 may be left for it."""
    name = stacks.name_at(top)
    return " " not in name and stacks.is_of(name, number)


def _idt(db: Database, out: Report) -> None:
    """Gate n leads to stub n, on the stack that is meant for it; all are interrupt gates."""
    found, stubs = _rows(db, "idt", "struct idt_gate"), db.kernel.types.symbol("vector_stubs")
    if found is None or stubs is None:
        return
    rows, va = found
    handler = rows["offset_low"].astype(np.uint64)
    handler |= rows["offset_middle"].astype(np.uint64) << np.uint64(16)
    handler |= rows["offset_high"].astype(np.uint64) << np.uint64(32)
    want = np.uint64(stubs.va) + np.arange(len(rows), dtype=np.uint64) * np.uint64(STUB)
    ist = np.zeros(len(rows), np.int64)
    ist[list(STACKED)] = [db.constant(name) for name in STACKED.values()]
    if not any(db.kernel.variable_bytes("ipi_ready") or b"\1"):
        ist[rows["ist"] == 0] = 0  # while the first CPU is not set up gates need not have one yet
    types = db.kernel.types.enum("idt_gate_type")
    gate = types["IDT_GATE_INTERRUPT"]
    kind = rows["type"].copy()
    user, ring_3 = db.constant("VECTOR_USER_EXIT"), types["IDT_GATE_RING_3"]
    if int(kind[user]) & ring_3 == ring_3:  # as `int $0x80` needs it; not ring 1 or 2
        kind[user] &= ~np.uint8(ring_3)
    bad = (handler != want) | (rows["ist"] != ist) | (kind != gate)
    for v in np.flatnonzero(bad)[:50].tolist():
        text = f"{int(handler[v]):#x}, IST {int(rows['ist'][v])}, type {int(rows['type'][v]):#x}"
        should = f"should be {int(want[v]):#x}, IST {int(ist[v])}, type {gate:#x}"
        out.add("C2", f"vector {v}: its gate is {text}; {should}", va=va + v * rows.layout.size)


# Macros, which DWARF does not carry: kernel/gdt.h. SS is 0 after an exception from ring 3.
CODE = {0: (0x08,), 3: (0x23,)}


STACK = {0: (0x10, 0), 3: (0x1B,)}


FRAME_CS = 32  # bytes below the top of a stack of the IST: CS, as an exception pushes it


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
