# SPDX-License-Identifier: BSD-2-Clause
# Whether a div or idiv fails, by what its operands hold: no table tells of a #DE.
"""fails(text, value, read, next_rip): True if the division's divisor is 0 or its quotient has no room; pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from ktf.x86.operands import SUFFIX, Value, address, split, width

_DIVISION = re.compile(r"(i?)div([bwlq]?)")
_LETTER = re.compile(r"[re]?([abcd])[xl]")
_POINTER = re.compile(r"[re]?([sd]i|[sb]p)l?")
_NUMBERED = re.compile(r"(r\d+)[dwb]?")

Read = Callable[[int, int], bytes]  # bytes at an address


def register(name: str, value: Value) -> int:
    """Of any width, by its name without %; KeyError for one that is none."""
    if re.fullmatch(r"[abcd]h", name):
        return value(f"r{name[0]}x") >> 8 & 0xFF
    for form, whole in ((_LETTER, r"r\1x"), (_POINTER, r"r\1"), (_NUMBERED, r"\1")):
        if form.fullmatch(name):
            return value(form.sub(whole, name)) & (1 << 8 * width(name)) - 1
    raise KeyError(name)


def fails(text: str, value: Value, read: Read, next_rip: int) -> bool:
    """False for other instructions. KeyError for a register that is not known, what read() raises where it can't."""
    name, operands = split(text)
    found = _DIVISION.fullmatch(name)
    if not found or len(operands) != 1:
        return False
    operand = operands[0]
    if operand.startswith("%") and ":" not in operand:
        size = 1 if re.fullmatch(r"%[abcd]h", operand) else width(operand[1:])
        divisor = register(operand[1:], value)
    else:
        va = address(operand, value, next_rip)
        if va is None:
            return False
        size = SUFFIX.get(found[2], 8)
        divisor = int.from_bytes(read(va, size), "little")
    return _no_quotient(_dividend(size, value), divisor, 8 * size, signed=bool(found[1]))


def _dividend(size: int, value: Value) -> int:
    """Twice as long as the divisor: AX, DX:AX, EDX:EAX, RDX:RAX."""
    if size == 1:
        return value("rax") & 0xFFFF
    mask = (1 << 8 * size) - 1
    return (value("rdx") & mask) << 8 * size | value("rax") & mask


def _no_quotient(dividend: int, divisor: int, bits: int, signed: bool) -> bool:
    if not divisor:
        return True
    if not signed:
        return dividend // divisor >> bits != 0
    dividend -= (dividend >> 2 * bits - 1) << 2 * bits
    divisor -= (divisor >> bits - 1) << bits
    quotient = abs(dividend) // abs(divisor)
    return quotient > (1 << bits - 1) - ((dividend < 0) == (divisor < 0))
