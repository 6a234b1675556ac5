# SPDX-License-Identifier: BSD-2-Clause
# Debian's kernel, without symbols: `ktf-maps --leaves` is QEMU's `info tlb`, line for line, on each CPU, by each reader.
# guest: boot=linux symbols=0 mem=256M smp=1 cpu="max,la57=off" stop=said:ktf-linux-ready ramfile=1 timeout=180
# guest: boot=linux symbols=0 mem=256M smp=2 cpu="max,la57=on" stop=said:ktf-linux-ready ramfile=1 timeout=180
# guest: boot=linux symbols=0 mem=256M smp=2 cpu=default stop=said:ktf-linux-ready ramfile=0 timeout=180
# guest: boot=linux symbols=0 mem=256M smp=1 cpu="max,la57=on" stop=said:ktf-linux-ready ramfile=0 timeout=180
import os

import gdb
from inside import (
    check,
    equal,
    error_of,
    info_tlb,
    json_of,
    leaves,
    passed,
    physical_mode,
    run,
    same_lines,
)

NO_DATABASE = "no frame database: "
threads = sorted(gdb.selected_inferior().threads(), key=lambda t: t.num)
theirs = {}
for thread in threads:
    thread.switch()
    run(f"monitor cpu {thread.num - 1}")
    theirs[thread.num] = info_tlb()
    check(len(theirs[thread.num]) > 5000, f"only {len(theirs[thread.num])} lines of info tlb")
    ours = leaves()
    same_lines(ours, theirs[thread.num])
    for flags in ("X", "G", "U", "W"):
        check(any(flags in line[34:] for line in ours), f"no page has {flags}")
    check(any(line.startswith("0000") for line in ours), "no page of the program")
    equal(len(json_of("ktf-maps --leaves")["leaves"]), len(ours), "JSON")
if len(threads) > 1:
    check(theirs[1] != theirs[2], "both CPUs use the same address space: nothing is told apart")

# Each reader says the same; without our symbols that is told.
threads[0].switch()
readers = ["gdbstub", "procmem"] + (["ramfile"] if os.environ["KTF_RAMFILE"] else [])
for reader in readers:
    gdb.execute(f"set ktf reader {reader}")
    same_lines(leaves(), theirs[1])
    check(f"read by {reader}" in run("ktf-maps -v --range 0 1"), reader)
gdb.execute("set ktf reader auto")
equal(physical_mode(), "0", "physical mode")

levels = 5 if int(gdb.parse_and_eval("(long)$cr4")) & 1 << 12 else 4
text = run("ktf-maps -v --filter x")
check(
    f"{levels} levels" in text and NO_DATABASE in text and "QEMU does not tell them" in text, text
)
walk = json_of("ktf-maps $rip")
check(walk["mapped"] and len(walk["walk"]) in range(levels - 2, levels + 1), str(walk))
check("x" in walk["perm"] and walk["kind"] is None, str(walk))
check(any(NO_DATABASE in note for note in json_of("ktf-maps --range 0 1")["notes"]), "JSON")
for command in ("ktf-frame", "ktf-frame 1", "ktf-pt-check", "print $ktf_ok()"):
    check("no kernel symbols" in error_of(command), error_of(command))
equal(int(gdb.parse_and_eval("$ktf_paddr($rip)")), int(walk["pa"], 16), "$ktf_paddr")

# A core of it says the same.
core = os.path.join(os.path.dirname(os.environ["KTF_SERIAL"]), "core")
run(f"monitor dump-guest-memory {core}")
gdb.execute("disconnect", to_string=True)
gdb.execute(f"core-file {core}", to_string=True)
for number, expected in theirs.items():
    gdb.execute(f"thread {number}", to_string=True)
    same_lines(leaves(), expected)
check("read by core" in run("ktf-maps -v --range 0 1"), "core")
passed()
