# SPDX-License-Identifier: BSD-2-Clause
# ktf-core of a guest with more mapped ranges than an ELF header counts: plain GDB reads them all.
# guest: mem=288M cmdline="bench=apart acpi=off" ramfile=1 timeout=120
import os
import re
import subprocess

import gdb
from inside import check, equal, json_of, passed, run

folder = os.path.dirname(os.environ["KTF_SERIAL"])
core = f"{folder}/core"
run("hbreak say_full")
run("continue")
mapped = int(gdb.parse_and_eval("mapped"))
check(mapped > 0xFFFF, f"{mapped} pages are mapped")
leaves = json_of("ktf-maps --leaves")["leaves"]
vas = sorted(int(leaf["va"], 16) for leaf in leaves)
# The longest row of pages with one unmapped page between two of them is the benchmark's.
starts = [0] + [i for i in range(1, len(vas)) if vas[i] - vas[i - 1] != 8192] + [len(vas)]
count, start = max((end - begin, begin) for begin, end in zip(starts, starts[1:]))
equal(count, mapped, "pages that lie apart")
first, last = vas[start], vas[start + count - 1]
# Both ends get contents of their own, which the core must have.
for number, va in enumerate((first, last)):
    run(f"set variable *(unsigned long *){va:#x} = {0xABCD0000 + number}")
found = json_of(f"ktf-core {core}")
check(found["ranges"] > mapped, f"{found}")
check(len(leaves) >= found["ranges"], f"{len(leaves)} leaves")

WORDS = ["info threads", "bt", f"x/gx {first:#x}", f"x/gx {last:#x}", "print mm.magic", "info line"]
command = ["gdb", "-q", "-nx", "-batch", "-iex", "set auto-load off", "build/kernel.elf", core]
done = subprocess.run(
    command + [w for word in WORDS for w in ("-ex", word)],
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
)
said = done.stdout + done.stderr
check("warning" not in said and "Cannot access" not in said, said)
check(f"{first:#x}:\t0x00000000abcd0000" in said, said)
check(f"{last:#x}:\t0x00000000abcd0001" in said, said)
check(re.search(r"\* 1 .*LWP 1.* say_full \(mapped=", said), said)
check(re.search(r"#[1-9] .* at kernel/main\.c:\d+", said), said)  # through the callers

# The commands as on the guest.
run("disconnect")
run(f"core-file {core}")
check("read by core" in run("ktf-maps -v --range " + f"{last:#x} {last + 4096:#x}"))
equal(json_of("ktf-maps --leaves")["leaves"], leaves, "leaves")
os.unlink(core)
passed()
