# SPDX-License-Identifier: BSD-2-Clause
# What an instruction touches: its memory operands, from the disassembler's text and the registers.
"""accesses(text, registers, rip): the addresses that one instruction reads and writes; pure.

The text is GDB's, in AT&T's syntax: `mov    %rax,0x10(%rdi,%rcx,8)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

U64 = (1 << 64) - 1
PREFIXES = {
    "lock",
    "rep",
    "repz",
    "repnz",
    "repe",
    "repne",
    "notrack",
    "bnd",
    "data16",
    "cs",
    "ds",
    "es",
    "ss",
}
NOT_TOUCHED = ("lea", "nop", "prefetch", "invlpg", "clflush", "clwb")
READ_ONLY = (
    "cmp",
    "test",
    "push",
    "call",
    "jmp",
    "bt",
    "ucomis",
    "comis",
    "lgdt",
    "lidt",
    "lldt",
    "ltr",
    "verr",
    "verw",
)
BRANCHES = ("call", "j", "loop")
WRITE_TOO = ("cmpxchg", "bts", "btr", "btc")  # though they begin like those
SHIFTS = ("sh", "sa", "ro", "rc")  # by %cl, which is not the size of what they shift
ONE_OPERAND_READ = ("mul", "imul", "div", "idiv", "fld", "fild", "ldmxcsr", "lmsw")
SUFFIX = {"b": 1, "w": 2, "l": 4, "q": 8}
_MEMORY = re.compile(
    r"^\*?(?:%([c-gs]s):)?(-?0x[0-9a-f]+|-?\d+)?(?:\((%\w+)?(?:,(%\w+))?(?:,(\d))?\))?$"
)
_SOFTWARE = re.compile(r"^int +\$0x([0-9a-f]+)$")


@dataclass(frozen=True)
class Access:
    """size bytes at va, read or written; stack: by push, call, ret and their like."""

    va: int
    size: int
    write: bool
    stack: bool = False


Value = Callable[
    [str], int
]  # of a register: "rax", "fs_base"; KeyError for a name it does not know


def width(register: str) -> int:
    """Bytes of a register by its name without %."""
    if register.startswith(("xmm", "ymm", "zmm")):
        return {"x": 16, "y": 32, "z": 64}[register[0]]
    if re.fullmatch(r"r\d+d|e\w\w", register):
        return 4
    if re.fullmatch(r"r\d+w|[abcd]x|[sd]i|[sb]p|[c-gs]s", register):
        return 2
    if re.fullmatch(r"r\d+b|[abcd][lh]|[sd]il|[sb]pl", register):
        return 1
    return 8


def split(text: str) -> tuple[str, list[str]]:
    """Mnemonic and operands, without prefixes and comments."""
    words = text.split("#")[0].split("<")[0].split(None, 1)
    while words and words[0] in PREFIXES and len(words) > 1:
        words = words[1].split(None, 1)
    if not words:
        return "", []
    operands, depth, start = [], 0, 0
    rest = words[1].strip() if len(words) > 1 else ""
    for i, c in enumerate(rest):
        depth += (c == "(") - (c == ")")
        if c == "," and not depth:
            operands.append(rest[start:i].strip())
            start = i + 1
    return words[0], operands + ([rest[start:].strip()] if rest else [])


def address(operand: str, value: Value, next_rip: int) -> int | None:
    """Where a memory operand points; None if it is none."""
    if operand.startswith(("$", "%")) and ":" not in operand or operand == "(%dx)":  # a port
        return None
    found = _MEMORY.match(operand)
    if not found or not (found[2] or found[3] or found[4]):
        return None
    segment, offset, base, index, scale = found.groups()
    va = int(offset, 0) if offset else 0
    if base:
        va += next_rip if base == "%rip" else value(base[1:])
    if index and index not in ("%riz", "%eiz"):
        va += value(index[1:]) * int(scale or 1)
    if 4 in (width(name[1:]) for name in (base, index) if name):
        va &= 0xFFFF_FFFF  # an address of 32 bits wraps there
    if segment in ("fs", "gs"):
        va += value(f"{segment}_base")
    return va & U64


def software_vector(text: str) -> int | None:
    """The exception that an instruction asks for itself: int3, ud2, int $n."""
    name, _ = split(text)
    if name in ("int3", "icebp", "int1"):
        return 3 if name == "int3" else 1
    if name in ("ud2", "ud1", "ud0", "ud2a", "ud2b", "(bad)"):
        return 6
    found = _SOFTWARE.match(" ".join(text.split()))
    return int(found[1], 16) if found else None


def _stack(name: str, value: Value) -> list[Access]:
    """What goes over the stack without being said."""
    rsp = value("rbp" if name.startswith("leave") else "rsp")
    if name.startswith(("push", "call", "enter")):
        return [Access(rsp - 8 & U64, 8, True, True)]
    if name.startswith(("pop", "ret", "leave")):
        return [Access(rsp, 8, False, True)]
    if name.startswith("iret"):
        return [Access(rsp, 40, False, True)]
    return []


def accesses(text: str, value: Value, next_rip: int) -> list[Access]:
    """What it reads and writes, in the order in which a fault shows. KeyError for a register that is not known."""
    name, operands = split(text)
    branch = name.startswith(BRANCHES)
    found: list[Access] = []
    for i, operand in enumerate(operands):
        if name.startswith(NOT_TOUCHED) or branch and not operand.startswith("*"):
            continue
        va = address(operand, value, next_rip)
        if va is None:
            continue
        last = i == len(operands) - 1
        reads = name.startswith(READ_ONLY) and not name.startswith(WRITE_TOO)
        write = last and not reads or name.startswith(("xchg", "xadd"))
        if len(operands) == 1 and name.startswith(ONE_OPERAND_READ):
            write = False
        found.append(Access(va, _size(name, operands), write))
    stack = _stack(name, value)
    return stack + found if name.startswith("pop") else found + stack


def _size(name: str, operands: list[str]) -> int:
    """Bytes of a memory operand."""
    extended = re.fullmatch(r"mov[sz]([bwl])[wlq]", name)
    if extended:
        return SUFFIX[extended[1]]
    if name.startswith("set"):
        return 1
    if name == "cmpxchg16b" or name.startswith(BRANCHES):
        return 16 if name == "cmpxchg16b" else 8
    registers = [o[1:] for o in operands if re.fullmatch(r"%\w+", o)]
    if name.startswith(SHIFTS):
        registers = [r for r in registers if r != "cl"]
    sizes = [width(r) for r in registers]
    return min(sizes) if sizes else SUFFIX.get(name[-1:], 8)
