# SPDX-License-Identifier: BSD-2-Clause
# Every command and function says the same in every language that GDB knows, and leaves the language as it was.
# guest: mem=128M smp=2 ramfile=1 cmdline="plant=P2"
import os
import string

import gdb
from inside import check, equal, error_of, passed, run
from ktf.debugger import functions
from ktf.commands import registry

GUEST_COMMANDS = (
    "ktf-maps ktf_ready",
    "ktf-frame &mm",
    "ktf-frame --pa $cr3",
    "ktf-pt-check",
    "ktf-maps --filter x",
    "ktf-maps --leaves --range 0xffffffff80000000 +4096",
    "ktf-frame",
    "ktf-frame 0x100000",
    "ktf-journal -n 20",
    "ktf-journal &mm",
    "ktf-postmortem",
    "ktf-acpi",
    "ktf-check-at",
)
FUNCTIONS = (
    "print $ktf_ok()",
    "print $ktf_paddr($pc)",
    "print $ktf_maps_of($pc)",
    "print $ktf_frame(256)",
    "print $ktf_frame($pc)",
)
ALL = ("ada", "pascal", "rust", "asm", "fortran")  # in the others some of the commands
TOLD = (
    "ktf-snapshot",
    "ktf-diff",
    "ktf-core",
)  # whose words have a time or the language's name in them


languages = [
    line.split()[-1]
    for letter in string.ascii_lowercase
    for line in run(f"complete set language {letter}").splitlines()
]
for language in (
    "ada",
    "pascal",
    "rust",
    "asm",
    "c++",
    "minimal",
    "fortran",
    "modula-2",
    "go",
    "d",
    "opencl",
):
    check(language in languages, f"{language}: {languages}")

run("set language c")
used = " ".join(GUEST_COMMANDS + FUNCTIONS + TOLD)
for name in [c.name for c in registry.commands()] + [f"${f.name}(" for f in functions.FUNCTIONS]:
    check(name in used, f"{name} is not tried")
expected = {command: run(command) for command in GUEST_COMMANDS}
numbers = {
    command: int(gdb.parse_and_eval(command.removeprefix("print "))) for command in FUNCTIONS
}
run("ktf-snapshot c")
core = os.path.join(os.path.dirname(os.environ["KTF_SERIAL"]), "core")

for language in [name for name in languages if name not in ("c", "auto", "local", "unknown")]:
    run(f"set language {language}")
    for command in GUEST_COMMANDS if language in ALL else GUEST_COMMANDS[:4]:
        equal(run(command), expected[command], f"{language}: {command}")
    for command, value in numbers.items():
        run(command)
        equal(
            int(gdb.parse_and_eval(command.removeprefix("print "))), value, f"{language}: {command}"
        )
    equal(gdb.parameter("language"), language, "set language")
    check("no such" not in error_of("ktf-frame 1 +"), language)
    equal(gdb.parameter("language"), language, "after an error")
run("ktf-snapshot again")
check("0 frames got, 0 put; 0 mappings made" in run("ktf-diff c again"), "snapshots")
run("set language pascal")
check("open it by" in run(f"ktf-core {core}"), "ktf-core")
check("frame 0x200," in run("ktf-frame --mfn 256 shl 1"), "WHERE is Pascal")
check("syntax error" in error_of("ktf-frame --mfn 256 << 1"), "WHERE is not C")
run("set language auto")
equal(gdb.parameter("language"), "auto", "auto")
for command, text in expected.items():
    equal(run(command), text, command)
equal(gdb.parameter("language"), "auto", "auto stays")
check("currently c" in run("show language"), run("show language"))
passed()
