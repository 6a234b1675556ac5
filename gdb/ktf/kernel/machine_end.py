# SPDX-License-Identifier: BSD-2-Clause
# How the kernel asked for the machine's end, by what it has written down.
"""asked_end(kernel) -> Asked | None; pure. It says nothing of a machine that still runs."""

from __future__ import annotations

from dataclasses import dataclass

from ktf.errors import KtfError
from ktf.kernel.kernel import Kernel

EXIT, POWER_OFF = "exit", "power-off"
KINDS = {"MACHINE_EXITS": EXIT, "MACHINE_POWERS_OFF": POWER_OFF}


@dataclass(frozen=True)
class Asked:
    """kind: EXIT or POWER_OFF; of EXIT QEMU's exit status, and whether that is success."""

    kind: str
    status: int = 0
    success: bool = True

    def text(self) -> str:
        """ "has ended by itself, with success (QEMU's exit status 33)"."""
        if self.kind == POWER_OFF:
            return "has switched the machine off"
        how = "with success" if self.success else "as a failure"
        return f"has ended by itself, {how} (QEMU's exit status {self.status})"


def asked_end(kernel: Kernel) -> Asked | None:
    """None if it has not asked, can't be read, or is a kernel that writes no such thing down."""
    try:
        row = kernel.variable("machine_end", "struct machine_end")
        names = {value: name for name, value in kernel.types.enum("machine_end_kind").items()}
        kind = KINDS.get(names.get(row.value("kind", 0), ""))
        if kind is None:
            return None
        return Asked(kind, row.value("status", 0), bool(row.value("success", 0)))
    except KtfError:
        return None
