# SPDX-License-Identifier: BSD-2-Clause
# When the guest goes down with GDB attached: says so, and keeps `continue` from hanging GDB.
"""watch(target): hooks GDB's stops. QEMU tells a triple fault as SIGQUIT, and never answers a `continue` after it."""

from __future__ import annotations

import gdb

from .errors import KtfError
from .target import Target

# QEMU's status of a machine that stays as it is, and what the guest has done.
DOWN = {"shutdown": "triple-faulted", "guest-panicked": "panicked"}
GUARD = "ktf-may-continue"
HOOK = "ktf_alarm"  # kept in the module gdb, which is not loaded again
_target: Target | None = None
_armed = False


def watch(target: Target) -> None:
    """From now on; what an earlier loading of the commands left is taken back."""
    global _target
    earlier = getattr(gdb, HOOK, None)
    if earlier is not None:
        gdb.events.stop.disconnect(earlier)
    gdb.events.stop.connect(_stopped)
    setattr(gdb, HOOK, _stopped)
    Guard()
    _target = target


def _stopped(event: gdb.StopEvent) -> None:
    """A line for a triple fault; what kind of stop it was for ktf-postmortem."""
    global _armed
    if _target is None:
        return
    _target.last_stop = "breakpoint" if isinstance(event, gdb.BreakpointEvent) else ""
    if not isinstance(event, gdb.SignalEvent) or _status() not in DOWN:
        return
    if not _armed:
        gdb.execute(f"define hook-continue\n{GUARD}\nend")
        _armed = True
    gdb.write(f"The guest has {DOWN[_status()]}: `ktf-postmortem` says why.\n")


def _status() -> str:
    assert _target is not None
    try:
        return _target.vm_status()
    except (KtfError, gdb.error):
        return ""


class Guard(gdb.Command):
    """Refuses while the guest can't go on: `continue` runs it first, once there was a triple fault."""

    def __init__(self) -> None:
        super().__init__(GUARD, gdb.COMMAND_OBSCURE)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """An error, which keeps GDB from continuing."""
        status = "" if _target is None else _status()
        if status in DOWN:
            raise gdb.GdbError(
                f"the guest has {DOWN[status]} and can't go on: GDB would wait for ever. "
                "`ktf-postmortem` says why, `monitor system_reset` starts it anew"
            )
