# SPDX-License-Identifier: BSD-2-Clause
# ktf-core: every command answers on the core as on the guest, and plain GDB has threads and backtraces.
# guest: mem=128M smp=2 ramfile=1
# guest: mem=128M smp=2 ramfile=0 cmdline="crash=triple-fault" stop=shutdown
# guest: mem=128M smp=2 ramfile=1 cmdline="plant=X1"
import os
import re
import resource
import signal
import stat
import subprocess

import gdb
from inside import PORT, check, connect, equal, error_of, json_of, passed, run

folder = os.path.dirname(os.environ["KTF_SERIAL"])
core = f"{folder}/core"
COMMANDS = (
    "ktf-frame",
    "ktf-frame --free",
    "ktf-frame &mm",
    "ktf-frame 0x100000",
    "ktf-maps",
    "ktf-maps --leaves",
    "ktf-maps --filter x",
    "ktf-maps &ktf_ready",
    "ktf-maps $rsp",
    "ktf-maps 0",
    "ktf-pt-check",
    "ktf-journal -n 100",
    "ktf-journal &ktf_ready",
)
PLAIN = "info threads,thread apply all bt,print mm.magic,x/40i ktf_ready,x/2gx $rsp".split(",")


def answers() -> dict[str, str]:
    """What each command says, on each CPU, and in JSON what can't depend on the clock."""
    said = {}
    for cpu in (2, 1):
        run(f"thread {cpu}")
        said.update({f"{command}, CPU {cpu - 1}": run(command) for command in COMMANDS})
    for command in ("ktf-pt-check", "ktf-frame", "ktf-maps", "ktf-journal"):
        values = json_of(command)
        said[f"{command} --json"] = str({k: v for k, v in values.items() if k not in VARY})
    return said


def plain(*options: str) -> list[str]:
    """What plain GDB says, without our commands; its threads by name, which differ, apart."""
    command = ["gdb", "-q", "-nx", "-batch", "-iex", "set auto-load off", *options]
    for word in PLAIN:
        command += ["-ex", word]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    lines = lines[next(i for i, line in enumerate(lines) if "Target Id" in line) :]
    same = re.compile(r"Thread 1\.(\d) \(CPU#\d \[\w+ *\]\)|LWP (\d)")
    lines = [same.sub(lambda m: f"CPU {m[1] or m[2]}", line) for line in lines]
    return [" ".join(line.split()) for line in lines if not line.startswith("[Inferior")]


VARY = ("seconds", "reader")
live = answers()
registers = [line.split()[:2] for line in run("info registers").splitlines()]
found = json_of(f"ktf-core {core}")
equal(stat.S_IMODE(os.stat(core).st_mode), 0o600, "mode")
equal(found["cpus"], 2)
check(found["ranges"] > 30, str(found))
check(os.stat(core).st_blocks * 512 < found["memory"] / 2, "not sparse")
frames = run("bt")

# What is there is kept, unless it is a core; what fails leaves nothing.
note = f"{folder}/note"
with open(note, "w", encoding="ascii") as f:
    f.write("keep me")
check("is kept" in error_of(f"ktf-core {note}"))
check("no regular file" in error_of("ktf-core /dev/null"))
check("needs one FILE" in error_of("ktf-core"))
check("No such file" in error_of(f"ktf-core {folder}/none/core"))
before = os.stat(core)
run(f"ktf-core {core}")
check(os.stat(core).st_ino != before.st_ino, "not replaced")
with open(note, encoding="ascii") as f:
    equal(f.read(), "keep me")

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # as a full disk
check("nothing is left of it" in error_of(f"ktf-core {core}.3"))
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
check(not os.path.exists(f"{core}.3"), "half a core")
equal([n for n in os.listdir(folder) if "ktf-core" in n], [], "left behind")

gdb.execute("disconnect", to_string=True)
theirs = plain("build/kernel.elf", "-ex", f"target remote 127.0.0.1:{PORT}", "-ex", "info line")
check(any("#1" in line for line in theirs) and len(theirs) > 50, str(theirs))
gdb.execute(f"core-file {core}", to_string=True)
check("read by core" in run("ktf-maps -v"))
for name, text in answers().items():
    equal(text, live[name], name)
for line in run("info registers").splitlines():
    check(line.split()[:2] in registers, f"register: {line}")
equal(run("bt"), frames, "backtrace")
# A core of the core is the same core.
run(f"ktf-core {core}.2")
with open(core, "rb") as a, open(f"{core}.2", "rb") as b:
    check(a.read() == b.read(), "a core of the core differs")
gdb.execute("core-file", to_string=True)
for ours, other in zip(plain("build/kernel.elf", core), theirs):
    equal(ours, other, "plain GDB")
for path in (core, f"{core}.2", note):
    os.unlink(path)
connect()
passed()
