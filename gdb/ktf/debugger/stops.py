# SPDX-License-Identifier: BSD-2-Clause
# Breakpoints at which Python decides whether the guest stays.
"""break_at(): GDB's side of ktf-check-at."""

from __future__ import annotations

from typing import Callable

import gdb

from ktf.debugger.effects import effect
from ktf.debugger.expressions import FRACTIONS, NO_INTEGER
from ktf.debugger.settings import nothing_changes, own_language, refusal, users, users_language
from ktf.errors import KtfError, UsageError


class Asking(gdb.Breakpoint):
    """A breakpoint that asks."""

    def __init__(self, where: str, asked: Callable[[], bool]) -> None:
        super().__init__(where)
        self.asked = asked

    def stop(self) -> bool:
        """Called by GDB at each hit."""
        with own_language():
            return self.asked()


def _whole(where: str) -> None:
    """KtfError if the address is no integer, of which GDB would take what stands before the point."""
    try:
        value = gdb.parse_and_eval(where[1:])
    except gdb.error:
        return  # GDB says what is wrong with it, or knows what follows the address
    if value.type.strip_typedefs().code in FRACTIONS:
        raise KtfError(f"{where}: {NO_INTEGER}")


def break_at(where: str, asked: Callable[[], bool]) -> Asking:
    """Makes one; KtfError if there is no such place."""
    why = effect(where, users()) if where.startswith("*") else ""
    if why:
        raise UsageError(f"{where}: {why}: not evaluated")
    try:
        with users_language(), nothing_changes():  # *ADDRESS is an expression
            if where.startswith("*"):
                _whole(where)
            else:
                _known(where)
            made = Asking(where, asked)
    except gdb.error as e:
        message = " ".join(str(e).split())
        why = refusal(message)
        if why:
            raise UsageError(f"{where}: {why}: not evaluated") from e
        raise KtfError(f"{where}: {message}") from e
    return made


def _known(where: str) -> None:
    """KtfError if there is no such place: GDB would make a breakpoint all the same, for symbols to come, and say so."""
    try:
        gdb.decode_line(where)
    except gdb.error:
        raise KtfError(
            f"{where}: the symbols have no such place (a function, FILE:LINE or *ADDRESS)"
        ) from None
