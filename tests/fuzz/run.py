#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`make fuzz`: libFuzzer on the host build of mm/ for a time; what is new is kept under build/fuzz/corpus.

With --check, as `make check` calls it: every input of tests/fuzz/corpus, then a fixed number of new ones from a fixed
seed. Prints `ok NAME` or `not ok NAME why`. An input that fails is kept, and the line that repeats it is printed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/fuzz"
PROGRAM = BUILD / "mm"
CORPUS = ROOT / "tests/fuzz/corpus"
INPUT_MAX = 600  # bytes
CHECK_RUNS = 400
HANG_SECONDS = 30  # one input takes a fraction of one
SHOWN = 30  # lines of a failure


def fuzz(name: str, *options: str) -> bool:
    """Runs the fuzzer with these options; says how it went."""
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [
        str(PROGRAM),
        f"-max_len={INPUT_MAX}",
        "-len_control=0",
        f"-timeout={HANG_SECONDS}",
        f"-artifact_prefix={BUILD}/",
        *options,
    ]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode == 0:
        match = re.search(r"Done (\d+) runs", done.stderr)
        print(f"ok {name}" + (f" {match[1]} inputs" if match else ""))
        return True
    print("\n".join(done.stderr.splitlines()[-SHOWN:]))
    why = re.search(r"^fuzz: (.*)$", done.stderr, re.M)
    kept = re.search(r"written to (\S+)", done.stderr)
    if kept:
        print(f"again: {PROGRAM.relative_to(ROOT)} {kept[1]}")
    print(f"not ok {name} {why[1] if why else f'exit status {done.returncode}'}")
    return False


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="the kept corpus and a short run")
    parser.add_argument("--seconds", type=int, default=60)
    args = parser.parse_args()
    if args.check:
        inputs = sorted(str(p) for p in CORPUS.iterdir())
        good = fuzz("corpus", *inputs)
        with tempfile.TemporaryDirectory(prefix="new-", dir=BUILD) as new:
            good &= fuzz("short_run", "-seed=1", f"-runs={CHECK_RUNS}", new, str(CORPUS))
        return 0 if good else 1
    kept = BUILD / "corpus"
    kept.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={args.seconds}", str(kept), str(CORPUS)]
    return 0 if fuzz("fuzz", *options) else 1


if __name__ == "__main__":
    sys.exit(main())
