# SPDX-License-Identifier: BSD-2-Clause
# What a command may ask of the debugger.
"""Context, which debugger.target implements with gdb, and tests without; pure."""

from __future__ import annotations

from typing import Callable, Protocol

from ktf.kernel.session import Session


class Breakpoint(Protocol):
    """One of GDB's."""

    number: int

    def is_valid(self) -> bool:
        """False when it was deleted."""


class Context(Protocol):
    """What a command may do; target.py implements it with gdb, tests without."""

    def session(self) -> Session:
        """The guest at this stop; KtfError that says why there is none."""

    def evaluate(self, expression: str) -> int:
        """A GDB expression as an unsigned 64-bit number; KtfError if it is none."""

    def write(self, text: str) -> None:
        """Prints."""

    def reader_story(self) -> list[str]:
        """How memory is read, and why so; why not by the ways that were tried before: lines."""

    def set_variable(self, name: str, value: int) -> None:
        """Sets the convenience variable $name."""

    def break_at(self, where: str, asked: Callable[[], bool]) -> Breakpoint:
        """A breakpoint; asked() says at each hit whether the guest shall stay. KtfError if there is no such place."""

    def quit(self, status: int) -> None:
        """Ends GDB with that exit status, without letting the guest run."""

    def source(self, va: int) -> str:
        """ "function+offset at file:line" of a code or data address, "" if unknown."""

    def instruction(self, va: int, code: bytes = b"") -> tuple[str, int]:
        """The instruction there, in AT&T's syntax, and its size; ("", 0) if it can't be read. code: what stands there, if known."""

    def unwound(self, cpu: int) -> list[tuple[int, int]]:
        """The backtrace of that CPU, innermost first, as far as it is known.

        Of a function its pc, and 0; of the entry code of an exception, whose handler is one of those before it, its
        pc and where it has saved the registers.
        """

    def vm_status(self) -> str:
        """What QEMU says of the machine: "debug", "shutdown", ...; of a core what it said then, "" if that is not known."""

    def fault_log(self) -> str:
        """The end of QEMU's log of exceptions (-d int -D FILE), of a core what is kept of it; "" if there is none."""

    def stop_kind(self) -> str:
        """Why GDB stopped the guest last: "breakpoint", or "" if it does not know."""

    def thread_of(self, cpu: int) -> int | None:
        """GDB's number of the thread that is this CPU; None if it has none."""

    def select_once(self, cpu: int) -> int | None:
        """Selects the thread of that CPU, the first time at a stop; its number, None if nothing was changed."""
