# SPDX-License-Identifier: BSD-2-Clause
# Breakpoints at which Python decides whether the guest stays.
"""break_at(): GDB's side of ktf-check-at."""

from __future__ import annotations

from typing import Callable

import gdb

from .errors import KtfError


class Asking(gdb.Breakpoint):
    """A breakpoint that asks."""

    def __init__(self, where: str, asked: Callable[[], bool]) -> None:
        super().__init__(where)
        self.asked = asked

    def stop(self) -> bool:
        """Called by GDB at each hit."""
        return self.asked()


def break_at(where: str, asked: Callable[[], bool]) -> Asking:
    """Makes one; KtfError if there is no such place."""
    try:
        made = Asking(where, asked)
    except gdb.error as e:
        raise KtfError(f"{where}: {' '.join(str(e).split())}") from e
    if made.pending:
        made.delete()
        raise KtfError(
            f"{where}: the symbols have no such place (a function, FILE:LINE or *ADDRESS)"
        )
    return made
