#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`make culprit`: who broke a page table, a frame's descriptor or another structure of the memory manager.

Runs the guest under QEMU's -icount, where each run is the same to the instruction. The first run ends at the panic, the
triple fault or the guest's end; ktf-pt-check tells what is broken there. The second has write watches on exactly that,
through every address that maps it, and checks after each write: the write after which it stayed broken is the culprit.
With --by=journal, or where no write was seen: ktf-pt-check at every n-th event of the journal, then at each event
between the last good and the first bad one.

Status: 0 a culprit was named, or nothing is broken; 1 something is broken and nobody was found; 2 no run came so far.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "gdb"))

from ktf.postmortem.culprit import culprit
from qemu import ROOT, Guest, GuestError, gdb_command, guest_options, private_file

ICOUNT = (
    "-icount",
    "shift=7,sleep=off",
)  # as deterministic as shift=0, and the firmware waits less
TIMEOUT = 120.0
SAMPLES = 24  # events at which a run of by_journal() checks


class Failed(Exception):
    """A run that did not come to its end."""


def run(args: argparse.Namespace, orders: dict[str, Any]) -> dict[str, Any]:
    """One run of the guest with these orders (tests/campaigns/culprit_gdb.py); what it found."""
    config = {"mem": args.mem, "smp": args.smp, "machine": args.machine, "cpu": args.cpu}
    try:
        with Guest(
            ramfile=True,
            uefi=args.uefi,
            cmdline=args.cmdline,
            extra=ICOUNT,
            timeout=TIMEOUT,
            **config,
        ) as guest:
            files = {n: private_file(guest.dir / n) for n in ("orders", "found")}
            files["orders"].write_text(json.dumps(orders))
            environ = {
                **os.environ,
                "KTF_ORDERS": str(files["orders"]),
                "KTF_FOUND": str(files["found"]),
            }
            command = gdb_command(
                guest.port, "-batch", "-x", str(ROOT / "tests/campaigns/culprit_gdb.py")
            )
            done = subprocess.run(
                ["setpriv", "--pdeathsig", "KILL", *command],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                env=environ,
                check=False,
            )
            text = files["found"].read_text()
    except (GuestError, subprocess.TimeoutExpired) as e:
        raise Failed(str(e)) from e
    if not text:
        raise Failed(f"GDB did not come to its end:\n{done.stdout[-600:]}{done.stderr[-600:]}")
    found: dict[str, Any] = json.loads(text)
    if found.get("error"):
        raise Failed(found["error"])
    return found


def stop_text(stop: dict[str, Any]) -> str:
    """Where a run ended."""
    return (
        f"{stop['kind']} on CPU {stop['cpu']} at {stop['source'] or hex(stop['registers']['rip'])}"
    )


def change(before: str, after: str) -> str:
    """The words that a write changed, old and new value."""
    parts = []
    for at in range(0, len(before), 16):
        old, new = (
            int.from_bytes(bytes.fromhex(x[at : at + 16]), "little") for x in (before, after)
        )
        if old != new:
            parts.append(
                f"byte {at // 2}: {old:#x} -> {new:#x}"
                if len(before) > 16
                else f"{old:#x} -> {new:#x}"
            )
    return ", ".join(parts)


def told(write: dict[str, Any], watch: dict[str, Any], cause: str) -> list[str]:
    """A write, with its backtrace."""
    lines = [
        f"{cause}: {write['source'] or hex(write['at'])}, CPU {write['cpu']}, after event {write['event'] - 1} of the journal"
    ]
    lines.append(f"  {write['at']:#x}: {write['instruction']}")
    lines.append(
        f"  {watch['name']}, written at {write['va']:#x}: {change(write['before'], write['after'])}"
    )
    return lines + ["  " + line for line in write["backtrace"].splitlines() if line.startswith("#")]


