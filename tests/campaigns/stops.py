#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""False alarms: a guest whose CPUs all work at random is stopped at random, and ktf-pt-check must have nothing to say.

One guest for each seed: test=stress on 4 CPUs (`-accel tcg,thread=multi`), stopped by GDB as often as asked, and then
let go; if its test ends before, there is another guest. Where a CPU holds a lock, what that lock covers is shown as in
progress and not counted; many stops must meet one. The stress test must end as without GDB: all its operations done,
nothing failed. Exit status 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time

from campaign import campaign_end, too_few_held
from qemu import EXIT_SUCCESS, ROOT, Guest, GuestError, gdb_command

WORKERS = 3  # of 4 CPUs, the last one watches


def stopped(guest: Guest, stops: int, seed: int) -> str:
    """tests/campaigns/stops_gdb.py inside GDB on the guest; what it printed."""
    command = gdb_command(guest.port, "-batch")
    command += ["-ex", "thbreak stress_begin", "-ex", "continue"]
    command += ["-x", str(ROOT / "tests/campaigns/stops_gdb.py")]
    more = {"STOPS": str(stops), "STOPS_SEED": str(seed)}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=3600,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **more},
        check=False,
    )
    return done.stdout + done.stderr


def one(seed: int, stops: int, ops: int, stop_seed: int) -> tuple[int, int, list[str]]:
    """One guest: stops made, of them with a lock held, what went wrong."""
    line = f"test=stress stress-ops={ops} stress-seed={seed}"
    more = ["-accel", "tcg,thread=multi"]
    with Guest(stopped=True, timeout=5400, smp=4, cmdline=line, ramfile=True, extra=more) as guest:
        try:
            text = stopped(guest, stops, stop_seed)
            status = guest.wait()
        except GuestError as e:
            return 0, 0, [str(e)]
        said = guest.output()
    found = re.search(r"(\d+) stops, (\d+) with a lock held", text)
    wrong = [w for w in text.splitlines() if w.startswith("alarm: ")]
    if not found or "\nPASS\n" not in text:
        return 0, 0, [*wrong, f"GDB did not come to its end: {text[-2000:]}"]
    if status != EXIT_SUCCESS or f"  {ops * WORKERS} operations done" not in said:
        wrong.append(f"the stress test did not end as without GDB (status {status}): {said[-500:]}")
    return int(found[1]), int(found[2]), wrong


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stops", type=int, default=1000, help="in all")
    parser.add_argument("--guests", type=int, default=5, help="among which they are spread")
    parser.add_argument("--ops", type=int, default=300000, help="of each CPU that works")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    args = parser.parse_args()
    args.seed = random.randrange(1 << 31) if args.seed is None else args.seed
    os.umask(0o077)
    print(f"seed {args.seed}", flush=True)
    started, stops, held = time.monotonic(), 0, 0
    wrong: list[str] = []
    for i in range(4 * args.guests):
        share = min(-(-args.stops // args.guests), args.stops - stops)
        if not share:
            break
        made, with_lock, bad = one(args.seed % 1000 + i, share, args.ops, args.seed + i)
        stops, held, wrong = stops + made, held + with_lock, wrong + bad
        print(f"guest {i + 1}: {made} stops, {with_lock} with a lock held", *bad, flush=True)
    if stops != args.stops and not wrong:
        wrong.append(f"{stops} stops instead of {args.stops}: give it more --ops")
    few = "" if wrong else too_few_held(stops, held)
    wrong += [few] if few else []
    alarms = sum(w.startswith("alarm: ") for w in wrong)
    print(f"{stops} stops, {held} with a lock held, {alarms} false alarms")
    return campaign_end("stops", wrong, started, args)


if __name__ == "__main__":
    sys.exit(main())
