# SPDX-License-Identifier: BSD-2-Clause
# Where a backtrace reaches ring 3: it ends there, unless the symbols know that code.
"""install(): exceptions themselves are crossed by the kernel's own call frame information (kernel/traps.S).

GDB takes what stands on the stack for the caller of code that it knows nothing of, and would go on from there.
"""

from __future__ import annotations

import gdb
from gdb.unwinder import Unwinder, register_unwinder

from ktf.debugger.said import said


class _Id:
    """What tells one frame from another."""

    def __init__(self, sp: gdb.Value, pc: gdb.Value) -> None:
        self.sp, self.pc = sp, pc


class Ring3(Unwinder):
    """The caller of unknown code in ring 3 is 0, where backtraces end."""

    def __init__(self) -> None:
        super().__init__("ktf-ring-3")

    def __call__(self, pending: gdb.PendingFrame) -> gdb.UnwindInfo | None:
        """None for every other frame."""
        try:
            cs, rip, rsp = (pending.read_register(name) for name in ("cs", "rip", "rsp"))
            if int(cs) & 3 != 3 or _known(int(rip)):
                return None
        except (ValueError, gdb.error):
            return None  # another architecture, or registers that can't be read
        info = pending.create_unwind_info(_Id(rsp, rip))
        for name, value in (("rip", rip - rip), ("rsp", rsp), ("cs", cs)):
            info.add_saved_register(name, value)
        return info


def _known(pc: int) -> bool:
    """Whether any symbol covers it."""
    return not said(f"info symbol {pc:#x}").startswith("No symbol")


def install() -> None:
    """Once for each loading of the commands; the earlier one is replaced."""
    register_unwinder(None, Ring3(), replace=True)
