# SPDX-License-Identifier: BSD-2-Clause
# Handlers that are no code: a CPU that goes from one exception to the next for ever is found, whichever CPU is selected.
# guest: mem=128M machine=pc smp=2 ramfile=1 stop=reset cmdline="acpi=off"
from __future__ import annotations

import gdb
from inside import check, equal, json_of, passed, run

STEPS = 8  # exceptions that are gone through
GATES = 32
JUNK = 0x6B6B6B6B6B6B6B6B
REASON = {"&mm": "may not be executed", f"{JUNK:#x}": "not a canonical address"}


def point_all_at(handler: int) -> None:
    """Every exception's gate."""
    for i in range(GATES):
        run(f"set variable idt[{i}].offset_low = {handler & 0xFFFF}")
        run(f"set variable idt[{i}].offset_middle = {handler >> 16 & 0xFFFF}")
        run(f"set variable idt[{i}].offset_high = {handler >> 32}")


run("break ktf_ready")
run("continue")
text = run("ktf-postmortem").splitlines()[0]
check("has not crashed" in text, text)
for where, reason in REASON.items():
    handler = int(gdb.parse_and_eval(f"(unsigned long){where}"))
    point_all_at(handler)
    run("thread 1")
    run("set variable $rip = 0")
    for _ in range(STEPS):
        run("stepi")
    for thread in (2, 1):
        run(f"thread {thread}")
        found = json_of("ktf-postmortem")
        cause = found["cause"]
        equal((found["cpu"], found["rip"]), (0, f"{handler:#x}"), cause)
        words = "CPU 0 takes exception after exception for ever: the handler of #DE, #DB, NMI and 29 more"
        check(cause.startswith(words) and reason in cause, cause)
passed()
