# SPDX-License-Identifier: BSD-2-Clause
# What a command of GDB prints, as plain text, under any interpreter.
"""said(command): under GDB/MI, as editors run GDB, GDB 18 gives the words of a command as records of MI, quoted.

GDB 13 and 16 give plain text there. Settings and errors are the same everywhere; what a command prints, and `monitor`
does, must come from here if it is read.
"""

from __future__ import annotations

import gdb

PROBE = "said"


def said(command: str) -> str:
    """What it prints; gdb.error as from gdb.execute()."""
    # Asked each time: one GDB may have a terminal and an editor. The console's interpreter is asked for by name only
    # where it is needed, for under the TUI that would end its windows.
    if gdb.execute(f"echo {PROBE}", to_string=True) != PROBE:
        words = command.replace("\\", "\\\\").replace('"', '\\"')
        command = f'interpreter-exec console "{words}"'
    return str(gdb.execute(command, to_string=True))
