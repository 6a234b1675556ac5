# SPDX-License-Identifier: BSD-2-Clause
# QEMU's log of exceptions (-d int,cpu_reset -D FILE): the chain that a CPU went down by.
"""last_chain(text, rip, rsp): the exceptions that the log's end tells of the instruction at rip; pure.

The log has a line for each exception that QEMU begins to deliver, with the registers after it:
`     0: v=0e e=0002 i=0 cpl=0 IP=0008:ffffffff80231aab pc=ffffffff80231aab SP=0010:... CR2=...`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ktf.x86.exceptions import DF, GP, PF, Fault

_LINE = re.compile(
    r"^ *\d+: v=([0-9a-f]{2}) e=([0-9a-f]{4}) i=(\d) cpl=\d IP=[0-9a-f]{4}:([0-9a-f]{16}) pc=\S+ "
    r"SP=[0-9a-f]{4}:([0-9a-f]{16})(?: CR2=([0-9a-f]{16}))?",
    re.MULTILINE,
)
_TRIPLE = re.compile(r"^Triple fault", re.MULTILINE)
_RESET = re.compile(r"^CPU Reset \(CPU \d+\)", re.MULTILINE)
TAIL = 1 << 18  # bytes of the log that are looked at
CHAIN_MAX = 8
IN_IDT = 2  # in an error code: the selector is a vector


@dataclass(frozen=True)
class Logged:
    """One line of the log."""

    fault: Fault
    rip: int
    rsp: int
    software: bool  # by an instruction like int3, which leaves rip behind itself in the frame


def parse(text: str) -> list[Logged]:
    """All exceptions of the text, in their order."""
    found: list[Logged] = []
    for m in _LINE.finditer(text):
        vector = int(m[1], 16)
        address = int(m[6], 16) if vector == PF and m[6] else None
        fault = Fault(vector, int(m[2], 16), address)
        one = Logged(fault, int(m[4], 16), int(m[5], 16), m[3] == "1")
        met = next((o for o in reversed(found) if (o.rip, o.rsp) == (one.rip, one.rsp)), None)
        found.append(corrected(met, one) if met is not None else one)
    return found


def corrected(met: Logged, one: Logged) -> Logged:
    """The error code of a #GP for a vector beyond the IDT's limit is the vector * 8 + 2 (SDM vol. 3, 6.13).

    QEMU 7.2 counts 16 in 64-bit mode, as its gates have that size. That is seen by the exception which met it there.
    """
    fault, vector = one.fault, met.fault.vector
    if fault.vector != GP or not vector or fault.error != vector * 16 + IN_IDT:
        return one
    return replace(one, fault=replace(fault, error=vector * 8 + IN_IDT))


def triple_fault(text: str) -> bool:
    """Whether the log ends in a triple fault. Where it does not that says nothing: -d cpu_reset writes it.

    A machine that was started anew since has reset its CPUs: an earlier triple fault says nothing of its end.
    """
    last = [m.end() for m in _TRIPLE.finditer(text)]
    return bool(last) and _RESET.search(text, last[-1]) is None


def excerpt(text: str, stops: list[tuple[int, int]]) -> str:
    """The lines that last_chain() looks at for CPUs that stand at these (rip, rsp), and triple_fault()."""
    kept: list[str] = []
    for stop in dict.fromkeys(stops):
        lines = [m[0].strip() for m in _LINE.finditer(text[-TAIL:]) if _stop(m) == stop]
        kept += lines[-CHAIN_MAX:]
    kept += ["Triple fault"] * triple_fault(text)
    return "".join(f"{line}\n" for line in kept)


def _stop(line: re.Match[str]) -> tuple[int, int]:
    return int(line[4], 16), int(line[5], 16)


def last_chain(text: str, rip: int, rsp: int) -> list[Fault]:
    """The last run of exceptions of one instruction, which is at rip with that stack pointer; [] if there is none."""
    lines = [line for line in parse(text[-TAIL:]) if line.rip == rip and line.rsp == rsp]
    chain: list[Fault] = []
    for line in reversed(lines[-CHAIN_MAX:]):
        # An exception at the same place an iteration earlier would not be followed by a lesser one.
        if chain and chain[0].vector == line.fault.vector and line.fault != chain[0]:
            break
        if chain and (chain[0] == line.fault or line.fault.vector == DF):  # which ends a chain
            break
        chain.insert(0, line.fault)
    return chain
