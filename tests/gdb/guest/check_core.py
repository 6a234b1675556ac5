# SPDX-License-Identifier: BSD-2-Clause
# A core answers as the guest did, a broken one too; and a CPU that has not been started changes nothing.
# guest: mem=128M smp=2 ramfile=1
# guest: mem=128M smp=2 ramfile=0 cmdline="plant=T6"
import os

import gdb
from inside import check, connect, equal, json_of, passed, run

folder = os.path.dirname(os.environ["KTF_SERIAL"])
planted = "plant" in gdb.parse_and_eval("boot_info.cmdline").string()
COMMANDS = ("ktf-pt-check", "ktf-frame", "ktf-frame --free", "ktf-frame &mm", "ktf-frame 0x100000")


def answers() -> list[str]:
    """What each command says."""
    said = [run(c) for c in COMMANDS]
    check(said[0].strip().endswith(": 0 violations") != planted, said[0])
    equal(json_of("ktf-pt-check")["counts"], counts, "counts")
    return said


counts = json_of("ktf-pt-check")["counts"]
live = answers()
for reader in ("gdbstub", "procmem"):
    gdb.execute(f"set ktf reader {reader}")
    equal(answers(), live, reader)
gdb.execute("set ktf reader auto")
gdb.execute("thread 2", to_string=True)  # has not been started: no paging there
equal(answers(), live, "CPU 1 selected")
gdb.execute("thread 1", to_string=True)
for option in ("", "-p "):
    run(f"monitor dump-guest-memory {option}{folder}/core")
    gdb.execute("disconnect", to_string=True)
    gdb.execute(f"core-file {folder}/core", to_string=True)
    for number in (1, 2):
        gdb.execute(f"thread {number}", to_string=True)
        equal(answers(), live, f"dump-guest-memory {option}, CPU {number}")
    gdb.execute("core-file", to_string=True)
    connect()
passed()
