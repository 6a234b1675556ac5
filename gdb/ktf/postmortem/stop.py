# SPDX-License-Identifier: BSD-2-Clause
# Why the guest stopped: by a panic, by a triple fault (on which CPU), or for the debugger.
"""find_stop(session, context) -> Stop: the CPU, the registers of the code that failed, the chain of exceptions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum

from ktf.errors import KtfError
from ktf.kernel.context import Context
from ktf.kernel.kernel import Kernel, VirtualMemory
from ktf.kernel.machine_end import Asked, asked_end
from ktf.kernel.session import Session
from ktf.postmortem.delivery import Chain, processor
from ktf.postmortem.intlog import last_chain, triple_fault
from ktf.postmortem.saved import Saved, exceptions, read_frame, saved
from ktf.x86.cpu import CR0_PE
from ktf.x86.exceptions import DF, NMI, PF, Fault
from ktf.x86.registers import Registers

TRIPLE, PANIC, STOPPED = "triple-fault", "panic", "stopped"
PANICKED = "guest-panicked"  # QEMU's word for a guest whose panic pvpanic has reported
DOWN = "shutdown"  # QEMU's word for a machine that stays off: by a triple fault, a reset or a power-off
DOUBLE = Fault(DF)
RFLAGS_IF = 1 << 9


class Likely(IntEnum):
    """How much speaks for a CPU as the one that triple-faulted, most first."""

    FAILED = 0  # its registers tell the whole chain
    LOGGED = 1  # a double fault stands in the log
    NO_DELIVERY = 2  # it could not deliver a double fault
    ODD = 3  # it was started, and has no page tables that we read
    NOT = 4


@dataclass
class Stop:
    """kind: triple-fault, panic, exit, power-off, shutdown, breakpoint or stopped. registers: of the code, in which rip stands.

    logged: the chain is QEMU's log's; else it was derived. text: the instruction. message: of a panic. told: somebody
    has said how the machine stands. no_tables: why the CPU has no page tables to walk, "" if it has.
    lost: exceptions whose handler is at rip and can't be executed.
    outer, inner: what was being handled as the chain began, and what came up in handling it; the outermost first.
    ended: of a panic that had not been reported yet, the CPU that its NMI ended, and the machine with it.
    alike: CPUs of which the evidence says the same as of this one. asked: how the kernel asked for this end.
    logged_triple: QEMU's log has a triple fault, though none of the CPUs is seen to be the one.
    """

    kind: str
    registers: Registers
    chain: Chain = field(default_factory=Chain)
    message: str = ""
    text: str = ""
    logged: bool = False
    told: bool = True
    no_tables: str = ""
    lost: list[int] = field(default_factory=list)
    outer: list[Saved] = field(default_factory=list)
    inner: list[Saved] = field(default_factory=list)
    ended: Stop | None = None
    alike: list[int] = field(default_factory=list)
    asked: Asked | None = None
    logged_triple: bool = False

    @property
    def cpu(self) -> int:
        """Number of the CPU that failed."""
        return self.registers.number


def find_stop(session: Session, context: Context) -> Stop:
    """The stop. NoGuest or KtfError if the registers can't be had."""
    status = context.vm_status()
    kernel = session.kernel
    panic = _panic(session, context, kernel) if kernel is not None else _early(session, context)
    if status in ("", DOWN):
        down = _down(session, context, certain=status == DOWN, panicked=panic is not None)
        begun = None if down is None or kernel is None else _begun(session, context, kernel, down)
        if begun is not None:
            return begun
        if down is not None:
            if kernel is not None and not down.no_tables:
                down.outer = exceptions(saved(session, context, kernel, down.registers))
            return down
    if panic is None and status == PANICKED and kernel is not None:
        panic = _untold(session, context, kernel)
    if panic is not None:
        return panic
    session.need_paging()
    lost = _lost(session, context) if status != PANICKED else None
    if lost is not None:
        return replace(lost, told=bool(status))
    mine = next(r for r in session.registers if r.number == session.cpu.number)
    kind = PANIC if status == PANICKED else context.stop_kind() or STOPPED
    text = processor(session, context, mine).text
    outer = exceptions(saved(session, context, kernel, mine)) if kernel is not None else []
    return Stop(kind, mine, text=text, told=bool(status), outer=outer)


