#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`make bench`: counts the guest's instructions, times the debugger, writes build/bench.json and build/bench.svg, prints both.

The guest (tests/guest/bench*.c) runs under QEMU's `-icount shift=0,sleep=off` on one CPU, where a tick of the TSC is
one instruction. --check: only the small guest, held against tests/bench/bench_limits.txt, as `make check` does it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bench_debugger
import bench_plot
from bench_shape import BOOT_KEYS, BOOT_MEM, BY_MAPPINGS, FLAT, OBJECTS
from bench_shape import all_misshapen, misshapen, small_shape
from qemu import BUILD, EXIT_SUCCESS, Guest, GuestError

LIMITS = Path(__file__).resolve().parent / "bench_limits.txt"
LINE = re.compile(r"bench (\w+)(?:\[(\w+)\])? ticks (\d+) ops (\d+)$")
NO_ACPI = "bench: ACPI is not built in"
SECTION = re.compile(r"bench: (results\w*)$")
MAIN_MEM = "4G"  # holds a million frames
FLAT_WITHIN = 1.10
BOOT_WITHIN = 1.05  # 16G against 4G

# What others take for it, of the same counting (KTF c1ab591, lk bd45103).
PEERS = {
    "vmap_4k": "KTF 900, lk 225, without a record",
    "vmap_4k_new_table": "KTF 3,103, lk 2,591",
    "vunmap_4k": "KTF 610, lk 280 to 2,850",
    "vmap_2m": "KTF 686",
    "vunmap_2m": "KTF 473",
    "range_map_4k": "KTF 922, lk 145",
    "range_unmap_4k": "KTF 661, lk 1,520",
    "range_map_2m": "KTF 708",
    "range_unmap_2m": "KTF 524",
    "get_frame": "KTF 60 to 1,042, lk 174",
    "put_frame": "KTF 5,709 to 251,483, lk 169",
    "find_mfn_frame": "KTF 276 to 260,750",
    "find_kern_va_frame": "KTF 942 to 261,416",
    "acpi_map_unmap": "KTF 1,846 to 6,842",
    "boot_frames": "KTF 2.22M to 2.73M",
    "metadata_boot_bytes": "KTF 72 KB to 88 KB, without records",
    "metadata_full_percent": "KTF 0.79, lk 0.59, without records",
}

Figures = dict[str, Any]  # by key: a number, or numbers by a second key


class BenchError(Exception):
    """No figures; the text says why."""


def guest(mem: str, timeout: float) -> Guest:
    """A guest that counts instructions."""
    extra = ["-icount", "shift=0,sleep=off"]
    return Guest(mem=mem, cmdline="bench acpi=off", stopped=False, timeout=timeout, extra=extra)


def parse(text: str) -> dict[str, Figures]:
    """The guest's lines: figures by section ("boot", "results", "results_no_journal")."""
    sections: dict[str, Figures] = {"boot": {}}
    figures = sections["boot"]
    for line in text.splitlines():
        if match := SECTION.match(line):
            figures = sections.setdefault(match[1], {})
        elif match := LINE.match(line):
            key, sub, value = match[1], match[2], int(match[3]) / int(match[4])
            value = int(value) if value.is_integer() else round(value, 2)
            if sub:
                figures.setdefault(key, {})[sub] = value
            else:
                figures[key] = value
    return sections


def run_whole(mem: str, timeout: float) -> str:
    """What a guest of that much memory says of everything that it measures."""
    with guest(mem, timeout) as g:
        status = g.wait()
        text = g.output()
    if status != EXIT_SUCCESS or "bench: done" not in text.splitlines():
        raise BenchError(f"the guest of {mem} ended with status {status}:\n{text[-2000:]}")
    return text


def run_boot(mem: str, timeout: float) -> Figures:
    """Only what the boot has cost."""
    with guest(mem, timeout) as g:
        return parse(g.wait_serial("bench: results"))["boot"]


def measure(timeout: float) -> dict[str, Any]:
    """All guests; the contents of bench.json."""
    small = [mem for mem in BOOT_MEM if mem != MAIN_MEM]
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(run_whole, MAIN_MEM, timeout)
        boots = dict(zip(small, pool.map(lambda mem: run_boot(mem, timeout), small)))
    sections = parse(whole.result())
    boots[MAIN_MEM] = sections.pop("boot")
    # Up to the last frame no event is written, and no arena holds a ring: the same without the journal.
    for figures in sections.values():
        for key in BOOT_KEYS:
            figures[key] = {mem: boots[mem][key] for mem in BOOT_MEM}
    debugger = bench_debugger.measure(timeout)
    return {"schema": 1, "unit": "instructions", **sections, "debugger": debugger}


# --- the shape ------------------------------------------------------------------------------------------


