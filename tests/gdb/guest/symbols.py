# SPDX-License-Identifier: BSD-2-Clause
# Sizes of functions are those of the kernel's file; and nothing is wrong at any line of mm_init().
# guest: mem=128M ramfile=1 cmdline="acpi=off" stop=reset timeout=120
import subprocess

import gdb
from inside import check, equal, passed, run

from ktf.debugger import target
from ktf.kernel.cpus import LATE
from ktf.debugger.target import GdbTypes

types = GdbTypes()


def listed() -> dict[str, tuple[int, int]]:
    """Address and size of each function with external linkage, as nm has them."""
    said = subprocess.run(
        ["nm", "-S", gdb.objfiles()[0].filename], check=True, capture_output=True, text=True
    )
    rows = [line.split() for line in said.stdout.splitlines()]
    return {r[3]: (int(r[0], 16), int(r[1], 16)) for r in rows if len(r) == 4 and r[2] == "T"}


def differ(functions: dict[str, tuple[int, int]]) -> list[str]:
    """Those of which the commands believe something else."""
    found = {name: types.symbol(name) for name in functions}
    return [
        f"{name}: {s}"
        for name, s in found.items()
        if s is None or (s.va, s.size) != functions[name]
    ]


functions = listed()
check(len(functions) > 500, f"{len(functions)} functions")
check({"mm_init", *LATE} <= set(functions), f"not all of {LATE} have a size")
equal(differ(functions), [], "sizes")

# Without the file GDB's blocks are asked, which know nothing of the parts of a function.
known = target._kernel_path
target._kernel_path = lambda: "/nonexistent/kernel.elf"
missed = differ(functions)
check(len(missed) < len(functions) // 20, f"{len(missed)} differ without the file: {missed[:9]}")
check(not any(line.startswith("mm_init:") for line in missed), "mm_init, without the file")
target._kernel_path = known

start, size = functions["mm_init"]
block = gdb.lookup_global_symbol("mm_init").symtab.linetable()
lines = sorted({e.pc for e in block if start <= e.pc < start + size})
check(len(lines) > 5, f"mm_init() has {len(lines)} lines")
run("tbreak ktf_ready")
for pc in lines:
    run(f"tbreak *{pc:#x}")
stops = judged = 0
while True:
    run("continue")
    pc = int(gdb.parse_and_eval("$pc"))
    if gdb.selected_frame().name() == "ktf_ready":
        break
    check(start <= pc < start + size, f"stopped at {pc:#x}")
    stops += 1
    try:
        said = run("ktf-pt-check")
        check(said.endswith(": 0 violations\n"), f"at {pc:#x}, mm_init+{pc - start}: {said}")
        judged += 1
    except gdb.error as e:
        check(
            "at work" in str(e) or "mm_init() has not run" in str(e) or "paging" in str(e), str(e)
        )
check(stops > 5, f"{stops} stops in mm_init()")
check(run("ktf-pt-check").endswith(": 0 violations\n"))
passed()
