# SPDX-License-Identifier: BSD-2-Clause
# Why the guest went down, in a sentence, and the evidence for it.
"""Inquest(session, context, stop): the cause, the broken rule, the places that matter; pure."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ktf.errors import KtfError
from ktf.kernel.context import Context
from ktf.kernel.session import Session
from ktf.memory.readers import PAGE
from ktf.postmortem.caller import LONGEST_CALL, behind_call
from ktf.postmortem.delivery import Processor, processor
from ktf.postmortem.reasons import Reason, Reasons
from ktf.postmortem.saved import Saved
from ktf.postmortem.stop import DOWN, PANIC, TRIPLE, Stop
from ktf.rules.table import RULES
from ktf.show.steps import step_values
from ktf.x86.exceptions import BP, GP, PF, UD, Fault, event, name
from ktf.x86.operands import U64
from ktf.x86.paging import PAGES, perm_text
from ktf.x86.registers import Registers
from ktf.x86.trace import Trace

EVENTS = 5  # of the journal, at each place
NAMED = 3  # exceptions that share a handler
OUT_DX, OUT_IMMEDIATE = (0xEE, 0xEF), (0xE6, 0xE7)  # opcodes of `out`


@dataclass
class Place:
    """Something the CPU needed: a name, an address, the walk to it."""

    name: str
    va: int
    walk: Trace


class Inquest(Reasons):
    """All that one stop tells."""

    def __init__(self, session: Session, context: Context, stop: Stop) -> None:
        super().__init__(session, context, stop)
        self.stop = stop

    # --- where the code stood ------------------------------------------------------------------------

    @cached_property
    def code(self) -> int:
        """The address by which the code that failed is named: rip, or behind a bad jump its caller's."""
        rip = self.registers["rip"]
        if (self.stop.kind == PANIC or self.stop.ended) and not self.stop.chain.faults:
            return rip - 1 & U64  # behind the call of panic()
        first = self.stop.chain.faults[0] if self.stop.chain.faults else None
        if first is not None and first.fetches(rip):
            if not self._is_code(rip):
                return self._call() or rip
        if self._astray:
            return self._call() or rip
        return rip

    @cached_property
    def _astray(self) -> bool:
        """True if there is no code where the first exception found rip: the address is not canonical."""
        first = self.stop.chain.faults[0] if self.stop.chain.faults else None
        wild = not self.session.rules.is_canonical(self.registers["rip"])
        return first is not None and first.vector == GP and wild

    def _call(self) -> int | None:
        """An address in the call that led to rip, if the stack's top is what a call has left there."""
        memory = self._memory()
        try:
            back = int.from_bytes(memory.read(self.registers["rsp"], 8), "little")
            code = memory.read(back - LONGEST_CALL & U64, LONGEST_CALL)
        except KtfError:
            return None
        return back - 1 if behind_call(code) and self._is_code(back - 1) else None

    def _is_code(self, va: int) -> bool:
        """True if the symbols know it: then the jump there was right, and the page is not."""
        return " at " in self.context.source(va)

    def _memory(self) -> Any:
        from ktf.kernel.kernel import VirtualMemory

        return VirtualMemory(self.session.reader, self.root, self.session.rules)

    @cached_property
    def where(self) -> tuple[str, str]:
        """Function, and FILE:LINE of the code; "" where the symbols say nothing."""
        name, _, line = self.context.source(self.code).partition(" at ")
        return name.split()[0].split("+")[0] if name else "", line

    def at(self) -> str:
        """ " in crash_smap at tests/guest/crash.c:80"; the address alone without symbols."""
        function, line = self.where
        rip = self.registers["rip"]
        word = ", called" if self.code != rip and self._jumped() else ""
        if line:
            return f"{word} in {function} at {line}"
        if self._astray or self._jumped() and self.stop.chain.faults[0].fetches(rip):
            return f"{word} in {function}" if word else ""  # the address is shown as that
        return f"{word} in {function}" if function else f"{word} at {self.code:#x}"

    def _jumped(self) -> bool:
        return bool(self.stop.chain.faults)

    # --- the sentence --------------------------------------------------------------------------------

    @cached_property
    def cause(self) -> Reason:
        """One sentence, and the broken rule."""
        chain = self.stop.chain
        if self.stop.no_tables:
            first = f", which began with {chain.faults[0].text()}" if chain.faults else ""
            return Reason(f"a triple fault{self.at()}{first}: {self.stop.no_tables}")
        if self.stop.lost:
            return self._no_handler(chain.faults[0])
        text, rule = self._first(chain.faults[0]) if chain.faults else (self._no_fault(), None)
        if chain.broken is not None and self.stop.kind != PANIC:
            more, broken = self._undelivered(chain.faults[0] if chain.faults else None)
            text, rule = f"{text}{more}", rule or broken
        if self.stop.ended is not None:
            more, broken = self._of_other(self.stop.ended)
            text, rule = f"{text}{more}", rule or broken
        if self.stop.inner:
            handled = "handling that" if chain.faults else "telling that"
            more, broken = self._told(self.stop.inner[0])
            text, rule = f"{text}; {handled} met {more}", rule or broken
        if self.stop.outer:
            more, broken = self._told(self.stop.outer[0])
            text, rule = f"{text}; it was handling {more}", rule or broken
        return Reason(text, rule)

    def _no_handler(self, fault: Fault) -> Reason:
        """A CPU that finds no handler that it could execute."""
        which = ", ".join(name(v) for v in self.stop.lost[:NAMED])
        more = f" and {len(self.stop.lost) - NAMED} more" if len(self.stop.lost) > NAMED else ""
        head = f"CPU {self.stop.cpu} takes exception after exception for ever: the handler of {which}{more}, at "
        head += f"{self.registers['rip']:#x}, can't be executed: "
        if fault.address is None:
            return Reason(
                f"{head}not a canonical address", "C2" if self.report.counts["C2"] else None
            )
        reason = self.why(fault.address, fault)
        return Reason(
            f"{head}{reason.text}", reason.rule or ("C2" if self.report.counts["C2"] else None)
        )

    def _told(self, saved: Saved) -> tuple[str, str | None]:
        """An exception beside the chain, and why it came."""
        fault, where = saved.fault, self._place_of(saved)
        if fault.vector != PF or fault.address is None:
            return f"{fault.name}{where}", None
        reason = self.why(fault.address, fault)
        meant = self._event(saved.registers, fault)
        return f"#PF {fault.access} {fault.address:#x}{meant}{where}: {reason.text}", reason.rule

    def _event(self, registers: Registers, fault: Fault) -> str:
        """What came just then, where its delivery met the fault, and not the code itself."""
        return event(processor(self.session, self.context, registers).events(fault))

    def _place_of(self, saved: Saved) -> str:
        """ " in f at FILE:LINE"."""
        rip = saved.registers["rip"]
        name, _, line = self.context.source(rip).partition(" at ")
        return (
            f" in {name.split()[0].split('+')[0]}" + f" at {line}" * bool(line)
            if name
            else f" at {rip:#x}"
        )

    def _no_fault(self) -> str:
        at = self.at()
        if self.stop.ended is not None:
            return f"panic{at}, before it could say why"
        if self.stop.kind == PANIC:
            said = self.stop.message or "its message and its reason are with that kernel's symbols"
            return f"panic{at}: {said}"
        if self.stop.kind == TRIPLE:
            return (
                f"a triple fault{at}, of which neither log nor registers tell the first exception"
            )
        if self.stop.asked is not None:
            return f"the guest {self.stop.asked.text()}: CPU {self.stop.cpu} is stopped{at}"
        if self.stop.kind == DOWN and self.stop.logged_triple:
            known = "a triple fault, by QEMU's log, of which no CPU's registers show a trace"
            return f"{known}: CPU {self.stop.cpu} is stopped{at}"
        if self.stop.kind == DOWN:
            causes = "an exit, a reset or a power-off, or a triple fault that left no trace"
            return f"the machine is off, by {causes}: CPU {self.stop.cpu} is stopped{at}{self._wrote()}"
        unknown = "; whether its kernel gave up, that kernel's symbols would tell"
        unknown = unknown if self.session.kernel is None else ""
        if not self.stop.told:
            untold = "nothing here tells whether the guest has crashed"
            return f"{untold}: CPU {self.stop.cpu} is stopped{at}{unknown}"
        if unknown:
            return f"no exception: the guest is stopped{at}{unknown}"
        return f"the guest has not crashed: it is stopped{at}"

    def _wrote(self) -> str:
        """The port that the instruction before rip has written, if it is such a one: how a kernel ends a machine."""
        rip = self.registers["rip"]
        try:
            code = self._memory().read(rip - 2 & U64, 2)
        except KtfError:
            return ""
        if code[1] in OUT_DX:
            port = self.registers["rdx"] & 0xFFFF
        elif code[0] in OUT_IMMEDIATE:
            port = code[1]
        else:
            return ""
        value = self.registers["rax"] & 0xFF
        return f", and has just written {value:#x} to port {port:#x}"

    def _first(self, fault: Fault) -> tuple[str, str | None]:
        """The first exception and why it came."""
        if fault.vector == PF and fault.address is not None:
            reason = self.why(fault.address, fault)
            head = f"#PF {fault.access} {fault.address:#x}{self._event(self.registers, fault)}{self.at()}"
            return f"{head}: {reason.text}", reason.rule
        if self._astray:
            rip = self.registers["rip"]
            return f"#GP executing {rip:#x}{self.at()}: not a canonical address", None
        what = {BP: "#BP (int3)", UD: "#UD (invalid instruction)", GP: "#GP"}
        name = what.get(fault.vector, fault.name)
        text = f"{name}{self.at()}"
        if fault.vector == GP and self.stop.text:
            text += f": {' '.join(self.stop.text.split())}"
        return text, None

    def _undelivered(self, first: Fault | None) -> tuple[str, str | None]:
        """Why the last exception of the chain, or the double fault that nothing has reported, could not be delivered."""
        met, what = self.stop.chain.broken, self.stop.chain.what
        assert met is not None
        if self.db and not any(s.mfn == self.root for s in self.db.spaces.rows):
            return "", None
        name, met = self._stuck(first, met)
        head = f"; {name} can't be delivered: "
        if met.why:
            return f"{head}{met.why}", "C2" if self.report.counts["C2"] else None
        if met.address is None:
            return f"{head}the {what} is no good ({met.text()})", None
        reason = self.why(met.address, met)
        known = self.stack_name(met.address)
        return f"{head}the {what}{known} at {met.address:#x}: {reason.text}", reason.rule

    def _of_other(self, ended: Stop) -> tuple[str, str | None]:
        """Why the CPU that our panic's NMI ended could not take it."""
        if ended.chain.broken is None:
            return "", None
        other = copy(self)
        other.stop, other.registers = ended, ended.registers
        other.root = ended.registers.control["cr3"] >> 12 & 0xFF_FFFF_FFFF
        return other._undelivered(ended.chain.faults[0] if ended.chain.faults else None)

    def _stuck(self, first: Fault | None, met: Fault) -> tuple[str, Fault]:
        """The first exception, and what it meets, where that is at the same table as for the last; else that one."""
        chain = self.stop.chain
        if first is None:
            return "#DF", met
        if chain.what in ("IDT", "GDT", "LDT"):
            own, what = Processor(self.session, self.registers).deliver(first, chain.software)
            if own is not None and what == chain.what:
                return first.name, own
        return chain.faults[-1].name, met

    # --- the places ----------------------------------------------------------------------------------

    def places(self) -> list[Place]:
        """RIP, RSP, CR2, the tables that exceptions need, the handler."""
        if self.stop.no_tables:
            return []
        r, found = self.registers, []
        values = [("RIP", r["rip"]), ("RSP", r["rsp"]), ("CR2", r.control["cr2"])]
        faults = [f.address for f in self.stop.chain.faults if f.address is not None]
        values += [
            ("address", va) for va in dict.fromkeys(faults) if va not in dict(values).values()
        ]
        values += [(n.upper(), r.segments[n].base) for n in ("idt", "gdt")]
        values.append(("TSS", r.segments["tr"].base))
        handler = self._handler()
        if handler is not None:
            values.append(("handler", handler))
        for name, va in values:
            found.append(Place(name, va, self.walk(va)))
        return found

    def _handler(self) -> int | None:
        """Of the first exception."""
        if not self.stop.chain.faults:
            return None
        try:
            gate = Processor(self.session, self.registers).gate(self.stop.chain.faults[0].vector)[0]
        except KtfError:
            return None
        return gate.handler if gate else None

    def frame_of(self, place: Place) -> str | None:
        """The frame at the end of its walk."""
        if self.db is None or place.walk.pa is None:
            return None
        return self.db.frame_line(place.walk.pa >> 12)

    def events_of(self, place: Place) -> list[str]:
        """The last events that name its page, newest first."""
        if self.journal is None:
            return []
        rows = self.journal.of_va(place.va & -PAGE & U64, PAGE).rows
        return [self._tell(row) for row in rows[::-1][:EVENTS]]

    # --- shown ---------------------------------------------------------------------------------------

    def values(self) -> dict[str, Any]:
        """For JSON."""
        function, line = self.where
        return {
            "stop": self.stop.kind,
            "chain": [f.json() for f in self._faults()],
            "cpu": self.stop.cpu,
            "rip": f"{self.registers['rip']:#x}",
            "symbol": function or None,
            "line": line or None,
            "cause": self.cause.text,
            "rule": self.cause.rule,
            "places": [
                {
                    "name": p.name,
                    "va": f"{p.va:#x}",
                    "walk": [step_values(s) for s in p.walk.steps],
                    "frame": self.frame_of(p),
                    "journal": self.events_of(p),
                }
                for p in self.places()
            ],
            "notes": [*self.session.notes, *self.notes, *self._unsure()],
        }

    def lines(self) -> Iterator[str]:
        """As text, the cause first."""
        yield self.cause.text
        yield ""
        yield f"stop     {self._stop_line()}"
        yield from self._chain_lines()
        yield f"code     {self.context.source(self.registers['rip']) or hex(self.registers['rip'])}"
        if self.stop.text:
            yield f"         {self.stop.text}"
        yield ""
        for place in self.places():
            yield self._place_line(place)
            frame = self.frame_of(place)
            if frame:
                yield f"{'':28}{frame}"
            yield from (f"{'':28}{event}" for event in self.events_of(place))
        broken = [r for r in RULES if self.report.counts[r]]
        if broken:
            yield ""
            yield f"rules broken: {' '.join(broken)}; `ktf-pt-check` shows where"
        yield from (f"! {note}" for note in [*self.session.notes, *self.notes, *self._unsure()])

    def _unsure(self) -> list[str]:
        """Where nothing tells which of several CPUs failed."""
        others = ", ".join(map(str, self.stop.alike[:NAMED]))
        more = f" and {len(self.stop.alike) - NAMED} more" * (len(self.stop.alike) > NAMED)
        if self.stop.kind != TRIPLE or not others:
            return []
        return [f"CPU {others}{more} can't go on either: nothing tells which CPU failed first"]

    def _stop_line(self) -> str:
        thread = self.context.thread_of(self.stop.cpu)
        other = f" (thread {thread})" if thread and self.stop.cpu != self.session.selected else ""
        panic = f"panic: {self.stop.message}" if self.stop.message else "panic"
        kind = {TRIPLE: "triple fault", PANIC: panic, DOWN: "the machine is off"}
        text = kind.get(self.stop.kind, self.stop.kind)
        return f"CPU {self.stop.cpu} of {len(self.session.cpus)}{other}, {text}"

    def _faults(self) -> list[Fault]:
        """All exceptions, in the order in which they came."""
        before, after = self.stop.outer, self.stop.inner
        faults = [s.fault for s in before] + self.stop.chain.faults + [s.fault for s in after]
        return faults + (self.stop.ended.chain.faults if self.stop.ended else [])

    def _chain_lines(self) -> Iterator[str]:
        label = "chain"
        said = [f"{s.fault.text()}{self._place_of(s)}" for s in self.stop.outer]
        said += [fault.text() for fault in self.stop.chain.faults]
        said += [f"{s.fault.text()}{self._place_of(s)}" for s in self.stop.inner]
        if self.stop.ended is not None:
            on = f" on CPU {self.stop.ended.cpu}" if self.stop.ended.cpu != self.stop.cpu else ""
            said += [f"{fault.text()}{on}" for fault in self.stop.ended.chain.faults]
        for line in said:
            yield f"{label:9}{line}"
            label = ""
        last = self.stop.ended or self.stop
        met = last.chain.broken
        if met is not None and self.stop.kind != PANIC:
            yield f"{label:9}not delivered: {met.text()}, at the {last.chain.what}"
        if self.stop.logged:
            yield f"{'':9}(as in QEMU's log)"

    def _place_line(self, place: Place) -> str:
        walk = place.walk
        if walk.pa is None:
            step = walk.steps[-1]
            end = f"not mapped: {walk.problem}, level {step.level} entry {step.entry:#x}"
        else:
            end = f"{perm_text(walk.perm)} {PAGES[walk.steps[-1].level]} at {walk.pa:#x}"
        return f"{place.name:8} {place.va:#018x} {end}"