def _down(session: Session, context: Context, certain: bool, panicked: bool) -> Stop | None:
    """The CPU that can't go on, by what speaks for it, whichever GDB has selected. certain: the machine is down.

    What is not certain counts where a CPU has failed by all that its registers tell; else, unless the guest has panicked,
    a CPU that could deliver no exception is named.
    """
    log = context.fault_log()
    found = [_judged(session, context, registers, log) for registers in session.registers]
    likely, stop = min(found, key=lambda f: (*_evidence(*f), f[1].cpu))
    alike = [s.cpu for l, s in found if _evidence(l, s) == _evidence(likely, stop)]
    stop.alike = [cpu for cpu in alike if cpu != stop.cpu]
    if likely is Likely.FAILED or certain and likely < Likely.NOT:
        return stop
    if certain:
        return _off(session, triple_fault(log))
    if likely is Likely.NO_DELIVERY and not panicked:
        return replace(stop, kind=STOPPED, told=False)
    return None


def _evidence(likely: Likely, stop: Stop) -> tuple[int, ...]:
    """Of one CPU, to be compared with that of others: what counts most comes first, the least is the most suspect."""
    faults = [f.address for f in stop.chain.faults if f.address is not None]
    own = bool(faults) and stop.registers.control["cr2"] == faults[-1]
    return likely, not stop.logged, rest(stop.registers), not own


def rest(registers: Registers) -> int:
    """How much a CPU rests: 0 it executes instructions, 1 it halts for good, 2 it halts until an interrupt comes."""
    return int(bool(registers.halted)) * (2 if registers["rflags"] & RFLAGS_IF else 1)


def _off(session: Session, logged: bool) -> Stop:
    """A machine that is off, though all its CPUs are well: as the kernel has asked, if it has. logged: by a triple fault."""
    asked = asked_end(session.kernel) if session.kernel is not None and not logged else None
    chosen = session.selected
    order = sorted(session.registers, key=lambda r: (rest(r), r.number != chosen, r.number))
    return Stop(asked.kind if asked else DOWN, order[0], asked=asked, logged_triple=logged)


def _judged(
    session: Session, context: Context, registers: Registers, log: str
) -> tuple[Likely, Stop]:
    """One CPU as that of a triple fault, and how likely it is that one."""
    logged = last_chain(log, registers["rip"], registers["rsp"])
    logged = logged if logged and logged[-1].vector == DF else []
    cpu = next((c for c in session.cpus if c.number == registers.number), None)
    problem = cpu.no_tables() if cpu is not None else "no thread of GDB's"
    if problem:
        stop = Stop(TRIPLE, registers, Chain(logged), logged=bool(logged), no_tables=problem)
        started = registers.control["cr0"] & CR0_PE
        return (Likely.LOGGED if logged else Likely.ODD if started else Likely.NOT), stop
    one = processor(session, context, registers)
    chain = one.chain()
    if logged and chain.faults != logged:
        chain = Chain(logged, *one.deliver(DOUBLE))
    stop = Stop(TRIPLE, registers, chain, text=one.text, logged=bool(logged))
    if chain.triple:
        return Likely.FAILED, stop
    if logged:
        return Likely.LOGGED, stop
    broken, what = one.deliver(DOUBLE)  # without which there is no triple fault
    stop.chain = Chain([], broken, what)
    return (Likely.NO_DELIVERY if broken else Likely.NOT), stop


def _lost(session: Session, context: Context) -> Stop | None:
    """The first CPU that goes from one exception to the next for ever; it does not rest."""
    off = [c.number for c in session.cpus if c.no_tables()]
    for registers in sorted(session.registers, key=lambda r: (rest(r), r.number)):
        if registers.number not in off:
            fault, vectors = processor(session, context, registers).lost()
            if fault is not None and vectors:
                kind = context.stop_kind() or STOPPED
                return Stop(kind, registers, Chain([fault]), lost=vectors)
    return None


# --- a panic -----------------------------------------------------------------------------------------


def _panic(session: Session, context: Context, kernel: Kernel) -> Stop | None:
    """What the kernel wrote down when it gave up; None if it has not."""
    text = kernel.types.symbol("panic_message")
    if text is None or kernel.types.symbol("panic_record") is None:
        return None
    message = kernel.read(text.va, text.size).split(b"\0")[0].decode("ascii", "replace")
    if not message:
        return None
    record = kernel.variable("panic_record", "struct panic_record")
    number = record.value("cpu", 0)
    mine = next((r for r in session.registers if r.number == number), session.registers[0])
    va, found = _frame_va(kernel), exceptions(saved(session, context, kernel, mine))
    if va and va not in [s.va for s in found]:
        one = read_frame(kernel, mine, va)
        found = [one] if one is not None else []
    if not va or not found:
        at = replace(mine, general={**mine.general, "rip": record.value("caller", 0)})
        outer, inner = _around(found, context.unwound(number), at["rip"])
        return Stop(PANIC, at, message=message, outer=outer, inner=inner)
    address = record.value("address", 0)
    for i, one in enumerate(found):
        if one.va == va and one.fault.vector == PF:
            found[i] = replace(one, fault=replace(one.fault, address=address))
    return replace(_handled(session, context, found), message=message)


