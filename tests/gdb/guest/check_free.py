# SPDX-License-Identifier: BSD-2-Clause
# The list of free blocks is, line for line, the one that the guest prints of itself.
# guest: mem=128M machine=pc cmdline="test=mm_print_free" ramfile=1
# guest: mem=4G machine=q35 cmdline="test=mm_print_free" ramfile=1
import os

import gdb
from inside import check, equal, json_of, passed, run


def printed() -> list[str]:
    """What the guest said."""
    with open(os.environ["KTF_SERIAL"], encoding="utf-8", errors="replace") as serial:
        return [x.strip() for x in serial.read().splitlines() if x.startswith("free order ")]


gdb.execute("break mm_print_free", to_string=True)
gdb.execute("continue", to_string=True)
equal(printed(), [])
check(run("ktf-pt-check").strip().endswith(": 0 violations"))
ours = run("ktf-frame --free").splitlines()
check(len(ours) > 10, str(ours))
both = [f"free order {b['order']} mfn {b['mfn']}" for b in json_of("ktf-frame")["free"]]
equal(both, ours, "text and JSON")
gdb.execute("finish", to_string=True)
equal(printed(), ours, "free blocks")
passed()