def judge(found: dict[str, Any], watches: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """The writes after which something stayed broken, in their order, each with what it was to."""
    blamed: dict[int, int] = {}
    for i in range(len(watches)):
        # What is wrong with it may be told by a write to something else that is watched.
        states = [w["broken"][i] if w["broken"] else None for w in found["writes"]]
        number = culprit(states)
        if number is not None:
            blamed.setdefault(number, found["writes"][number]["watch"])
    return sorted(blamed.items())


def by_watch(
    args: argparse.Namespace, first: dict[str, Any], watches: list[dict[str, Any]], start: int = 0
) -> int | None:
    """A run with watches, after event `start`; None if it names nobody."""
    for w in watches:
        count = len(w["vas"])
        print(
            f"watching {w['name']}: {w['size']} bytes at {w['pa']:#x}, through {count} address{'' if count == 1 else 'es'}"
        )
    orders = {"run": "watch", "watches": watches, "from": start, "rings": first["rings"]}
    found = run(args, orders)
    return verdict(found, first, watches, start)


def verdict(
    found: dict[str, Any], first: dict[str, Any], watches: list[dict[str, Any]], start: int = 0
) -> int | None:
    """Prints whom a run with watches names: 0; None if nobody, 2 if it was not the run that the first one was."""
    if found["stop"] != first["stop"]:
        print(f"! this run ended elsewhere: {stop_text(found['stop'])}")
        return 2
    after = f" after event {start}" if start else ""
    print(f"{'last run' if start else 'run 2'}: {len(found['writes'])} writes{after}, the same end")
    for name in found["missed"]:
        print(f"! {name} changed through an address that is not mapped any more")
    blamed = judge(found, watches)
    if not blamed or found["missed"]:
        return None
    number, watch = blamed[0]
    print("\n".join(told(found["writes"][number], watches[watch], "culprit")))
    for other, watch in blamed[1:]:
        print("\n".join(told(found["writes"][other], watches[watch], "then")[:3]))
    return 0


def by_journal(args: argparse.Namespace, first: dict[str, Any]) -> tuple[int, int | None]:
    """Some events, then ever more between the last good and the next bad one. The last good one; None if none is bad.

    What is bad before a good one counts for nothing: it was not yet set up, or somebody was at it.
    """
    last = first["stop"]["events"] - 1
    good, end, bad = 1, last, None
    for turn in itertools.count(2):
        every = max(1, math.ceil((end - good) / SAMPLES))
        orders = {"run": "events", "every": every, "first": good, "last": end}
        seen = run(args, {**orders, "rules": first["rules"], "rings": first["rings"]})["seen"]
        print(f"run {turn}: ktf-pt-check at {len(seen)} events from {good} to {end}")
        good = max([good, *(s["event"] for s in seen if not s["rules"])])
        bad = next((s for s in seen if s["event"] > good and s["rules"]), None)
        end = bad["event"] if bad else end
        if every == 1 or not seen:
            break
    if bad is None:
        print(f"no event of the journal ends with anything broken: it broke after event {last}")
        return last, None
    print(
        f"event {bad['event']} is the first after which {' '.join(bad['rules'])} is broken; what it says:"
    )
    print(f"  {bad['first'][0]}")
    print(
        "".join(f"  {line}\n" for line in bad["backtrace"].splitlines() if line.startswith("#")),
        end="",
    )
    return good, 0


def search(args: argparse.Namespace) -> int:
    """Both ways; what is written all the time is watched only between the last good event and the end."""
    first = run(args, {"run": "find"})
    if first["stop"] is None:
        raise Failed("the guest is gone before its end could be looked at")
    print(f"run 1: {stop_text(first['stop'])}")
    if not first["violations"]:
        print("no structure is broken there: nothing to watch; ktf-postmortem explains the stop")
        return 0
    print("\n".join(f"  {v}" for v in first["violations"]))
    quiet = [w for w in first["watches"] if not w["busy"]]
    busy = [w for w in first["watches"] if w["busy"]]
    status = None
    if args.by == "watch" and quiet:
        status = by_watch(args, first, quiet)
    elif args.by == "watch":
        print("none of it is memory that can be watched from the start on")
    if status is None:
        good, status = by_journal(args, first)
        if args.by == "watch" and busy:
            named = by_watch(args, first, busy, good)
            status = status if named is None else named
    if status is None:
        print("nobody was found")
    return 1 if status is None else status


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    guest_options(parser)
    parser.add_argument("--by", choices=("watch", "journal"), default="watch")
    args = parser.parse_args()
    if not args.cmdline:
        parser.error('say what goes wrong: make culprit CMDLINE="crash=wild-store"')
    try:
        return search(args)
    except Failed as e:
        print(f"culprit: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
