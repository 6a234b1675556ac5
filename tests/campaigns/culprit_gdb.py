# SPDX-License-Identifier: BSD-2-Clause
# One run of `make culprit`, inside GDB: to the end, and what is broken there; or with watches; or checked at events.
"""Reads its orders from the file KTF_ORDERS (JSON), writes what it found to KTF_FOUND.

    {"run": "find"}                        to the end: stop, violations, what to watch
    {"run": "watch", "watches": [...], "from": N}     each write to these after event N, and whether the rules hold after it
    {"run": "events", "every": N, "first": A, "last": B}     ktf-pt-check at every N-th event of the journal

Both with "rings": where the journal's rings are, as the first run has found.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Callable

import gdb

from ktf.rules.examine import examine
from ktf.postmortem.culprit import Watch, broken, watches
from ktf.errors import KtfError
from ktf.findings import Report
from ktf.rules.table import RULES
from ktf.debugger.target import Target

# Where a guest ends, and how that is called: the last one has nothing left to do.
ENDS = {
    "panic": "panic",
    "panic_from": "panic_from",
    "machine_exit": "machine_exit",
    "machine_halt": "machine_halt",
    "ktf_acpi_button_ends": "idle",
}
FRAMES = 12  # of a backtrace
CHECKS = 12.0  # seconds for checks after writes; later writes are recorded without
WRITES = 5000
target = Target()


class Stop:
    """Why the guest stopped last."""

    def __init__(self) -> None:
        self.signal = ""
        self.hit: list[Any] = []
        gdb.events.stop.connect(self._note)

    def _note(self, event: Any) -> None:
        self.signal = getattr(event, "stop_signal", "")
        self.hit = list(getattr(event, "breakpoints", []))


stop = Stop()


def go() -> bool:
    """Lets the guest run on; False if it is gone."""
    try:
        gdb.execute("continue", to_string=True)
    except gdb.error:
        return False
    return bool(gdb.selected_inferior().threads())


def start() -> list[Any]:
    """To the kernel's first C function; then breakpoints where all ends."""
    gdb.execute("hbreak kernel_main", to_string=True)
    go()
    gdb.execute("delete", to_string=True)
    return [gdb.Breakpoint(f"*&{name}", gdb.BP_HARDWARE_BREAKPOINT) for name in ENDS]


def number(expression: str) -> int:
    """A value of the guest."""
    return (
        int(gdb.parse_and_eval(expression).cast(gdb.lookup_type("unsigned long"))) & (1 << 64) - 1
    )


def where(ends: list[Any]) -> dict[str, Any]:
    """The stop, in words and so that two runs can be compared."""
    reached = [name for name, b in zip(ENDS.values(), ends) if b in stop.hit]
    kind = reached[0] if reached else ("triple fault" if stop.signal == "SIGQUIT" else "stopped")
    ends_at = {name: number(f"${name}") for name in ("rip", "rsp", "rax", "rdi", "cr2")}
    return {
        "kind": kind,
        "cpu": gdb.selected_thread().ptid[1] - 1,
        "source": target.source(ends_at["rip"]),
        "registers": ends_at,
        "events": counted(),
    }


def counted() -> int:
    """Number of the journal's next event; 0 where there is no kernel. Not by GDB: its tables may be gone."""
    try:
        kernel = target.session().need_kernel()
        return kernel.mm.value("journal_seq", 0) // kernel.types.constant("JOURNAL_STEP")
    except KtfError:
        return 0


def storing(pc: int) -> tuple[int, str]:
    """The instruction before pc: a watch stops behind the store (a repeated one: at it)."""
    here = gdb.selected_inferior().architecture().disassemble(pc)[0]
    if here["asm"].startswith("rep"):
        return pc, here["asm"]
    block, begin = gdb.block_for_pc(pc), pc - 1
    while block is not None and not block.is_static and not block.is_global:
        begin = block.start if block.function and block.start < pc else begin
        block = block.superblock
    code = gdb.selected_inferior().architecture().disassemble(begin, pc - 1)
    last = code[-1]
    return (last["addr"], last["asm"]) if last["addr"] + last["length"] == pc else (pc - 1, "")


def check(rules: list[str]) -> Report:
    """These rules, now."""
    return examine(target.session(), rules)[0]


def find() -> dict[str, Any]:
    """The first run."""
    ends = start()
    if not go():
        return {"stop": None}
    found: dict[str, Any] = {"stop": where(ends)}
    try:
        report = check(list(RULES))
        if not report.total() and report.unsettled is not None:
            report = report.unsettled
        session = target.session()
        found["rings"] = rings()
        found["watches"] = [w.json() for w in watches(session, report)] if report.total() else []
    except KtfError as e:
        return {**found, "error": str(e)}
    found["rules"] = [r for r in RULES if report.kept.get(r)]
    found["violations"] = [report.kept[r][0].text() for r in RULES if report.kept.get(r)]
    return found


