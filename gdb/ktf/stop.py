# SPDX-License-Identifier: BSD-2-Clause
# Why the guest stopped: by a panic, by a triple fault (on which CPU), or for the debugger.
"""find_stop(session, context) -> Stop: the CPU, the registers of the code that failed, the chain of exceptions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .command import Context
from .delivery import Chain, Processor
from .errors import KtfError
from .exceptions import DF, PF, Fault
from .intlog import last_chain
from .kernel import Kernel
from .readers import PAGE
from .registers import GENERAL, Registers
from .session import Session

TRIPLE, PANIC, STOPPED = "triple-fault", "panic", "stopped"
LONGEST = 15  # bytes of an instruction


@dataclass
class Stop:
    """kind: triple-fault, panic, breakpoint or stopped. registers: of the code that failed, in which rip stands.

    logged: the chain is QEMU's log's; else it was derived. text: the instruction. message: of a panic.
    """

    kind: str
    registers: Registers
    chain: Chain = field(default_factory=Chain)
    message: str = ""
    text: str = ""
    logged: bool = False

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
    panic = _panic(session, context, kernel) if kernel is not None else None
    if status == "shutdown" or not status and panic is None:
        triple = _triple(session, context, certain=status == "shutdown")
        if triple is not None:
            return triple
    if panic is not None:
        return panic
    mine = next(r for r in session.registers if r.number == session.cpu.number)
    kind = "panic" if status == "guest-panicked" else context.stop_kind() or STOPPED
    return Stop(kind, mine, text=processor(session, context, mine).text)


def _triple(session: Session, context: Context, certain: bool) -> Stop | None:
    """The CPU that can't go on: all are looked at, the selected one first. certain: there must be one."""
    log = context.fault_log()
    chosen = session.cpu.number
    every = sorted(session.registers, key=lambda r: (r.number != chosen, r.number))
    found: list[Stop] = []
    for registers in every:
        if session_cpu_off(session, registers.number):
            continue
        one = processor(session, context, registers)
        stop = Stop(TRIPLE, registers, one.chain(), text=one.text)
        logged = last_chain(log, registers["rip"], registers["rsp"])
        if logged and (not stop.chain.faults or logged[-1].vector == DF):
            if stop.chain.faults != logged:
                stop.chain = replace(stop.chain, faults=logged)
            stop.logged = True
        if stop.chain.triple:
            return stop
        if stop.logged:
            found.insert(0, stop)
        elif certain:
            found.append(stop)
    return found[0] if found and certain else None


def session_cpu_off(session: Session, number: int) -> bool:
    """A CPU without page tables: not started."""
    return any(c.number == number and bool(c.paging_problem()) for c in session.cpus)


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
