# SPDX-License-Identifier: BSD-2-Clause
# After a panic QEMU goes on if it is asked to: GDB is not kept from it, Ctrl-C comes back, and the panic is still known.
# guest: mem=128M machine=pc smp=2 cmdline="acpi=off crash=panic" stop=reset
# guest: mem=128M machine=pc smp=2 cmdline="acpi=off crash=panic" stop=panic

import gdb
from inside import check, interrupt_after, passed, run

if int(gdb.parse_and_eval("$pc")) == 0xFFF0:
    end = run("continue")
    check("The guest has panicked: `ktf-postmortem` says why." in end, end)
first = run("ktf-postmortem")
check(first.startswith("panic in give_up at "), first)
for command in ("continue", "stepi"):  # its CPUs halt for good
    interrupt_after(1)
    try:
        said = run(command)
    except KeyboardInterrupt:
        said = ""
    check("GDB would wait" not in said, f"{command} is refused")
    check("guest-panicked" not in run("monitor info status"), f"{command} did not go on")
    check(run("ktf-postmortem").startswith("panic in give_up at "), "the panic is forgotten")
check(gdb.parameter("may-call-functions"), "calls are forbidden")
passed()
