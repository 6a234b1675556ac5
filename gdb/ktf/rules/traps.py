# SPDX-License-Identifier: BSD-2-Clause
# Rule C2: what a CPU needs to take an exception is there: IDT, GDT, TSS, stacks, handlers.
"""The rule on descriptor tables and stacks; docs/invariants.md says why and how it can be broken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ktf.errors import KtfError
from ktf.findings import Report, Rule
from ktf.kernel.database import Database
from ktf.memory.readers import PAGE
from ktf.rules.percpu import c2_control, c2_own
from ktf.rules.stacks import Stacks
from ktf.x86.cpu import Cpu
from ktf.x86.paging import perm_text, U, W, X
from ktf.x86.registers import Registers

EXCEPTIONS = 32  # vectors of the processor itself
GATES = (0x0E, 0x0F)  # 64-bit interrupt and trap gate
# A descriptor of 64-bit code, present, ring 0: S, executable, P, L set; DPL and D clear.
CODE_MASK, CODE_BITS = 0x0060_F800_0000_0000, 0x0020_9800_0000_0000
MOST = 1 << 24  # bytes of a table or stack that are looked at
TASK_TYPES = (0x89, 0x8B)  # 64-bit TSS, present: available, busy


class Rights:
    """What the kernel's page tables allow at an address of its half."""

    def __init__(self, db: Database) -> None:
        first = next((i for i, s in enumerate(db.spaces.rows) if s.kernel), None)
        self.leaves = None if first is None else db.reach.walks[first].leaves

    def of(self, vas: np.ndarray) -> np.ndarray:
        """W, U and X at each address; -1 where nothing is mapped."""
        leaves = self.leaves
        if leaves is None or not len(leaves):
            return np.full(len(vas), -1)
        at = np.searchsorted(leaves.va, vas, side="right") - 1
        at = np.maximum(at, 0)
        size = np.uint64(1) << (leaves.level[at].astype(np.uint64) * np.uint64(9) + np.uint64(3))
        inside = (vas >= leaves.va[at]) & (vas - leaves.va[at] < size)
        return np.where(inside, leaves.perm[at].astype(np.int64), -1)

    def pages(self, va: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Each page of [va, va + size), and what is allowed there."""
        first = va // PAGE * PAGE
        count = max((va + size - first + PAGE - 1) // PAGE, 1)
        vas = np.uint64(first) + np.arange(count, dtype=np.uint64) * np.uint64(PAGE)
        return vas, self.of(vas)

    def wrong(self, va: int, size: int, must: int, never: int) -> tuple[int, str] | None:
        """The first page that lacks a right or has one too many, and how it is; None if all are right."""
        if size > MOST:
            return va & (1 << 64) - 1, f"has {size:#x} bytes, more than there can be"
        if not 0 <= va <= (1 << 64) - max(size, 1):
            return va & (1 << 64) - 1, "lies outside of the address space"
        vas, perm = self.pages(va, size)
        bad = (perm < 0) | ((perm & must) != must) | ((perm & never) != 0)
        if not bad.any():
            return None
        i = int(np.flatnonzero(bad)[0])
        if perm[i] < 0:
            return int(vas[i]), "is not mapped"
        want = perm_text(must)
        return int(vas[i]), f"is {perm_text(int(perm[i]))}, should be {want}"


@dataclass(frozen=True)
class Place:
    """Something that a CPU uses: name, address, bytes, the rights that it needs, and those it must not have."""

    name: str
    va: int
    size: int
    must: int
    never: int


def c2(db: Database, out: Report) -> None:
    """Of each CPU that the kernel has set up: its tables, stacks and handlers."""
    rights, stacks = Rights(db), Stacks(db)
    if db.cpus.problem:
        out.add("C2", f"the CPUs' GDTR, IDTR and TR can't be told: {db.cpus.problem}")
        return
    for cpu in db.cpus.running():
        mine = db.cpus.registers.get(cpu.number)
        if mine is None:
            out.add("C2", f"CPU {cpu.number}: its GDTR, IDTR and TR can't be told")
            continue
        judge = Judge(db, out, rights, stacks, cpu, mine)
        judge.registers()
        judge.stack_pointer()
        judge.task()
        judge.gates()
    c2_control(db, out, stacks)
    c2_own(db, out)


class Judge:
    """One CPU held against what exceptions need."""

    def __init__(
        self,
        db: Database,
        out: Report,
        rights: Rights,
        stacks: Stacks,
        cpu: Cpu,
        registers: Registers,
    ) -> None:
        self.db = db
        self.out = out
        self.rights = rights
        self.stacks = stacks
        self.cpu = cpu
        self.gdt, self.idt, self.task_state = (registers.segments[n] for n in ("gdt", "idt", "tr"))
        self.ring = registers["cs"] & 3

    def say(self, text: str, va: int | None = None) -> None:
        """A violation of this CPU."""
        self.out.add("C2", f"CPU {self.cpu.number}: {text}", va=va)

    def place(self, place: Place) -> bool:
        """True if it is mapped with the right permissions."""
        found = self.rights.wrong(place.va, place.size, place.must, place.never)
        if found:
            self.say(f"{place.name} at {place.va:#x}: {found[0]:#x} {found[1]}", found[0])
        return found is None

    def expected(self, name: str, symbol: str, size: int, base: int, limit: int) -> None:
        """The register holds the kernel's object of that name."""
        found = self.db.kernel.types.symbol(symbol)
        if found is None:
            return
        want = found.va + (self.cpu.number * size if size < found.size else 0)
        if base != want or limit != size - 1:
            text = (
                f"{name} is {base:#x}, limit {limit:#x}; should be {want:#x}, limit {size - 1:#x}"
            )
            self.say(text, base)

    def registers(self) -> None:
        """IDTR, GDTR and TR lead to the kernel's tables, which are mapped and out of ring 3's reach."""
        kernel, idt, gdt, task = self.db.kernel, self.idt, self.gdt, self.task_state
        gates = kernel.types.symbol("idt")
        self.expected("IDTR", "idt", gates.size if gates else PAGE, idt.base, idt.limit)
        self.place(Place("the IDT", idt.base, idt.limit + 1, 0, U | X))
        descriptors = kernel.types.symbol("gdt")
        room = len(self.db.mm["cpu"][0])
        if descriptors:
            self.expected("GDTR", "gdt", descriptors.size // room, gdt.base, gdt.limit)
        self.place(Place("the GDT", gdt.base, gdt.limit + 1, 0, U | X))
        if task.selector:
            size = kernel.layout("struct tss").size
            self.expected("TR", "tss", size, task.base, task.limit)
            self.place(Place("the TSS", task.base, task.limit + 1, 0, U | X))
            self._task_descriptor()

    def descriptor(self, selector: int, words: int = 1) -> list[int] | None:
        """The GDT's words for a selector; None if they lie outside or can't be read."""
        at = selector & ~7
        if at + 8 * words - 1 > self.gdt.limit:
            return None
        try:
            raw = self.db.kernel.read(self.gdt.base + at, 8 * words)
        except KtfError:
            return None
        return [int.from_bytes(raw[i : i + 8], "little") for i in range(0, 8 * words, 8)]

    def _task_descriptor(self) -> None:
        found = self.descriptor(self.task_state.selector, 2)
        if found is None:
            self.say(f"TR's selector {self.task_state.selector:#x} leads to nothing in the GDT")
            return
        low, high = found
        base = (low >> 16 & 0xFFFFFF) | (low >> 56) << 24 | (high & 0xFFFFFFFF) << 32
        if low >> 40 & 0xFF not in TASK_TYPES or base != self.task_state.base:
            text = f"descriptor {low:#x} of selector {self.task_state.selector:#x} names a TSS at {base:#x}"
            self.say(f"the GDT's {text}; should be TR's, {self.task_state.base:#x}")

    def stack_pointer(self) -> None:
        """In ring 0 RSP stands on a page that can be written."""
        if self.ring:
            return
        rsp = self.cpu.rsp
        vas = np.array([rsp & (1 << 64) - 1, rsp - 8 & (1 << 64) - 1], np.uint64)
        perm = self.rights.of(vas)
        good = (perm >= 0) & ((perm & W) != 0) & ((perm & (U | X)) == 0)
        if not good.any():
            found = self.rights.wrong(int(vas[1]), 1, W, U | X)
            self.say(f"RSP is {rsp:#x}: {found[0]:#x} {found[1]}" if found else "", int(vas[1]))
        elif len(self.stacks) and not self.stacks.holds(rsp):
            self.say(f"RSP is {rsp:#x}, which lies on no known stack", rsp)

    def task(self) -> None:
        """The stacks that the TSS names: of ring 0, and of the interrupt stack table."""
        self.ist: list[int] = [0] * 8
        task = self.task_state
        if not task.selector:
            return
        try:
            layout = self.db.kernel.layout("struct tss")
            row = layout.records(self.db.kernel.read(task.base, layout.size))
        except KtfError as e:
            self.say(f"the TSS can't be read: {e}", task.base)
            return
        self.ist[1:] = row["ist"][0].tolist()
        tops = [(f"IST {i}", top) for i, top in enumerate(self.ist) if top]
        tops += [("RSP0", row["rsp"][0].tolist()[0])] if row["rsp"][0][0] else []
        for name, top in tops:
            self._top(name, top)

    def _top(self, name: str, top: int) -> None:
        """All of the stack whose top this is; of RSP0, which may start lower, the page below."""
        at = np.flatnonzero(self.stacks.top == np.uint64(top))
        known = len(at) > 0 and self.stacks.sound(int(at[0]))
        bottom = int(self.stacks.bottom[at[0]]) if known else top - 8
        if name.startswith("IST") and not len(at):
            self.say(f"the stack of {name} starts at {top:#x}, the top of no known stack", top - 8)
        self.place(Place(f"the stack of {name}", bottom, top - bottom, W, U | X))

    def gates(self) -> None:
        """Every exception has a gate, and every gate a handler that can be executed."""
        idt = self.idt
        layout = self.db.kernel.layout("struct idt_gate")
        try:
            rows = layout.records(self.db.kernel.read(idt.base, min(idt.limit + 1, PAGE)))
        except KtfError as e:
            self.say(f"the IDT can't be read: {e}", idt.base)
            return
        kind, ist = rows["type"], rows["ist"]
        present = (kind & 0x80) != 0
        for vector in np.flatnonzero(~present[:EXCEPTIONS]).tolist():
            self.say(f"vector {vector}: its gate is not present", idt.base + vector * layout.size)
        for vector in range(len(rows), EXCEPTIONS):
            self.say(f"vector {vector}: the IDT ends before it")
        handler = rows["offset_low"].astype(np.uint64)
        handler |= rows["offset_middle"].astype(np.uint64) << np.uint64(16)
        handler |= rows["offset_high"].astype(np.uint64) << np.uint64(32)
        perm = self.rights.of(handler)
        right = (perm >= 0) & ((perm & X) != 0) & ((perm & (U | W)) == 0)
        known = np.isin(kind & 0x1F, GATES) & (ist < 8) & (rows["reserved"] == 0)
        code = {int(s): self._is_code(int(s)) for s in np.unique(rows["selector"])}
        coded = np.array([code[int(s)] for s in rows["selector"]], bool)
        stacked = np.array([n == 0 or n > 7 or self.ist[n] != 0 for n in ist.tolist()], bool)
        bad = present & ~(right & known & coded & stacked)
        for v in np.flatnonzero(bad)[:50].tolist():
            self._gate(v, int(handler[v]), int(perm[v]), bool(right[v]), bool(coded[v]), rows, v)

    def _gate(
        self,
        vector: int,
        handler: int,
        perm: int,
        right: bool,
        coded: bool,
        rows: "object",
        row: int,
    ) -> None:
        """What is wrong with one gate."""
        kind, ist, selector = (int(rows[n][row]) for n in ("type", "ist", "selector"))  # type: ignore[index]
        if not right:
            how = "is not mapped" if perm < 0 else f"is {perm_text(perm)}, should be r-x-"
            self.say(f"vector {vector}: its handler {handler:#x} {how}", handler)
        elif not coded:
            self.say(f"vector {vector}: selector {selector:#x} is no 64-bit code of ring 0")
        else:
            text = f"type {kind:#x}, IST {ist} ({self.ist[ist & 7]:#x})"
            self.say(f"vector {vector}: {text} is no gate that works")

    def _is_code(self, selector: int) -> bool:
        found = self.descriptor(selector)
        return bool(found) and selector & 7 == 0 and found[0] & CODE_MASK == CODE_BITS  # type: ignore[index]


RULES = [
    Rule(
        "C2",
        "IDT, GDT, TSS, current stacks and the exception handlers are mapped, with the right "
        "permissions",
        c2,
    ),
]
