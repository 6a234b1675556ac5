# SPDX-License-Identifier: BSD-2-Clause
# The four readers give the same answers, are chosen and forced as asked, and never read outside RAM.
# guest: mem=128M machine=pc smp=2 ramfile=1 cmdline="plant=T6" timeout=120
# guest: mem=128M machine=q35 smp=1 ramfile=0 cmdline="plant=P1" timeout=120
import json
import os
import random
import time

import gdb
from inside import check, equal, error_of, interrupt_after, passed, physical_mode, run
from ktf.memory import stub
from ktf.debugger.target import GdbLink
from reads import ram_of_guest

COMMANDS = (
    "ktf-maps",
    "ktf-maps --leaves",
    "ktf-maps ktf_ready",
    "ktf-maps --filter uncached",
    "ktf-frame",
    "ktf-frame --free",
    "ktf-frame --pa $cr3",
    "ktf-frame &mm",
    "ktf-pt-check",
    "ktf-pt-check --rule P1,P2",
)
VARIES = ("reader", "seconds")  # of the JSON objects


def answers() -> dict[str, object]:
    """What each command says, as text and as JSON."""
    said: dict[str, object] = {c: run(c) for c in COMMANDS}
    for command in COMMANDS:
        found = json.loads(run(f"{command} --json"))
        check(found["ok"], str(found)[:300])
        said[f"{command} --json"] = {k: v for k, v in found.items() if k not in VARIES}
    return said


def same(ours: dict[str, object], what: str) -> None:
    """Ends the test at the first command that says something else."""
    for command, text in ours.items():
        equal(text, expected[command], f"{what}: {command}")


# A page table in a device and one where nothing is: neither may be looked at.
window = json.loads(run("ktf-frame --pa $cr3 --json"))["frame"]["mappings"][0]["va"]
for index, entry in ((3, 0xFEE00003), (4, 0x7000000000003)):
    gdb.execute(f"set var *(unsigned long *)({window} + {index * 8}) = {entry}", to_string=True)

has_file = bool(os.environ["KTF_RAMFILE"])
best = "ramfile" if has_file else "procmem"
check("read by: auto" in run("show ktf reader"), run("show ktf reader"))
expected = answers()
check("0xfee00 is not in the guest's RAM" in str(expected["ktf-pt-check"]), "nothing is planted")
text = run("ktf-maps -v")
check(f"read by {best}: " in text and "chosen by itself" in text, text)
check(("not by ramfile: QEMU's RAM is no shared file: start QEMU" in text) != has_file, text)

# What the stub is asked for lies in RAM, each time; its mode is put back.
ram = ram_of_guest()
check(len(ram) > 2, str(ram))
packet, request = GdbLink._packet, stub.request
asked: list[tuple[int, ...]] = []
sent: list[int] = []


def recorded(self: GdbLink, text: str) -> str:
    """Writes down what is read by GDB's packets."""
    if text.startswith("m"):
        asked.append(tuple(int(x, 16) for x in text[1:].split(",")))
    return packet(self, text)


def ahead(at: int, size: int) -> bytes:
    """Writes down what is read over GDB's socket."""
    asked.append((at, size))
    sent.append(at)
    return request(at, size)


setattr(GdbLink, "_packet", recorded)
setattr(stub, "request", ahead)
for reader in ("gdbstub", "procmem") + (("ramfile",) if has_file else ()):
    asked.clear()
    gdb.execute(f"set ktf reader {reader}")
    check(f"read by: {reader}" in run("show ktf reader"), reader)
    same(answers(), reader)
    text = run("ktf-maps -v")
    check(f"read by {reader}: " in text and "as `set ktf reader` says" in text, text)
    check(
        len(asked) > (100 if reader == "gdbstub" else 1),
        f"{reader}: {len(asked)} reads of the stub",
    )
    for at, size in asked:
        inside = any(low <= at and at + size - 1 <= high for low, high in ram)
        check(inside, f"{reader} reads {size} bytes at {at:#x}, which is no RAM")
    equal(physical_mode(), "0", reader)
check(len(sent) > 100, f"only {len(sent)} reads went over GDB's socket")

# Without its socket GDB's own packets do.
gdb.execute("set ktf reader gdbstub")
borrow, count = stub.borrow, len(sent)
setattr(stub, "borrow", lambda details: None)
asked.clear()
same(answers(), "by GDB's packets")
check(len(asked) > 100 and len(sent) == count, f"{len(asked)} reads, {len(sent)} by the socket")
setattr(stub, "borrow", borrow)
setattr(stub, "request", request)
setattr(GdbLink, "_packet", packet)

# Interrupted at any moment: the mode is put back, and the next command works.
gdb.execute("set ktf reader gdbstub")
random.seed(1)
hits = 0
for _ in range(12):
    start = time.monotonic()
    timer = interrupt_after(0.03 + random.random() / 6)
    try:
        while time.monotonic() < start + 0.25:
            run("ktf-pt-check")
    except KeyboardInterrupt:
        hits += 1
    except gdb.error as e:
        check("interrupted" in str(e) or "Quit" in str(e), str(e))
        hits += 1
    timer.join()
    equal(physical_mode(), "0", "after an interrupt")
    equal(run("ktf-pt-check"), expected["ktf-pt-check"], "after an interrupt")
print(f"{hits} of 12 interrupts hit")
check(hits > 3, f"only {hits} interrupts hit")

# What can't be is refused, with what to do.
if not has_file:
    gdb.execute("set ktf reader ramfile")
    message = error_of("ktf-maps")
    check("can't read by ramfile" in message and "memory-backend-file" in message, message)
gdb.execute("set ktf reader core")
for command in ("ktf-maps", "ktf-frame", "ktf-pt-check", "print $ktf_ok()"):
    message = error_of(command)
    check("can't read by core: the guest is live" in message and "reader auto" in message, message)
check("Undefined item" in error_of("set ktf reader teleport"), error_of("set ktf reader teleport"))
check("read by: core" in run("show ktf reader"), "a wrong word changes nothing")

# The core.
core = os.path.join(os.path.dirname(os.environ["KTF_SERIAL"]), "core")
run(f"monitor dump-guest-memory {core}")
gdb.execute("disconnect", to_string=True)
gdb.execute(f"core-file {core}", to_string=True)
for reader in ("core", "auto"):
    gdb.execute(f"set ktf reader {reader}")
    same(answers(), f"a core, {reader}")
    check(f"read by core: {core}" in run("ktf-maps -v"), run("ktf-maps -v")[-500:])
for reader in ("gdbstub", "procmem", "ramfile"):
    gdb.execute(f"set ktf reader {reader}")
    message = error_of("ktf-maps")
    check(f"can't read by {reader}: the guest is a core file" in message, message)
passed()
