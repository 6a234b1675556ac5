# SPDX-License-Identifier: BSD-2-Clause
# ktf-postmortem: why the guest stopped, and who did it.
"""The command ktf-postmortem."""

from __future__ import annotations

from ktf.commands.command import JSON, Args, Command, json_line
from ktf.errors import UsageError
from ktf.kernel.context import Context
from ktf.memory.readers import CoreReader
from ktf.postmortem.stop import DOWN, PANIC, TRIPLE, Stop, find_stop
from ktf.postmortem.story import Inquest


class PostmortemCommand(Command):
    """Why the guest stopped: the first line is the cause.

    ktf-postmortem [--json]

    After a panic or a triple fault (start QEMU with -no-reboot -no-shutdown, so that the machine stays):
    the chain of exceptions, the code that failed, and for each thing that the CPU needed (RIP, RSP, CR2,
    IDT, GDT, TSS, the handler) the walk, the frame and what the journal knows of it. All CPUs are looked
    at: the one that GDB has selected need not be the one that failed. The first time at a stop the thread
    of the CPU that failed is selected, so that `bt` and `info registers` are of it; the last line says so.
    A guest that ended as it wanted to (by isa-debug-exit, a power-off) is distinguished from one that was reset,
    where its kernel wrote that down or a port was just written. The chain is that of QEMU's log
    (-d int,cpu_reset -D FILE) where there is one, else it is derived from registers, instruction, IDT,
    TSS and page tables; CR2 alone holds the last address of a chain, not the first.

    Works attached before or after the fault, and on a core. Without our kernel's symbols chain and walks
    are shown, without frames and journal.

      --json   one object on one line

    Example:
      (gdb) ktf-postmortem
      #PF executing 0x0, called in null_call at tests/guest/crash.c:58: a null pointer: page 0 is never mapped
      ...

    A core of ktf-core holds what QEMU said of the machine and the lines of its log that count: the answer is
    that of the guest. Of another core nobody tells how the machine stood, which is said.

    Errors: no guest, a running guest, paging that is still off on all CPUs."""

    name = "ktf-postmortem"
    options = (JSON,)

    def run(self, context: Context, args: Args) -> None:
        """Looks and tells."""
        if args.rest:
            raise UsageError(f"takes no operand {args.rest[0]}; see `help {self.name}`")
        session = context.session().by_paging()
        stop = find_stop(session, context)
        if not stop.no_tables:
            session = session.seen_from(stop.cpu)
        inquest = Inquest(session, context, stop)
        if args.has("--json"):
            context.write(json_line(self.name, **inquest.values()))
            self._select(context, stop)
            return
        context.write("".join(f"{line}\n" for line in inquest.lines()))
        live = not isinstance(session.reader, CoreReader)
        if live and context.vm_status() == DOWN:
            context.write("The machine is halted for good: `continue` would hang GDB.\n")
        thread = self._select(context, stop)
        if thread is not None:
            context.write(
                f"Thread {thread} is selected now: `bt` and `info registers` are of CPU {stop.cpu}.\n"
            )

    def _select(self, context: Context, stop: Stop) -> int | None:
        """Of a guest that failed."""
        failed = stop.kind in (TRIPLE, PANIC) or bool(stop.lost)
        return context.select_once(stop.cpu) if failed else None


COMMANDS: list[Command] = [PostmortemCommand()]
