# SPDX-License-Identifier: BSD-2-Clause
# A stack that overflows is a double fault on a stack of its own, reported with registers, not a silent reset.
# guest: mem=128M machine=pc cmdline="crash=stack-overflow" stop=panic
import os

from inside import check, passed, run

with open(os.environ["KTF_SERIAL"], encoding="utf-8", errors="replace") as serial:
    said = serial.read()
check("vector 8 (#DF double fault)" in said, said)
check("in the guard page below stack 'cpu0': it has overflowed" in said, said)
check("backtrace:" in said, said)
check(": 0 violations" in run("ktf-pt-check"))
passed()
