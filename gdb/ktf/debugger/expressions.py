# SPDX-License-Identifier: BSD-2-Clause
# What the user writes as WHERE: an expression of GDB, in the user's language, that changes nothing.
"""evaluate(expression): its value as an unsigned number."""

from __future__ import annotations

import re

import gdb

from ktf.debugger.effects import effect
from ktf.debugger.settings import nothing_changes, refusal, users, users_language
from ktf.errors import KtfError, UsageError

U64 = (1 << 64) - 1
FRACTIONS = (gdb.TYPE_CODE_FLT, gdb.TYPE_CODE_DECFLOAT, gdb.TYPE_CODE_COMPLEX)
NO_INTEGER = "it is no integer: what follows its point would be lost; give one, or cast it"
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}")
_NAME = re.compile(r"(&?)([A-Za-z_]\w*)")


def u64() -> gdb.Type:
    return gdb.selected_inferior().architecture().integer_type(64, False)


def evaluate(expression: str, shown: str = "") -> int:
    """KtfError if it has no value that is a number or an address, UsageError if it would change the guest.

    Numbers as the commands print them (0x...), functions, and `&NAME` are understood in every language, though it may
    have other words for them. shown: how the expression is called in messages.
    """
    shown = shown or expression
    if _NUMBER.fullmatch(expression):
        return int(expression, 16)
    why = effect(expression, users())
    if why:
        raise UsageError(f"{shown}: {why}: not evaluated")
    try:
        with users_language(), nothing_changes():
            return number(gdb.parse_and_eval(expression))
    except KtfError as e:
        raise KtfError(f"{shown}: {e}") from e
    except (gdb.error, TypeError, ValueError, OverflowError) as e:
        address = _named(expression)
        if address is not None:
            return address
        message = " ".join(str(e).split())
        why = refusal(message)
        if why:
            raise UsageError(f"{shown}: {why}: not evaluated") from e
        raise KtfError(f"{shown}: {message}") from e


def number(value: gdb.Value) -> int:
    """An unsigned 64-bit number of it: an address of what has one, mfn_t and its like as their only member."""
    kind = value.type.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_VOID:
        raise KtfError("it has no value")
    if kind.code == gdb.TYPE_CODE_STRUCT and len(kind.fields()) == 1:
        return number(value[kind.fields()[0]])
    if kind.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        raise KtfError("it is a struct: give its address, with & before it")
    if kind.code in FRACTIONS:
        raise KtfError(NO_INTEGER)
    if kind.code in (gdb.TYPE_CODE_FUNC, gdb.TYPE_CODE_ARRAY):
        if value.address is None:
            raise KtfError("it is no number and has no address")
        value = value.address
    elif kind.code == gdb.TYPE_CODE_FLAGS:
        value = value.cast(u64())
    return int(value) & U64


def named(name: str) -> gdb.Symbol | None:
    """A variable, function or enumerator of the kernel, in whatever language; None if there is none."""
    return gdb.lookup_global_symbol(name) or gdb.lookup_static_symbol(name)


def _named(expression: str) -> int | None:
    """The address of NAME if it is a function, of &NAME; None for any other expression."""
    match = _NAME.fullmatch(expression)
    symbol = named(match[2]) if match else None
    if match is None or symbol is None or not (symbol.is_function or match[1]):
        return None
    return int(symbol.value().address) & U64