def rings() -> list[int]:
    """Addresses of the journal's rings."""
    kernel = target.session().need_kernel()
    place = kernel.types.symbol("journal_ring")
    words = kernel.read(place.va, place.size) if place is not None else b""
    found = [int.from_bytes(words[at : at + 8], "little") for at in range(0, len(words), 8)]
    return [va for va in found if va]


def reach(event: int, at: list[int]) -> bool:
    """Runs until that event has got its number: its place in a ring is written once a lap. False if the guest ends first."""
    step, size = number("JOURNAL_STEP"), number("JOURNAL_BYTES")
    points = [
        gdb.Breakpoint(
            f"*(char (*)[8]) {ring + event * step % size:#x}", gdb.BP_WATCHPOINT, gdb.WP_WRITE
        )
        for ring in at
    ]
    try:
        while go() and any(point in stop.hit for point in points):
            if counted() > event:
                return True
        return False
    finally:
        for point in points:
            point.delete()


class Watching:
    """The second run."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self.watches = [Watch.of(w) for w in orders["watches"]]
        self.rules = sorted({v.rule for w in self.watches for v in w.violations})
        self.ends = start()
        self.over = orders["from"] > 0 and not reach(orders["from"], orders["rings"])
        self.points = {}
        for w in self.watches:
            for va in w.vas:
                point = gdb.Breakpoint(
                    f"*(char (*)[{w.size}]) {va:#x}", gdb.BP_WATCHPOINT, gdb.WP_WRITE
                )
                self.points[point.number] = (w, va)
        self.reader = target.session().reader
        self.bytes = {id(w): self.reader.read(w.pa, w.size) for w in self.watches}
        self.writes: list[dict[str, Any]] = []
        self.spent = 0.0

    def run(self) -> dict[str, Any]:
        """To the end, with each write on the way."""
        while not self.over and go():
            mine = [self.points[b.number] for b in stop.hit if b.number in self.points]
            if not mine:
                break
            for watch, va in mine:
                self._write(watch, va)
            if len(self.writes) > WRITES:
                return {"error": f"more than {WRITES} writes to what is watched"}
        ends = [(w, self.reader.read(w.pa, w.size)) for w in self.watches]
        missed = [w.name for w, now in ends if not w.same(self.bytes[id(w)], now)]
        return {"stop": where(self.ends), "writes": self.writes, "missed": missed}

    def _write(self, watch: Watch, va: int) -> None:
        before, after = self.bytes[id(watch)], self.reader.read(watch.pa, watch.size)
        if before == after:
            return  # to another page that was there, or nothing new
        self.bytes[id(watch)] = after
        pc = number("$rip")
        at, text = storing(pc)
        self.writes.append(
            {
                "watch": self.watches.index(watch),
                "va": va,
                "before": before.hex(),
                "after": after.hex(),
                "cpu": gdb.selected_thread().ptid[1] - 1,
                "at": at,
                "instruction": " ".join(text.split()),
                "source": target.source(at),
                "backtrace": gdb.execute(f"backtrace {FRAMES}", to_string=True),
                "event": number("mm.journal_seq / JOURNAL_STEP"),
                "broken": self._states(),
            }
        )

    def _states(self) -> list[bool | None] | None:
        """Of each watch, whether it is broken now; None before the manager is there, or when time is up."""
        if self.spent > CHECKS:
            return None
        began = time.monotonic()
        try:
            report = check(self.rules)
            return [broken(report, w) for w in self.watches]
        except KtfError:
            return [False] * len(self.watches)  # nothing can be broken yet
        finally:
            self.spent += time.monotonic() - began


def events(orders: dict[str, Any]) -> dict[str, Any]:
    """Checks at every N-th event of the journal."""
    start()
    seen: list[dict[str, Any]] = []
    for event in range(orders["first"], orders["last"] + 1, orders["every"]):
        if not reach(event, orders["rings"]):
            break
        if not number("mm.live"):
            continue
        report = check(orders["rules"])
        rules = [r for r in RULES if report.counts[r]]
        seen.append(
            {"event": event, "rules": rules, "first": [report.kept[r][0].text() for r in rules[:1]]}
        )
        if rules and orders["every"] == 1:
            seen[-1]["backtrace"] = gdb.execute(f"backtrace {FRAMES}", to_string=True)
    return {"seen": seen}


RUNS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "find": lambda orders: find(),
    "watch": lambda orders: Watching(orders).run(),
    "events": events,
}
with open(os.environ["KTF_ORDERS"], encoding="utf-8") as file:
    given = json.load(file)
answer = RUNS[given["run"]](given)
with open(os.environ["KTF_FOUND"], "w", encoding="utf-8") as file:
    json.dump(answer, file)
