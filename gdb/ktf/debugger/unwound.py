# SPDX-License-Identifier: BSD-2-Clause
# GDB's backtrace as numbers: where each function stands, and where exceptions have saved their frames; and as names.
"""unwound(), functions(): of the selected thread, innermost first."""

from __future__ import annotations

import gdb

from ktf.debugger.expressions import U64
from ktf.kernel.backtrace import Backtrace

DEEPEST = 1024  # frames that are looked at


def unwound() -> list[tuple[int, int]]:
    """(pc, 0) of a function; (pc, stack pointer) of entry code that has called a handler: there it has saved all.

    Entry code that an exception interrupted, on a stack that was full, has not: (pc, 0). Ends where GDB can't go on.
    """
    found: list[tuple[int, int]] = []
    called = False  # by a function, not interrupted
    try:
        frame: gdb.Frame | None = gdb.newest_frame()
        while frame is not None and len(found) < DEEPEST:
            entry = frame.type() == gdb.SIGTRAMP_FRAME
            top = int(frame.read_register("rsp")) & U64 if entry and called else 0
            found.append((frame.pc() & U64, top))
            called = not entry
            frame = frame.older()
    except (gdb.error, ValueError):
        pass
    return found


def functions() -> Backtrace:
    """Of the selected thread."""
    found: list[tuple[str, str]] = []
    whole = False
    try:
        frame: gdb.Frame | None = gdb.newest_frame()
        while frame is not None and len(found) < DEEPEST:
            function = frame.function()
            found.append((frame.name() or "", function.symtab.filename if function else ""))
            whole = frame.unwind_stop_reason() == gdb.FRAME_UNWIND_OUTERMOST
            frame = frame.older()
    except (gdb.error, ValueError):
        whole = False
    return Backtrace(tuple(found), whole)
