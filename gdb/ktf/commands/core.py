# SPDX-License-Identifier: BSD-2-Clause
# ktf-core: the stopped guest as a file that GDB opens again.
"""The command ktf-core."""

from __future__ import annotations

import time
from typing import Any

from ktf.commands.command import JSON, Args, Command, json_line
from ktf.cores.read import Ended
from ktf.cores.write import PHYSICAL, Written, write_core
from ktf.errors import UsageError
from ktf.kernel.context import Context
from ktf.kernel.session import Session
from ktf.postmortem.intlog import excerpt

MIB = 1 << 20


class CoreCommand(Command):
    """Writes a core of the stopped guest, which GDB and all ktf commands read as they read the guest.

    ktf-core FILE [--json]

    Plain GDB opens it with symbols, a thread for each CPU and backtraces: `gdb build/kernel.elf FILE`.
    It holds all physical memory, once, a segment for each mapped range of the kernel's space (and of the
    user space that the selected CPU is in), all registers of the CPUs, control registers included, and what QEMU
    says of the stop: the machine's status, the lines of its log of exceptions that tell of it.
    GDB shows physical memory in it at 0x100000000000000 + address. Where memory is zero the file is
    sparse. Only its owner may read it. A core that was written by QEMU can be opened and written anew.

    A FILE that exists is replaced if it is a core, and kept otherwise; a file that can't be written to its
    end is removed.

    Example:
      (gdb) ktf-core build/crash.core
      build/crash.core: 144.1 MiB of memory (4.2 of it not zero), 1 CPU, 53 mapped ranges, 0.3 s
      open it by: gdb build/kernel.elf build/crash.core

    Errors: no guest, a running guest, a FILE that is no core, or can't be written; over 4 million
    ranges."""

    name = "ktf-core"
    operand = "file"
    options = (JSON,)

    def run(self, context: Context, args: Args) -> None:
        """Writes, tells."""
        if len(args.rest) != 1:
            raise UsageError("needs one FILE; see `help ktf-core`")
        name = args.rest[0].strip("\"'")
        started = time.monotonic()
        session = context.session()
        written = write_core(session, name, _ended(context, session))
        seconds = time.monotonic() - started
        if args.has("--json"):
            context.write(json_line(self.name, **_values(written), seconds=round(seconds, 3)))
            return
        context.write(_text(name, written, seconds))


def _ended(context: Context, session: Session) -> Ended:
    """What is known of the stop beside the registers."""
    stops = [(r["rip"], r["rsp"]) for r in session.registers]
    log = excerpt(context.fault_log(), stops)
    return Ended(context.vm_status(), context.stop_kind(), log)


def _values(written: Written) -> dict[str, Any]:
    return {
        "file": written.path,
        "memory": written.memory,
        "stored": written.stored,
        "cpus": written.cpus,
        "ranges": written.ranges,
        "physical": f"{PHYSICAL:#x}",
    }


def _text(name: str, w: Written, seconds: float) -> str:
    cpus = f"{w.cpus} CPU{'' if w.cpus == 1 else 's'}"
    memory = f"{w.memory / MIB:.1f} MiB of memory ({w.stored / MIB:.1f} of it not zero)"
    lines = [
        f"{name}: {memory}, {cpus}, {w.ranges} mapped ranges, {seconds:.1f} s",
        f"open it by: gdb build/kernel.elf {name}",
    ]
    return "".join(f"{line}\n" for line in lines)


COMMANDS: list[Command] = [CoreCommand()]
