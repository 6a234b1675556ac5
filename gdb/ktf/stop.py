# SPDX-License-Identifier: BSD-2-Clause
# Why the guest stopped: by a panic, by a triple fault (on which CPU), or for the debugger.
"""find_stop(session, context) -> Stop: the CPU, the registers of the code that failed, the chain of exceptions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum

from .command import Context
from .delivery import Chain, Processor
from .errors import KtfError
from .exceptions import DF, PF, Fault
from .intlog import last_chain
from .kernel import Kernel, VirtualMemory
from .readers import PAGE
from .registers import GENERAL, Registers
from .session import CR0_PE, Session

TRIPLE, PANIC, STOPPED = "triple-fault", "panic", "stopped"
DOWN = "shutdown"  # QEMU's word for a machine that stays off: by a triple fault, a reset or a power-off
LONGEST = 15  # bytes of an instruction
DOUBLE = Fault(DF)


class Likely(IntEnum):
    """How much speaks for a CPU as the one that triple-faulted, most first."""

    FAILED = 0  # its registers tell the whole chain
    LOGGED = 1  # a double fault stands in the log
    NO_DELIVERY = 2  # it could not deliver a double fault
    ODD = 3  # it was started, and has no page tables that we read
    NOT = 4


@dataclass
class Stop:
    """kind: triple-fault, panic, breakpoint, stopped, or shutdown. registers: of the code that failed, in which rip stands.

    logged: the chain is QEMU's log's; else it was derived. text: the instruction. message: of a panic. told: somebody
    has said how the machine stands. no_tables: why the CPU has no page tables to walk, "" if it has.
    """

    kind: str
    registers: Registers
    chain: Chain = field(default_factory=Chain)
    message: str = ""
    text: str = ""
    logged: bool = False
    told: bool = True
    no_tables: str = ""

    @property
    def cpu(self) -> int:
        """Number of the CPU that failed."""
        return self.registers.number


def processor(session: Session, context: Context, registers: Registers) -> Processor:
    """That CPU, with its instruction."""
    rip = registers["rip"]
    text, size = context.instruction(rip, _code(Processor(session, registers), rip))
    return Processor(session, registers, text, size)


def _code(one: Processor, va: int) -> bytes:
    """The bytes there by that CPU's page tables, as many as an instruction may have and as can be read."""
    for size in (LONGEST, -va % PAGE or PAGE):
        try:
            return one.memory.read(va, min(size, LONGEST))
        except KtfError:
            continue
    return b""


def find_stop(session: Session, context: Context) -> Stop:
    """The stop. NoGuest or KtfError if the registers can't be had."""
    status = context.vm_status()
    kernel = session.kernel
    panic = _panic(session, context, kernel) if kernel is not None else _early(session, context)
    if status in ("", DOWN):
        down = _down(session, context, certain=status == DOWN, panicked=panic is not None)
        if down is not None:
            return down
    if panic is not None:
        return panic
    session.need_paging()
    mine = next(r for r in session.registers if r.number == session.cpu.number)
    kind = PANIC if status == "guest-panicked" else context.stop_kind() or STOPPED
    text = processor(session, context, mine).text
    return Stop(kind, mine, text=text, told=bool(status))


def _down(session: Session, context: Context, certain: bool, panicked: bool) -> Stop | None:
    """The CPU that can't go on: all are looked at, the selected one first. certain: the machine is down.

    What is not certain counts where a CPU has failed by all that its registers tell; else, unless the guest has panicked,
    a CPU that could deliver no exception is told.
    """
    log = context.fault_log()
    chosen = session.cpu.number
    every = sorted(session.registers, key=lambda r: (r.number != chosen, r.number))
    found = [_judged(session, context, registers, log) for registers in every]
    best = min(range(len(found)), key=lambda i: (found[i][0], i))
    likely, stop = found[best]
    if likely is Likely.FAILED or certain and likely < Likely.NOT:
        return stop
    if certain:
        return replace(stop, kind=DOWN)
    if likely is Likely.NO_DELIVERY and not panicked:
        return replace(stop, kind=STOPPED, told=False)
    return None


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
    frame = _trap_frame(kernel, mine)
    if frame is None:
        at = replace(mine, general={**mine.general, "rip": record.value("caller", 0)})
        return Stop(PANIC, at, message=message)
    registers, vector, error = frame
    address = record.value("address", 0) if vector == PF else None
    one = processor(session, context, registers)
    chain, fault = one.chain(), Fault(vector, error, address)
    if vector == DF and DF in [f.vector for f in chain.faults]:
        end = [f.vector for f in chain.faults].index(DF)
        faults = [*chain.faults[:end], fault]
    else:
        faults = [fault]
    return Stop(PANIC, registers, Chain(faults, software=chain.software), message, one.text)


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


def _trap_frame(kernel: Kernel, registers: Registers) -> tuple[Registers, int, int] | None:
    """Registers, vector and error code of the exception that led to the panic; None if none did."""
    try:
        place = kernel.types.symbol("panic_record")
        offset = _offset(kernel, "struct panic_record", "frame")
        assert place is not None
        va = int.from_bytes(kernel.read(place.va + offset, 8), "little")
        if not va:
            return None
        layout = kernel.layout("struct trap_frame")
        row = layout.records(kernel.read(va, layout.size))
    except KtfError:
        return None
    general = {name: row.value(name, 0) for name in GENERAL}
    cs = replace(registers.segments["cs"], selector=row.value("cs", 0))
    segments = {**registers.segments, "cs": cs}
    found = replace(registers, general=general, segments=segments)
    return found, row.value("vector", 0), row.value("error", 0)


def _offset(kernel: Kernel, struct: str, member: str) -> int:
    """Byte offset of a pointer member, which has no column of its own."""
    for member_of in kernel.types.struct(struct).fields:
        if member_of.name == member:
            return member_of.bitpos // 8
    raise KtfError(f"the symbols' {struct} has no {member}")
