# SPDX-License-Identifier: BSD-2-Clause
# Structures of a live guest full of random bytes: findings, soon; never a traceback, a hang, an all-clear.
# guest: mem=128M machine=pc ramfile=1 timeout=180
import mmap
import os
import random
import time

import gdb
from inside import check, equal, json_of, passed, run

seed = random.randrange(1 << 32)
rng = random.Random(seed)
print(f"seed {seed}")
with open(os.environ["KTF_RAMFILE"], "r+b") as f:
    ram = mmap.mmap(f.fileno(), 0)

# Every page that holds structures: of the arenas, page tables, struct mm.
pages: list[tuple[str, int]] = []
for r in json_of("ktf-maps --space kernel")["ranges"]:
    if r["kind"] in ("metadata", "table"):
        first = int(r["pa"], 16)
        pages += [(r["kind"], pa) for pa in range(first, first + r["size"], 4096)]
mm = int(gdb.parse_and_eval("$ktf_paddr(&mm)"))
size = int(gdb.parse_and_eval("sizeof(mm)"))
pages += [("mm", pa) for pa in range(mm // 4096 * 4096, mm + size, 4096)]
check(len(pages) > 50, str(len(pages)))
probe = int(gdb.parse_and_eval("mm.arena[0].base")) + 0x2000


def tried(what: str) -> None:
    """Each command answers within 10 seconds, and none calls the guest healthy."""
    for command in (
        "ktf-pt-check",
        "ktf-frame",
        f"ktf-frame {probe:#x}",
        "ktf-frame --pa 0x300000",
    ):
        started = time.monotonic()
        try:
            text = run(command)
        except gdb.error as e:
            text = str(e)
            check(
                "internal error" not in text and "\\n" not in text.strip(),
                f"{what}: {command}: {text}",
            )
        check(time.monotonic() - started < 10, f"{what}: {command} took too long")
        check("Traceback" not in text, text)
        if command == "ktf-pt-check":
            check(not text.strip().endswith(": 0 violations"), f"{what}: {text}")


for kind, pa in rng.sample(pages, 20) + pages[-1:]:
    saved = ram[pa : pa + 4096]
    # The part of struct mm behind the last region is not in use, and what else is on its page not ours.
    start, end = max(pa, mm), min(pa + 4096, mm + size) if kind == "mm" else pa + 4096
    start = start if kind == "mm" else pa
    ram[start:end] = rng.randbytes(end - start)
    tried(f"seed {seed}: {kind} page {pa:#x}")
    ram[pa : pa + 4096] = saved
check(run("ktf-pt-check").strip().endswith(": 0 violations"), "not as before")
equal(int(gdb.convenience_variable("ktf_violations")), 0)
passed()
