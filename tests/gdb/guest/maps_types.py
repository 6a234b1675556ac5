# SPDX-License-Identifier: BSD-2-Clause
# Memory types: the MTRRs as the guest printed them at boot, and what becomes of them when they say something else.
# guest: mem=128M machine=pc ramfile=1
# guest: mem=4G machine=q35 ramfile=1
import os
import re

import gdb
import numpy as np
from inside import check, equal, json_of, passed, run
from ktf.x86.memtype import NAMES
from ktf.debugger.target import Target

with open(os.environ["KTF_SERIAL"], encoding="utf-8", errors="replace") as serial:
    said = re.findall(r"MTRRs: 0x(\w+) to 0x(\w+) (\S+)", serial.read())
check(len(said) > 3, f"the guest says {said}")
types, unknown = Target().session().memory_types()
assert types.mtrr is not None and not unknown, unknown
for first, last, name in said:
    low, high = int(first, 16), int(last, 16)
    at = np.array([low, (low + high) // 2, high - 4096], np.uint64)
    equal({NAMES[t] for t in types.mtrr.at(at).tolist()}, {name}, f"{first} to {last}")

# The local APIC is uncached by its entry; its range says so, too.
uncached = json_of("ktf-maps --filter uncached,device")["ranges"]
check({r["type"] for r in uncached} == {"UC"} and uncached, str(uncached))
page = int(json_of("ktf-maps ktf_ready")["pa"], 16) & ~0xFFF


def changed(base: int, mask: int) -> dict[str, object]:
    """The walk to ktf_ready() with another range register."""
    gdb.execute(f"set var mtrr.base[2] = {base}", to_string=True)
    gdb.execute(f"set var mtrr.mask[2] = {mask | 1 << 11}", to_string=True)
    return json_of("ktf-maps ktf_ready")


whole = int(gdb.parse_and_eval("mtrr.limit")) - 1
equal(changed(page | 0, whole & ~0xFFF)["type"], "UC", "a range of type UC")
check("WB by the entry (PAT 0), UC by the MTRRs" in run("ktf-maps ktf_ready"), "how")
equal(changed(page | 4, whole & ~0xFFF)["type"], "WT", "a range of type WT")
equal(changed((page ^ 0x1000) | 0, whole & ~0xFFF)["type"], "WB", "its neighbour")
check("UC" in {r["type"] for r in json_of("ktf-maps --range ktf_ready-4096 +8192")["ranges"]})
gdb.execute("set var mtrr.def_type = 0", to_string=True)
equal(json_of("ktf-maps ktf_ready")["type"], "WB", "MTRRs off")
check("MTRRs: off" in run("ktf-maps -v"), "-v")
passed()