def check_small(sections: dict[str, Figures], acpi: bool) -> list[str]:
    """Prints a line for each of the two objects; what they lack of what a small guest measures."""
    every = []
    for name in OBJECTS:
        bad = misshapen(name, sections.get(name), small_shape(acpi))
        print(f"not ok {name} {'; '.join(bad)}" if bad else f"ok {name}")
        every += bad
    return every


# --- limits ---------------------------------------------------------------------------------------------


def limits() -> dict[str, tuple[float, float]]:
    """Of bench_limits.txt: what GCC 12 gives, and above what the test fails, by key."""
    rows = [line.split() for line in LIMITS.read_text().splitlines() if line[0] != "#"]
    return {row[0]: (float(row[1]), float(row[2])) for row in rows}


def worst(value: Any) -> float:
    """The largest figure of a key."""
    return float(max(value.values()) if isinstance(value, dict) else value)


def spread(value: dict[str, float]) -> float:
    """How much larger the largest is than the smallest."""
    return max(value.values()) / min(value.values())


def complaint(key: str, value: Any, fails_above: float) -> str:
    """Why the figure is not as it should be; empty if it is."""
    if worst(value) > fails_above:
        return f"{worst(value):g}, more than {fails_above:g}"
    if key in FLAT + BY_MAPPINGS and spread(value) > FLAT_WITHIN:
        return f"not flat: {value}"
    if key == "boot_frames" and value["16G"] > BOOT_WITHIN * value["4G"]:
        return f"grows with the memory: {value}"
    return ""


def check(figures: Figures) -> list[str]:
    """Prints `ok KEY` or `not ok KEY why` for each figure with a limit; which are not."""
    bad = []
    for key, (_, fails_above) in limits().items():
        if key not in figures:
            continue
        why = complaint(key, figures[key], fails_above)
        print(f"not ok {key} {why}" if why else f"ok {key}")
        if why:
            bad.append(key)
    return bad


def judged(result: dict[str, Any]) -> list[str]:
    """All that is not as it should be in bench.json."""
    bad = all_misshapen(result)
    if bad:
        return bad
    figures = result["results"]
    complaints = {key: complaint(key, figures[key], most) for key, (_, most) in limits().items()}
    bad += [f"{key}: {why}" for key, why in complaints.items() if why]
    return bad + bench_debugger.over(result["debugger"], bench_debugger.FULL)


def check_all(timeout: float) -> int:
    """The short form: the small guest, and the boot of two larger ones. The exit status."""
    text = run_whole("128M", timeout)
    sections = parse(text)
    boots = {"128M": sections["boot"]}
    boots |= {mem: run_boot(mem, timeout) for mem in ("4G", "16G")}
    bad = check_small(sections, NO_ACPI not in text.splitlines())
    if bad:
        return 1
    figures = sections["results"]
    figures.pop("metadata_full_percent")  # its limit is for more memory
    figures |= {key: {mem: boots[mem][key] for mem in boots} for key in BOOT_KEYS}
    return 1 if check(figures) else 0


# --- the table ------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    """A figure as the table shows it: a range where there are several."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        low, high = min(value.values()), max(value.values())
        return text(low) if text(low) == text(high) else f"{text(low)} to {text(high)}"
    if value >= 10000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def table(result: dict[str, Any]) -> list[str]:
    """The lines: ours with the journal and without, the bound, whether it is kept, the peers'."""
    on, off = result["results"], result.get("results_no_journal", {})
    rows = [("instructions", "ours", "no journal", "at most", "", "others")]
    bounds = limits()
    for key, value in on.items():
        bound = bounds[key][1] if key in bounds else None
        mark = "" if bound is None else "ok" if worst(value) <= bound else "OVER"
        rows.append((key, text(value), text(off.get(key)), text(bound), mark, PEERS.get(key, "")))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [row[i].rjust(widths[i]) for i in range(1, 5)]
            + ([row[5]] if row[5] else [])
        ).rstrip()
        for row in rows
    ]


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="the small guest against the limits")
    parser.add_argument("--out", type=Path, default=BUILD, help="where the results go")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for a guest")
    args = parser.parse_args()
    try:
        if args.check:
            return check_all(args.timeout)
        result = measure(args.timeout)
    except (BenchError, GuestError) as e:
        print(f"not ok bench {e}", file=sys.stderr)
        return 1
    (args.out / "bench.json").write_text(json.dumps(result) + "\n")
    (args.out / "bench.svg").write_text(bench_plot.svg(result["results"]))
    print("\n".join(table(result) + bench_debugger.table(result["debugger"])))
    print(f"{args.out}/bench.json and {args.out}/bench.svg are written")
    bad = judged(result)
    if bad:
        print("not as they should be: " + "; ".join(bad), file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
