# SPDX-License-Identifier: BSD-2-Clause
# The first ktf-postmortem at a stop selects the CPU that failed, whichever was selected; what the user selects then stays.
# guest: mem=128M machine=pc smp=4 ramfile=1 log=1 cmdline="acpi=off crash=cpu2" stop=panic
# guest: mem=128M machine=pc smp=4 ramfile=1 log=1 cmdline="acpi=off crash=root-entry" stop=shutdown
# guest: mem=128M machine=pc smp=4 ramfile=1 cmdline="acpi=off crash=no-idt" stop=shutdown
import os

import gdb
from inside import PORT, check, connect, equal, json_of, passed, run

SAID = " is selected now: `bt` and `info registers` are of CPU "
core = os.path.join(os.path.dirname(os.environ["KTF_SERIAL"]), "core")


def cpu() -> int:
    """The one that GDB has selected."""
    return int(gdb.selected_thread().ptid[1]) - 1


def select(number: int) -> None:
    """As a user does."""
    thread = next(t for t in gdb.selected_inferior().threads() if t.ptid[1] - 1 == number)
    run(f"thread {thread.num}")


def check_selects(how: str) -> dict[str, object]:
    """At a stop at which nobody has asked yet; the first one asks for text, or by the number of CPUs for JSON."""
    before = {number: run_on(number) for number in range(4)}
    select(1)
    said = run("ktf-postmortem")
    answer = json_of("ktf-postmortem")
    failed = answer["cpu"]
    check(failed != 1, f"{how}: this kind's CPU must be another one")
    equal(cpu(), failed, how)
    check(f"{SAID}{failed}.\n" in said, f"{how}: {said[-300:]}")
    equal(int(gdb.parse_and_eval("$rsp")), before[failed], f"{how}: registers")
    select(1)
    check(SAID not in run("ktf-postmortem"), f"{how}: it is said twice")
    equal((json_of("ktf-postmortem"), cpu()), (answer, 1), f"{how}: the user's own selection")
    return answer


def run_on(number: int) -> int:
    """Its stack pointer."""
    select(number)
    return int(gdb.parse_and_eval("$rsp"))


live = check_selects("live")
run(f"ktf-core {core}")
run("disconnect")
connect(PORT)
select(1)
equal(json_of("ktf-postmortem"), live, "attached anew")
equal(cpu(), live["cpu"], "selected by --json")
run("disconnect")
run(f"core-file {core}")
equal(check_selects("core"), live, "core")
os.unlink(core)
passed()
