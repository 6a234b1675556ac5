# SPDX-License-Identifier: BSD-2-Clause
# ktf-maps --leaves is QEMU's `info tlb`, line for line, by every reader.
# guest: mem=128M machine=pc smp=2 ramfile=1
# guest: mem=4G machine=q35 ramfile=1
# guest: mem=128M machine=q35 uefi=1 ramfile=0 timeout=120
# guest: mem=128M machine=pc cmdline="acpi=off test=busy" ramfile=1
import json
import os

import gdb
from inside import check, equal, info_tlb, leaves, passed, run, same_lines

if "busy" in gdb.parse_and_eval("boot_info.cmdline").string():  # pages of each size and type
    gdb.execute("hbreak busy_ready", to_string=True)
    gdb.execute("continue", to_string=True)
    check(" WC " in run("ktf-maps --space kernel --filter wc,4k"), "no 4K page that is WC")
theirs = info_tlb()
check(len(theirs) > 50, f"only {len(theirs)} lines of info tlb")
same_lines(leaves("--space kernel"), theirs)
same_lines(leaves("--space cr3"), theirs)

# The JSON form has the same entries, and the merged ranges are the same pages.
answer = json.loads(run("ktf-maps --leaves --space kernel --json"))
check(answer["ok"] is True, str(answer)[:200])
equal(
    [f"{int(x['va'], 16):016x}: {int(x['pa'], 16):016x}" for x in answer["leaves"]],
    [t[:34] for t in theirs],
)
pages = []
sizes = {"4K": 1 << 12, "2M": 1 << 21, "1G": 1 << 30}
for r in json.loads(run("ktf-maps --space kernel --json"))["ranges"]:
    va, pa, step = int(r["va"], 16), int(r["pa"], 16), sizes[r["page"]]
    check(r["size"] % step == 0 and r["size"] > 0, str(r))
    pages += [f"{va + i:016x}: {pa + i:016x}" for i in range(0, r["size"], step)]
equal(pages, [t[:34] for t in theirs], "ranges taken apart")

# Each reader says the same.
available = ["auto", "gdbstub", "procmem"] + (["ramfile"] if os.environ["KTF_RAMFILE"] else [])
for reader in available:
    gdb.execute(f"set ktf reader {reader}")
    same_lines(leaves("--space kernel"), theirs)
    if reader != "auto":
        check(f"read by {reader}" in run("ktf-maps -v"), f"not by {reader}")
passed()
