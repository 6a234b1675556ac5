# SPDX-License-Identifier: BSD-2-Clause
# When the guest goes down with GDB attached: says so, and keeps the commands that would let it run from hanging GDB.
"""watch(target): hooks GDB's stops. QEMU tells a machine that is off as SIGQUIT, and never answers a `continue` after it."""

from __future__ import annotations

import time

import gdb

from ktf.debugger.target import Target, connect
from ktf.errors import KtfError
from ktf.kernel.machine_end import asked_end
from ktf.memory.qemu import find_process
from ktf.postmortem.intlog import triple_fault
from ktf.postmortem.stop import DOWN, PANICKED

UNKNOWN = "is down, by a triple fault, a reset, a power-off or an exit"
GUARD = "ktf-may-run"
GUARDED = "continue step stepi next nexti finish until advance jump signal call".split()
HOOK, CLOSED_HOOK, RUN_HOOK = "ktf_alarm", "ktf_alarm_closed", "ktf_alarm_runs"
CLOSING = 0.05  # seconds that a QEMU which has closed its connection may take to end
_target: Target | None = None
_alive = False  # the last stop is one that only a running guest makes
_calls_taken = False  # by us; the user's own setting is left alone
_runs = False  # GDB lets it run, and waits for its stop
_qemu: tuple[int, int] = (0, 0)  # number of the connection, and the process behind it


def watch(target: Target) -> None:
    """From now on; what an earlier loading of the commands left is taken back."""
    global _target
    connect(gdb.events.stop, HOOK, _stopped)
    connect(gdb.events.connection_removed, CLOSED_HOOK, _closed)
    connect(gdb.events.cont, RUN_HOOK, _continued)
    Guard()
    for name in GUARDED:
        _hook(name)
    _target = target


def _hook(name: str) -> None:
    """Runs the guard before that command. A hook that the user has made stays."""
    try:
        gdb.execute(f"show user hook-{name}", to_string=True)
    except gdb.error:
        gdb.execute(f"define hook-{name}\n{GUARD} {name}\nend", to_string=True)


def _stopped(event: gdb.StopEvent) -> None:
    """A line for a guest that is down; what kind of stop it was for ktf-postmortem."""
    global _alive, _runs
    _runs = False
    if _target is None:
        return
    _alive = isinstance(event, gdb.BreakpointEvent)
    _target.stops += 1
    _target.last_stop = "breakpoint" if _alive else ""
    if not isinstance(event, gdb.SignalEvent):
        return
    status = _status()
    if status == PANICKED:
        gdb.write("The guest has panicked: `ktf-postmortem` says why.\n")
    elif status == DOWN:
        _forbid_calls()
        how, wanted = _how(_target)
        gdb.write(f"The guest {how}{'.' if wanted else ': `ktf-postmortem` says why.'}\n")


def _how(target: Target) -> tuple[str, bool]:
    """How the machine came to be off, and whether its kernel wanted that. By the log and the selected CPU alone."""
    try:
        if triple_fault(target.fault_log()):
            return "is down, by a triple fault", False
        kernel = target.glance().kernel
        asked = asked_end(kernel) if kernel is not None else None
    except (KtfError, gdb.error):
        asked = None
    return (UNKNOWN, False) if asked is None else (asked.text(), True)


def _continued(_: object) -> None:
    global _runs
    _runs = True


def _closed(event: gdb.ConnectionEvent) -> None:
    """A line where QEMU has ended under a guest that ran: 7.2 does at isa-debug-exit, without a stop."""
    if event.connection.num != _qemu[0] or not _runs:
        return
    end = time.monotonic() + CLOSING
    while _lives(_qemu[1]):
        if time.monotonic() > end:
            return  # GDB has let go of it
        time.sleep(CLOSING / 10)
    gdb.write(
        "QEMU has ended, and the guest with it: the guest by isa-debug-exit, or somebody from outside.\n"
    )


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False


def _know_qemu() -> None:
    """Which process is behind the connection, once for each connection."""
    global _qemu
    connection = gdb.selected_inferior().connection
    if isinstance(connection, gdb.RemoteTargetConnection) and connection.num != _qemu[0]:
        try:
            _qemu = connection.num, find_process(connection.details or "")
        except (KtfError, OSError):
            _qemu = 0, 0


def _status() -> str:
    assert _target is not None
    if getattr(gdb.selected_inferior().connection, "type", "") == "core":
        return ""  # GDB refuses by itself
    try:
        return _target.vm_status()
    except (KtfError, gdb.error):
        return ""


def _forbid_calls() -> None:
    """Of functions of the guest, as `print f()` and conditions make them: no hook sees these."""
    global _calls_taken
    if gdb.parameter("may-call-functions"):
        gdb.execute("set may-call-functions off", to_string=True)
        _calls_taken = True


def _allow_calls() -> None:
    """Again, if it was us who forbade them."""
    global _calls_taken
    if _calls_taken:
        gdb.execute("set may-call-functions on", to_string=True)
        _calls_taken = False


class Guard(gdb.Command):
    """Refuses while the guest can't go on: `continue` and its like run it first."""

    def __init__(self) -> None:
        super().__init__(GUARD, gdb.COMMAND_OBSCURE)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """An error, which keeps GDB from running that command."""
        self.dont_repeat()
        _know_qemu()
        if _target is not None and not _alive and _status() == DOWN:
            _forbid_calls()
            raise gdb.GdbError(
                f"{argument or 'this'}: the guest {_how(_target)[0]}, and can't go on: GDB would wait for "
                "ever. `ktf-postmortem` says why; `monitor quit` ends it"
            )
        _allow_calls()
