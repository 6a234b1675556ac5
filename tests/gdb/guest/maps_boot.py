# SPDX-License-Identifier: BSD-2-Clause
# The commands at any moment of the boot, in firmware and boot loader: an answer that is right, or one line.
# guest: mem=256M machine=pc uefi=1 stop=none timeout=60
# guest: mem=128M machine=pc uefi=0 stop=none
import gdb
from inside import (
    check,
    connect,
    equal,
    error_of,
    info_tlb,
    leaves,
    passed,
    physical_mode,
    run,
    run_for,
    same_lines,
)

connect()
check("paging is off" in error_of("ktf-maps"), error_of("ktf-maps"))
check("paging is off" in error_of("ktf-maps 0"), error_of("ktf-maps 0"))
compared = 0
for pause in (0.02, 0.05, 0.1, 0.2, 0.3, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5):
    run_for(pause)
    equal(physical_mode(), "0")
    try:
        text = run("ktf-maps")
    except gdb.error as e:
        message = str(e)
        check("paging" in message and "Traceback" not in message, message)
        continue
    check("range" in text, text[:500])
    same_lines(leaves("--space cr3"), info_tlb())
    compared += 1
    run("ktf-maps $rip")
print(f"compared {compared} times")
check(compared > 0, "never came to 64-bit paging")
passed()
