#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""How long ktf-maps and ktf-pt-check take on a guest that is full: every page of its memory held and mapped (`bench=full`).

The "debugger" object of bench.json, measured in seconds by each reader. --check: a small guest, all readers must agree
and find nothing wrong, as `make check` does it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from bench_shape import DEBUGGER, READERS, misshapen
from qemu import ROOT, Guest, GuestError, gdb_command

SCRIPT = ROOT / "tests/bench/bench_debugger_gdb.py"
LEAVES = 1_000_000  # at least, of the guest that is measured
# At most, in seconds and megabytes: docs/limits.md says what is missed.
AIMS: dict[str, dict[str, float]] = {
    "maps_s": {"ramfile": 0.3, "procmem": 0.4, "gdbstub": 3.0, "core": 0.4},
    "pt_check_s": {"ramfile": 1.0, "procmem": 1.2, "gdbstub": 9.0, "core": 1.2},
    "gdb_rss_mb": dict.fromkeys(READERS, 600.0),
}
# What fails: memory, whatever was aimed at; and processor time, which a busy host changes less than the time by the clock.
# It is held against what a yardstick takes beside it: at best, of the readers that copy; then each reader against that.
RSS_MB = 600.0
COPYING = ("ramfile", "procmem", "core")


@dataclass(frozen=True)
class Bounds:
    """At most: in yardsticks at best; then against that a reader that copies, and the stub's."""

    best: dict[str, float]
    copying: float
    stub: float


# On two cores with load 8 to 13, by numpy 1.24, 2.2 and 2.4, the small guest took 2.2 to 2.9 and 10 to 11.2, a reader up to
# 1.2 times that, the stub 2.7 times; the full one, once by each with load 10 to 18, 7.7 to 11.4 and 43 to 67, up to 1.7
# times, 4.4 times. Each bound is below twice the least of these.
FULL = Bounds({"maps_cpu_s": 13.6, "pt_check_cpu_s": 77.0}, 1.9, 6.5)
SMALL = Bounds({"maps_cpu_s": 3.6, "pt_check_cpu_s": 15.0}, 1.7, 4.5)
SMALL_MEM = "512M"