def _begun(session: Session, context: Context, kernel: Kernel, down: Stop) -> Stop | None:
    """The panic whose NMI to the other CPUs has ended the machine before anything was printed; None if that is not so."""
    owner = kernel.types.symbol("panic_owner")
    nmi = not down.chain.faults or down.chain.faults[0].vector == NMI
    if owner is None or down.kind != TRIPLE or down.no_tables or not nmi:
        return None
    try:
        record = kernel.variable("panic_record", "struct panic_record")
        begun = any(kernel.read(owner.va, owner.size))
    except KtfError:
        return None
    mine = next((r for r in session.registers if r.number == record.value("cpu", 0)), None)
    if not begun or not record.value("caller", 0) or mine is None:
        return None
    found = exceptions(saved(session, context, kernel, mine))
    if found:
        stop = _handled(session, context, found)
    else:
        stop = Stop(
            TRIPLE, replace(mine, general={**mine.general, "rip": record.value("caller", 0)})
        )
    return replace(stop, kind=TRIPLE, logged=down.logged, ended=down)


def _handled(session: Session, context: Context, found: list[Saved]) -> Stop:
    """A panic by these exceptions: the outermost one is the first."""
    registers, fault = found[0].registers, found[0].fault
    one = processor(session, context, registers)
    chain = one.chain()
    faults = [fault]
    if fault.vector == DF and DF in [f.vector for f in chain.faults]:
        end = [f.vector for f in chain.faults].index(DF)
        faults = [*chain.faults[:end], fault]
    chain = Chain(faults, software=chain.software)
    return Stop(PANIC, registers, chain, text=one.text, inner=found[1:])


def _untold(session: Session, context: Context, kernel: Kernel) -> Stop | None:
    """A panic that could write nothing down: by the exceptions that the CPUs are inside of.

    A CPU that has come there by another one's NMI counts after all others; then one that rests.
    """
    best: tuple[bool, list[Saved]] | None = None
    for registers in sorted(session.registers, key=lambda r: (rest(r), r.number)):
        every = saved(session, context, kernel, registers)
        found = exceptions(every)
        asked = bool(every) and every[0].fault.vector == NMI
        if found and (best is None or best[0] and not asked):
            best = asked, found
    return _handled(session, context, best[1]) if best is not None else None


def _around(
    found: list[Saved], unwound: list[tuple[int, int]], caller: int
) -> tuple[list[Saved], list[Saved]]:
    """The exceptions in whose handling panic() was called, and those that came up in it."""
    depth = next((i for i, (pc, va) in enumerate(unwound) if pc == caller and not va), None)
    if depth is None:
        return [], []
    return [s for s in found if s.depth > depth], [s for s in found if s.depth < depth]


def _early(session: Session, context: Context) -> Stop | None:
    """A panic before there is a frame database, through the page tables that the boot made."""
    cpu = session.cpu
    if session.types is None or cpu.paging_problem():
        return None
    memory = VirtualMemory(session.reader, cpu.root, session.rules)
    try:
        found = _panic(session, context, Kernel(session.types, session.image, memory))
    except KtfError:
        return None  # not mapped: these symbols are another kernel's
    return found if found is not None and found.message.isprintable() else None


def _frame_va(kernel: Kernel) -> int:
    """Where the registers lie of the exception that led to the panic; 0 if none did, or that can't be read."""
    try:
        place = kernel.types.symbol("panic_record")
        offset = _offset(kernel, "struct panic_record", "frame")
        assert place is not None
        return int.from_bytes(kernel.read(place.va + offset, 8), "little")
    except KtfError:
        return 0


def _offset(kernel: Kernel, struct: str, member: str) -> int:
    """Byte offset of a pointer member, which has no column of its own."""
    for member_of in kernel.types.struct(struct).fields:
        if member_of.name == member:
            return member_of.bitpos // 8
    raise KtfError(f"the symbols' {struct} has no {member}")
