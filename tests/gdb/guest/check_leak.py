# SPDX-License-Identifier: BSD-2-Clause
# A lock that was not given back hides nothing: its CPU is in no function of mm/, so what is broken counts, on a core too.
# guest: mem=128M smp=2 ramfile=1 cmdline="acpi=off break=leak" stop=said:halted
# guest: mem=128M smp=1 ramfile=0 cmdline="acpi=off break=leak" stop=said:halted
import os

import gdb
from inside import check, connect, equal, json_of, passed, run

core = os.path.join(os.path.dirname(os.environ["KTF_SERIAL"]), "core")
cpu = len(gdb.selected_inferior().threads()) - 1
mfn = f"{int(gdb.parse_and_eval('$ktf_frame(&mm)->mfn')):#x}"
LEAK = f"mm.map_lock is held by CPU {cpu}, which is in no function of mm/ but in "


def told() -> None:
    """The lock, where its CPU is, and what it would have covered."""
    answer = json_of("ktf-pt-check")
    equal((answer["in_progress"], answer["unsettled"]), ([], []), "in progress")
    found = {v["rule"]: v for v in answer["violations"]}
    equal(set(found), {"A3", "P6"}, "rules")
    equal((found["P6"]["mfn"], answer["total"]), (mfn, 2), "what is broken")
    message = found["A3"]["message"]
    check(message.startswith(LEAK) and "smp_idle_loop < " in message, message)
    check(
        message.endswith(f" < {'ap_high' if cpu else 'stack_switch'}: it was not given back"),
        message,
    )
    equal(json_of("ktf-pt-check --rule P1")["violations"], [found["A3"]], "alone")
    equal(int(gdb.parse_and_eval("$ktf_ok()")), 0, "$ktf_ok()")
    check("! the frame database is broken: " in run("ktf-frame"), run("ktf-frame"))


told()
run(f"ktf-core {core}")
run("disconnect")
run(f"core-file {core}")
told()
run("core-file")
connect()
passed()
