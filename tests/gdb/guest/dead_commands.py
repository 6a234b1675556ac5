# SPDX-License-Identifier: BSD-2-Clause
# On a machine that is off no command hangs GDB: each that would let the guest run is refused with a word.
# guest: mem=128M machine=pc cmdline="acpi=off crash=triple-fault" stop=reset
# guest: mem=128M machine=pc smp=2 cmdline="acpi=off crash=ist-unmapped" stop=shutdown
# guest: mem=128M machine=pc cmdline="power-off" stop=reset
# guest: mem=128M machine=pc cmdline="power-off" stop=reset extra="-action reboot=reset"
import os
import time

import gdb
from inside import check, equal, error_of, passed, run

REFUSED = """continue|c|fg|continue 2|continue&|step|s|step 3|stepi|si|stepi 2|next|n|nexti|ni|finish|fin|until|u|advance main|
advance *0|until *0|jump *$pc|j *$pc|signal SIGINT|signal 0|call ktf_ready()|call (void)crash("list")|thread apply all stepi|
"""
# GDB itself can't do these with QEMU, alive or dead; print and conditions call functions without a command that has a hook.
NOT_DONE = "reverse-stepi|reverse-step|reverse-continue|reverse-finish|run|start|starti|print ktf_ready()|output journal_op_name(1)"


def words(commands: str) -> list[str]:
    """Of a list."""
    return [c.strip() for c in commands.split("|") if c.strip()]


if int(gdb.parse_and_eval("$pc")) == 0xFFF0:
    end = run("continue")
    wanted = "the guest has switched the machine off: CPU 0 is" in run("ktf-postmortem")
    said = "The guest has switched the machine off.\n" if wanted else "`ktf-postmortem` says why"
    check(said in end, end)
before = run("info registers rip rsp eflags")
for command in words(REFUSED):
    said = error_of(command)
    check("can't go on" in said and "ktf-postmortem" in said, f"{command}: {said}")
for command in words(NOT_DONE):
    try:  # not error_of(): these are GDB's own words, in some releases two lines
        run(command)
    except gdb.error:
        continue
    check(False, f"{command} was done")
equal(run("info registers rip rsp eflags"), before, "registers")
check(run("ktf-postmortem"), "nothing is said of the stop")

run("monitor system_reset")
for _ in range(25):  # with -no-reboot it stays as it is
    anew = "shutdown" not in run("monitor info status") and "panic" not in run(
        "monitor info status"
    )
    if anew:
        break
    time.sleep(0.02)
with open(f"/proc/{os.environ['KTF_QEMU_PID']}/cmdline", encoding="utf-8") as f:
    equal(anew, "reboot=reset" in f.read(), "started anew")
if anew:
    run("hbreak kernel_main")
    run("continue")
    equal(gdb.selected_frame().name(), "kernel_main")
    run("stepi")
check(gdb.parameter("may-call-functions") == anew)
passed()
