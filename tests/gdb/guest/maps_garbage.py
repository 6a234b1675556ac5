# SPDX-License-Identifier: BSD-2-Clause
# Page tables, struct mm and address spaces full of random bytes: findings, in seconds, and never a traceback.
# guest: mem=128M ramfile=1 timeout=120
import os
import random
import time

import gdb
from inside import check, equal, passed, physical_mode, run

COMMANDS = (
    "ktf-maps",
    "ktf-maps --leaves",
    "ktf-maps --json",
    "ktf-maps $rip",
    "ktf-maps -v --filter x",
)
ram = open(os.environ["KTF_RAMFILE"], "r+b", buffering=0)


def patch(pa: int, data: bytes) -> bytes:
    """Writes guest memory behind everybody's back; what was there before."""
    ram.seek(pa)
    before = ram.read(len(data))
    ram.seek(pa)
    ram.write(data)
    return before


def survives(what: str) -> str:
    """Runs all commands, each must end soon; all that they said."""
    said = ""
    for command in COMMANDS:
        started = time.monotonic()
        try:
            text = run(command)
        except gdb.error as e:
            text = f"! {e}"
            check("\n" not in str(e).strip(), f"{what}: {command}: {e}")
        check(
            "Traceback" not in text and "internal error" not in text,
            f"{what}: {command}: {text[:400]}",
        )
        seconds = time.monotonic() - started
        check(seconds < 10, f"{what}: {command}: {seconds:.1f} seconds")
        said += text
    equal(physical_mode(), "0", what)
    return said


def tables() -> list[int]:
    """Physical addresses of the page tables."""
    from array_reader import ArrayReader
    from ktf.memory.readers import RamMap, RamRange
    from ktf.x86.paging import Rules
    from ktf.x86.walk import walk
    import numpy

    memory = numpy.fromfile(os.environ["KTF_RAMFILE"], numpy.uint8)
    reader = ArrayReader(RamMap([RamRange(0, len(memory))]), [memory])
    root = int(gdb.parse_and_eval("(unsigned long)$cr3")) >> 12
    found = walk(reader, root, Rules())
    return [int(m) << 12 for m in found.tables.mfn.tolist()]


rng = random.Random(1)
where = tables()
check("!" not in survives("healthy"))
healthy = run("ktf-maps")

for pa in where:  # each table wholly random
    before = patch(pa, rng.randbytes(4096))
    check("!" in survives(f"table {pa:#x} random"), f"table {pa:#x} random: nothing told")
    patch(pa, before)
everywhere = [patch(pa, rng.randbytes(4096)) for pa in where]
gdb.execute("set ktf reader gdbstub")
check("!" in survives("all tables random, by the stub"))
gdb.execute("set ktf reader auto")
check("!" in survives("all tables random"))
for pa, data in zip(where, everywhere):
    patch(pa, data)

for value in (where[0] | 3, 0xFEE00003, 0xFFFFFFFFFF003, 0xFFFFFFFFFFFFFFFF, 0x100000003):
    before = patch(where[0], value.to_bytes(8, "little") * 511)  # root entries 0 to 510
    check("!" in survives(f"root full of {value:#x}"), f"root full of {value:#x}: nothing told")
    patch(where[0], before)

mm = int(gdb.parse_and_eval("(unsigned long)&mm"))
mm_pa = mm - 0xFFFFFFFF80000000
size = int(gdb.parse_and_eval("sizeof(mm)"))
for start in (0, 8):  # without and with its magic number
    before = patch(mm_pa + start, rng.randbytes(size - start))
    said = survives(f"mm random from {start}")
    check("no frame database" in said or "!" in said, said[:400])
    patch(mm_pa + start, before)
base = int(gdb.parse_and_eval("mm.arena[ARENA_SPACES].base"))
step = run(f"ktf-maps {base:#x}").split("physical address ")[1].split(",")[0]
for _ in range(5):
    before = patch(int(step, 16), rng.randbytes(4096))
    check("!" in survives("spaces random"), "spaces random: nothing told")
    patch(int(step, 16), before)
index = int(gdb.parse_and_eval("mm.space_list")) * 128
for name, value in (
    ("next", index // 128),
    ("next", 0xFFFFFFFF),
    ("prev", 7),
    ("levels", 9),
    ("levels", 5),
    ("live", 0),
    ("cr3", 0xFFFFFFFFFFFFFFFF),
):
    member = f"((space_t *)0)->{name}"
    offset, length = (int(gdb.parse_and_eval(e)) for e in (f"(long)&{member}", f"sizeof({member})"))
    before = patch(int(step, 16) + index + offset, value.to_bytes(length, "little"))
    check("!" in survives(f"space_t.{name} is {value:#x}"), f"space_t.{name} is {value:#x}")
    patch(int(step, 16) + index + offset, before)
equal(run("ktf-maps"), healthy, "all put back")
passed()
