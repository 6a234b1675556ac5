# SPDX-License-Identifier: BSD-2-Clause
# A core that QEMU wrote answers as the guest did, with and without its paging option.
# guest: mem=128M smp=2 ramfile=1
import os

import gdb
from inside import check, connect, equal, error_of, passed, run

folder = os.path.dirname(os.environ["KTF_SERIAL"])
COMMANDS = (
    "ktf-maps",
    "ktf-maps --leaves",
    "ktf-maps &ktf_ready",
    "ktf-maps 0",
    "ktf-maps --filter x,text",
)
live = [run(c) for c in COMMANDS]
for option in ("", "-p "):
    run(f"monitor dump-guest-memory {option}{folder}/core")
    gdb.execute("disconnect", to_string=True)
    gdb.execute(f"core-file {folder}/core", to_string=True)
    check("read by core" in run("ktf-maps -v"))
    for command, expected in zip(COMMANDS, live):
        equal(run(command), expected, f"dump-guest-memory {option}: {command}")
    gdb.execute("thread 2", to_string=True)
    # The second CPU runs in the kernel's space, too.
    equal(run("ktf-maps"), live[0], f"dump-guest-memory {option}: CPU 1")
    gdb.execute("thread 1", to_string=True)
    gdb.execute("core-file", to_string=True)
    check("no guest" in error_of("ktf-maps"))
    connect()
passed()
