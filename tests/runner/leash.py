#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""leash.py PARENT COMMAND...: runs the command; it ends with all that it has started when the process PARENT does.

`setpriv --pdeathsig KILL` reaches one process. What that one has started would live on: here the whole process group
ends, which is this one's own. Its status is the command's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def end_with(parent: int, signum: int = signal.SIGKILL) -> None:
    """The kernel sends this process the signal when its parent, which has that number, ends, however it ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it was quicker
        os._exit(1)


def end_group(*_: object) -> None:
    """Ends all of the group, this process included."""
    os.killpg(0, signal.SIGKILL)


def end_others() -> None:
    """Ends what the command has left in the group."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            group = int(path.read_text().rpartition(")")[2].split()[2])
            if group == os.getpgrp() and int(path.parent.name) != os.getpid():
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended


def main() -> int:
    """Entry."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # nobody else may be in it
    signal.signal(signal.SIGTERM, end_group)
    end_with(int(sys.argv[1]), signal.SIGTERM)
    status = subprocess.call(sys.argv[2:])
    end_others()
    if status >= 0:
        return status
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    return 1


if __name__ == "__main__":
    sys.exit(main())
