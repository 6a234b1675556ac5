# SPDX-License-Identifier: BSD-2-Clause
# An argument that would write to the guest, or run it, is refused by every command, and nothing has changed.
# guest: mem=128M smp=2 ramfile=1
import hashlib
import os

import gdb
from inside import check, equal, error_of, passed, run
from ktf.debugger.settings import FORBIDDEN


def state() -> tuple[str, ...]:
    """All of RAM, the registers of each CPU, and the settings that the commands change for a while."""
    with open(os.environ["KTF_RAMFILE"], "rb") as f:
        ram = hashlib.sha256(f.read()).hexdigest()
    registers = run("thread apply all info registers")
    settings = [str(gdb.parameter(name)) for name in (*FORBIDDEN, "language")]
    return (ram, registers, *settings)


CHANGE = {  # in C
    "changes the guest": (
        "mm.levels = 7",
        "mm.levels=7",
        "mm.levels++",
        "--mm.levels",
        "mm.levels += 1",
        "(mm.levels = 7, 3)",
        "*(int *)&mm = 0",
        "mm.order[mm.levels |= 1].head",
    ),
    "changes the": ("$rax = 1", "$rip++", "$cr3 = 0", "$sp -= 8"),
    "runs the guest": ("ktf_ready()", "mm_check()", "1 + mm_check()"),
}
PLACES = (
    "ktf-frame {}",
    "ktf-frame --mfn {}",
    "ktf-maps {}",
    "ktf-maps --range {} +0x1000",
    "ktf-maps --range 0 {}",
    "ktf-journal {}",
    "ktf-frame {} --json",
)
before = state()
for kind, expressions in CHANGE.items():
    for expression in expressions:
        for place in PLACES if expression == expressions[0] else PLACES[2:3]:
            line = place.format(f"({expression})")
            message = run(line) if "--json" in line else error_of(line)
            check("not evaluated" in message, f"{line}: {message}")
            check(kind in message, f"{line}: {message}")
for line in ("ktf-check-at *(mm.levels = 7)", "ktf-check-at *ktf_ready()"):
    check("not evaluated" in error_of(line), line)
equal(state(), before, "C")

# Each language's own way.
for language, expression in (
    ("pascal", "mm.levels := 7"),
    ("ada", "mm.levels := 7"),
    ("modula-2", "mm.levels := 7"),
    ("pascal", "$rax := 7"),
    ("rust", "$rax = 7"),
    ("fortran", "mm%levels = 7"),
    ("ada", "ktf_ready + 1"),
):
    run(f"set language {language}")
    message = error_of(f"ktf-maps ({expression})")
    check("not evaluated" in message, f"{language}: {expression}: {message}")
    equal(gdb.parameter("language"), language, "language")
run("set language auto")
equal(state(), before, "other languages")

# The user's own settings stay, those that forbid as well; what only reads is evaluated.
for name in FORBIDDEN:
    for value in ("off", "on"):
        run(f"set {name} {value}")
        error_of("ktf-frame mm.levels++")
        run("ktf-frame &mm")
        equal(gdb.parameter(name), value == "on", name)
run("set language pascal")
check("taken as" in run("ktf-frame (mm.levels = 4)"), "= compares")
run("set language auto")
equal(run("ktf-maps mm.magic == 0 ? 0 : &mm"), run("ktf-maps &mm"), "?:")
equal(state(), before, "allowed")

# GDB evaluates a function's arguments itself: its own settings forbid what they would change.
for name in FORBIDDEN:
    run(f"set {name} off")
for line in ("mm.levels = 7", "mm_check()"):
    for function in ("ktf_paddr", "ktf_frame", "ktf_maps_of"):
        message = error_of(f"print ${function}({line})")
        check("not allowed" in message or "may-call-functions" in message, f"{line}: {message}")
for name in FORBIDDEN:
    run(f"set {name} on")
equal(state(), before, "functions")
passed()
