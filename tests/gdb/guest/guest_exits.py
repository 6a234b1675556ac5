# SPDX-License-Identifier: BSD-2-Clause
# A guest that ends as it wanted to, with GDB attached: nobody calls that a triple fault.
# guest: mem=128M machine=pc smp=4 cmdline="acpi=off test=shootdown_unmap" stop=reset log=1
# guest: mem=128M machine=pc smp=1 cmdline="acpi=off test=no-such-test" stop=reset
import gdb
from inside import check, error_of, json_of, passed, run

success = (
    gdb.selected_inferior().connection is not None and len(gdb.selected_inferior().threads()) > 1
)
try:
    end = run("continue")
except gdb.error as e:  # QEMU 7.2 ends at isa-debug-exit
    end = str(e)
if gdb.selected_inferior().connection is None:
    check("onnection closed" in end, end)
else:
    how = (
        "with success (QEMU's exit status 33)"
        if success
        else "as a failure (QEMU's exit status 35)"
    )
    check(f"The guest has ended by itself, {how}." in end, end)
    check("triple" not in end, end)
    answer = json_of("ktf-postmortem")
    check(
        answer["stop"] == "exit" and answer["cpu"] == 0 and not answer["chain"], str(answer)[:300]
    )
    check(
        answer["cause"].startswith(f"the guest has ended by itself, {how}: CPU 0 is"),
        answer["cause"],
    )
    check("GDB would wait for ever" in error_of("continue"), "continue is not refused")
passed()
