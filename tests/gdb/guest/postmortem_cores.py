# SPDX-License-Identifier: BSD-2-Clause
# ktf-postmortem and all others on QEMU's own dumps, by each reader, and without the kernel's symbols.
# guest: mem=128M smp=2 ramfile=1 log=1 cmdline="acpi=off crash=ist-unmapped" stop=shutdown
# guest: mem=128M smp=2 ramfile=1 log=1 cmdline="acpi=off crash=null-call" stop=reset
import json
import os
import subprocess
import time
from typing import Any

import gdb
from inside import PORT, check, connect, equal, json_of, passed, run
from qemu import gdb_command

LIMIT = 2.0  # seconds of GDB's own time for the answer
COMMANDS = (
    "ktf-frame",
    "ktf-frame --free",
    "ktf-frame &mm",
    "ktf-maps",
    "ktf-maps --leaves",
    "ktf-maps &ktf_ready",
    "ktf-pt-check",
    "ktf-journal -n 5000",
    "ktf-journal &ktf_ready",
)
NEED_SYMBOLS = ("ktf-frame", "ktf-pt-check", "ktf-journal", "ktf-snapshot a")
core = os.path.join(os.path.dirname(os.environ["KTF_SERIAL"]), "core")


def postmortem() -> dict[str, Any]:
    """Its answer as an object and as text, soon enough."""
    start = time.process_time()
    said: dict[str, Any] = {"json": json_of("ktf-postmortem")}
    spent = time.process_time() - start
    check(spent < LIMIT, f"ktf-postmortem took {spent:.2f} s")
    said["text"] = run("ktf-postmortem").replace("         (as in QEMU's log)\n", "")
    said["text"] = said["text"].replace(
        "The machine is halted for good: `continue` would hang GDB.\n", ""
    )
    return said


def answers() -> dict[str, Any]:
    """What each command says."""
    return postmortem() | {command: run(command) for command in COMMANDS}


def same(found: dict[str, Any], expected: dict[str, Any], how: str) -> None:
    """Ends the test at the first answer that differs."""
    for name, text in found.items():
        equal(text, expected[name], f"{how}: {name}")


def without_symbols(*where: str, port: int | None = None) -> dict[str, str]:
    """Another GDB, which knows no kernel: what each command prints, its error included."""
    command = gdb_command(port, *where, "-batch", "-ex", "set style enabled off", symbols=False)
    asked = ("ktf-postmortem", "ktf-postmortem --json", "ktf-maps --leaves", *NEED_SYMBOLS)
    for one in asked:
        command += ["-ex", f"echo \\n>>> {one}\\n", "-ex", one]
    done = subprocess.run(
        command + ["-ex", "disconnect"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    check("Traceback" not in done.stdout, done.stdout)
    parts = done.stdout.split("\n>>> ")[1:]
    equal(len(parts), len(asked), done.stdout)
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def check_unknown(said: dict[str, str], how: str) -> None:
    """Chain, walks and mappings as they are with symbols; what is missing is said."""
    found, with_them = json.loads(said["ktf-postmortem --json"].splitlines()[0]), live["json"]
    told = ", ".join(found["notes"])
    check("no frame database, no journal" in told, f"{how}: {told}")
    for name in NEED_SYMBOLS:
        check("no kernel symbols" in said[name], f"{how}: {name}: {said[name]}")
    ours, theirs = said["ktf-maps --leaves"].splitlines(), live["ktf-maps --leaves"].splitlines()
    equal([t[:40] for t in ours if t[16:18] == ": "], [t[:40] for t in theirs if t[16:18] == ": "])
    equal(found["cpu"], with_them["cpu"], how)
    cause = said["ktf-postmortem"].splitlines()[0]
    if triple:
        for name in ("stop", "chain", "rip"):
            equal(found[name], with_them[name], f"{how}: {name}")
        equal(cause.count("not present at level 1"), 2, cause)
    else:  # the kernel's own record of the exception can't be read
        check("that kernel's symbols" in cause, cause)
        equal(found["stop"], "stopped" if how == "core" else "panic", how)
    walks = {p["name"]: p["walk"] for p in with_them["places"]}
    for place in found["places"]:
        if place["name"] == "IDT":
            equal(place["walk"], walks["IDT"], how)


if int(gdb.parse_and_eval("$pc")) == 0xFFF0:
    run("continue")
live = answers()
triple = live["json"]["stop"] == "triple-fault"
for reader in ("gdbstub", "procmem", "ramfile"):
    run(f"set ktf reader {reader}")
    same(postmortem(), live, reader)
run("set ktf reader auto")
run(f"monitor dump-guest-memory {core}")
run("disconnect")
check_unknown(without_symbols(port=int(PORT)), "live")
run(f"core-file {core}")
same(answers(), live, "QEMU's dump")
run("core-file")
check_unknown(without_symbols("-c", core), "core")
os.unlink(core)
connect()
passed()
