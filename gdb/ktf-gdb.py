# SPDX-License-Identifier: BSD-2-Clause
# Loads the ktf commands into GDB: `source gdb/ktf-gdb.py`, or `gdb -x gdb/ktf-gdb.py`.
import os
import sys

import gdb


def load(folder: str) -> None:
    """Registers all commands; says in one line what is missing, if something is."""
    if not hasattr(gdb, "RemoteTargetConnection"):
        gdb.write(f"ktf: GDB {gdb.VERSION} is too old, 12 is needed\n", gdb.STDERR)
        return
    try:
        import numpy  # noqa: F401
    except ImportError:
        version = ".".join(map(str, sys.version_info[:2]))
        gdb.write(
            f"ktf: GDB's Python {version} has no numpy: install the package python3-numpy\n",
            gdb.STDERR,
        )
        return
    if folder not in sys.path:
        sys.path.insert(0, folder)
    for name in [n for n in sys.modules if n.split(".")[0] == "ktf"]:
        del sys.modules[name]  # loaded again: take the files as they are now
    from ktf.commands import registry
    from ktf.debugger import alarm, functions, printers, register, target, unwind

    guest = target.Target()
    for command in registry.commands():
        register.register(guest, command)
    for function in functions.FUNCTIONS:
        register.register_function(guest, function)
    register.register_parameters(guest)
    alarm.watch(guest)
    printers.watch(guest)
    unwind.install()


load(os.path.dirname(os.path.abspath(__file__)))