def in_gdb(command: list[str], timeout: float, **orders: Any) -> dict[str, Any]:
    """What the script inside a fresh GDB answers."""
    done = subprocess.run(
        [*command, "-batch", "-x", str(SCRIPT)],
        env={**os.environ, "KTF_ORDERS": json.dumps(orders)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("debugger: "):
            found: dict[str, Any] = json.loads(line.removeprefix("debugger: "))
            return found
    raise GuestError(f"GDB gave no answer to {orders}: {(done.stdout + done.stderr)[-1000:]}")


def info_tlb(guest: Guest) -> tuple[float, int]:
    """Seconds that QEMU's monitor takes for its own list of what is mapped, and its lines."""
    started = time.monotonic()
    text = guest.hmp("info tlb")
    return round(time.monotonic() - started, 3), text.count("\n")


def run(mem: str, timeout: float, times: int) -> dict[str, dict[str, Any]]:
    """What each reader takes and finds on a full guest of that much memory; "info tlb" beside them."""
    with Guest(mem=mem, cmdline="bench=full acpi=off", ramfile=True, timeout=timeout) as guest:
        live = gdb_command(guest.port)
        in_gdb(live, timeout, run="fill")
        seconds, lines = info_tlb(guest)
        found: dict[str, dict[str, Any]] = {"info tlb": {"seconds": seconds, "lines": lines}}
        core = guest.dir / "core"
        in_gdb(live, timeout, run="core", file=str(core))
        for reader in READERS:
            command = gdb_command(None, "-ex", f"core-file {core}") if reader == "core" else live
            often = min(times, 2) if reader == "gdbstub" else times
            found[reader] = in_gdb(command, timeout, run="measure", reader=reader, times=often)
    return found


def figures(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """bench.json's "debugger"."""
    names = (
        "maps_s",
        "pt_check_s",
        "maps_cpu_s",
        "pt_check_cpu_s",
        "yardstick_cpu_s",
        "gdb_rss_mb",
    )
    by_reader = {name: {reader: found[reader][name] for reader in READERS} for name in names}
    leaves = found["ramfile"]["counts"]["leaves"]
    return {"leaves": leaves, "info_tlb_s": found["info tlb"]["seconds"], **by_reader}


def wrong(found: dict[str, dict[str, Any]]) -> list[str]:
    """What is not as it should be, whatever it took: readers that disagree, or find something broken."""
    bad = []
    first = found["ramfile"]
    for reader in READERS:
        mine = found[reader]
        if mine["total"]:
            bad.append(f"{reader}: {mine['total']} violations in a healthy guest")
        if mine["read_by"] != reader:
            bad.append(f"{reader}: was read by {mine['read_by']}")
        for key in ("counts", "maps"):
            if mine[key] != first[key]:
                bad.append(f"{reader}: {key} are not those of the RAM file")
    leaves, lines = first["counts"]["leaves"], found["info tlb"]["lines"]
    if leaves != lines:
        bad.append(f"{leaves} leaf entries, but info tlb has {lines} lines")
    return bad


def over(result: dict[str, Any], bounds: Bounds) -> list[str]:
    """What takes too much memory or processor time."""
    bad = [
        f"{reader}: GDB took {mb} MB, more than {RSS_MB:g}"
        for reader, mb in result["gdb_rss_mb"].items()
        if mb > RSS_MB
    ]
    for key, most in bounds.best.items():
        took, yard = result[key], result["yardstick_cpu_s"]
        best = min(took[r] for r in COPYING) / min(yard[r] for r in COPYING)
        if best > most:
            bad.append(f"{key} is {best:.2f} yardsticks at best, more than {most:g}")
        for reader in READERS:
            times = bounds.copying if reader in COPYING else bounds.stub
            ratio = took[reader] / yard[reader] / best
            if ratio > times:
                text = f"{key} is {ratio:.2f} times that of the best reader"
                bad.append(f"{reader}: {text}, more than {times:g}")
    return bad


def measure(timeout: float) -> dict[str, Any]:
    """The guest with over a million leaf entries; GuestError if anything is wrong with what was found."""
    found = run("4G", timeout, times=3)
    bad = wrong(found)
    result = figures(found)
    if result["leaves"] < LEAVES:
        bad.append(f"only {result['leaves']} leaf entries")
    if bad:
        raise GuestError("; ".join(bad))
    return result


def table(result: dict[str, Any]) -> list[str]:
    """The lines that `make bench` prints."""
    said = f"{result['leaves']:,} leaf entries; QEMU's info tlb takes {result['info_tlb_s']:g} s"
    lines = ["", f"debugger: {said}", f"{'':16}" + "".join(f"{r:>18}" for r in READERS)]
    for key, name in (
        ("maps_s", "ktf-maps, s"),
        ("maps_cpu_s", "  of them in GDB"),
        ("pt_check_s", "ktf-pt-check, s"),
        ("pt_check_cpu_s", "  of them in GDB"),
        ("gdb_rss_mb", "GDB's peak, MB"),
    ):
        line = f"{name:16}"
        for reader in READERS:
            value, aim = result[key][reader], AIMS.get(key, {}).get(reader)
            mark = "" if aim is None else f" of {aim:g}" + ("" if value <= aim else "!")
            line += f"{f'{value:g}{mark}':>18}"
        lines.append(line)
    return lines + ["(N of M: at most M; N of M!: missed)"]


def check(timeout: float) -> int:
    """The short form: a small guest."""
    found = run(SMALL_MEM, timeout, times=3)
    result = figures(found)
    bad = wrong(found) + (misshapen("debugger", result, DEBUGGER) or over(result, SMALL))
    print("\n".join(table(result)))
    for text in bad:
        print(f"not ok debugger {text}")
    if not bad:
        print(f"ok debugger {result['leaves']} entries by {len(READERS)} readers")
    return 1 if bad else 0


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="the short form")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a guest")
    args = parser.parse_args()
    try:
        if args.check:
            return check(args.timeout)
        result = measure(args.timeout)
    except (GuestError, subprocess.TimeoutExpired) as e:
        print(f"not ok debugger {e}")
        return 1
    print(json.dumps(result))
    print("\n".join(table(result)))
    bad = over(result, FULL)
    for text in bad:
        print(f"not ok debugger {text}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
