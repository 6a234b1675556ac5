# SPDX-License-Identifier: BSD-2-Clause
# The functions that a CPU is inside of, by name and source file, and whether the memory manager's are among them.
"""Backtrace: made by unwound.functions() inside GDB; pure."""

from __future__ import annotations

from dataclasses import dataclass

MANAGER = "mm/"  # the folder of its sources


@dataclass(frozen=True)
class Backtrace:
    """(name, source file) of each function, innermost first, those inlined too; "" for what the symbols don't tell.

    whole: it goes back to where the CPU's stack begins.
    """

    functions: tuple[tuple[str, str], ...] = ()
    whole: bool = False

    def outside(self) -> bool:
        """Whether the CPU is certainly in no function of the manager."""
        known = self.whole and all(name for name, _ in self.functions)
        return known and not any(map(_manager, self.functions))

    def text(self) -> str:
        """Where the CPU is: the innermost function, and for which one of the manager; "" if nothing is known."""
        names = [name or "unknown code" for name, _ in self.functions]
        if not names:
            return ""
        mine = [name for name, file in self.functions if _manager((name, file))]
        return f"in {names[0]}" + (f" for {mine[-1]}" if mine and mine[-1] != names[0] else "")

    def chain(self) -> str:
        """All of them."""
        return " < ".join(name for name, _ in self.functions)


def _manager(function: tuple[str, str]) -> bool:
    return f"/{MANAGER}" in f"/{function[1]}"
