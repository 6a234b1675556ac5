# SPDX-License-Identifier: BSD-2-Clause
# Inside GDB: what the commands take on the guest that bench_debugger.py has made, by one reader.
"""Orders by KTF_ORDERS (JSON): {"run": "fill"}, {"run": "core", "file": F}, {"run": "measure", "reader": R, "times": N}.

The answer is one line, `debugger: {...}`.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from typing import Any

import gdb


def timed(action: Callable[[], Any], times: int) -> tuple[float, float, Any]:
    """The shortest time, the shortest processor time of this process, and what came of it at last."""
    walls, cpus, found = [], [], None
    for _ in range(times):
        wall, cpu = time.monotonic(), time.process_time()
        found = action()
        walls.append(time.monotonic() - wall)
        cpus.append(time.process_time() - cpu)
    return round(min(walls), 3), round(min(cpus), 3), found


def measure(reader: str, times: int) -> dict[str, Any]:
    """Both commands, as a user types them, and how much memory GDB has needed."""
    gdb.execute(f"set ktf reader {reader}")
    maps_s, maps_cpu, maps = timed(lambda: gdb.execute("ktf-maps -v", to_string=True), times)
    check_s, check_cpu, line = timed(
        lambda: gdb.execute("ktf-pt-check --json", to_string=True), times
    )
    found = json.loads(line)
    return {
        "maps_s": maps_s,
        "maps_cpu_s": maps_cpu,
        "pt_check_s": check_s,
        "pt_check_cpu_s": check_cpu,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "counts": found["counts"],
        "total": found["total"],
        "read_by": maps[maps.index("\nread by ") + len("\nread by ") :].split(":")[0],
        "maps": maps[: maps.index("\nread by ")],
    }


def main() -> None:
    """What the orders say. The guest stays where it is."""
    gdb.execute("set language c")
    orders = json.loads(os.environ["KTF_ORDERS"])
    if orders["run"] == "measure":
        answer = measure(orders["reader"], orders["times"])
    elif orders["run"] == "core":
        answer = json.loads(gdb.execute(f"ktf-core {orders['file']} --json", to_string=True))
    else:
        gdb.execute("hbreak machine_exit", to_string=True)
        gdb.execute("continue", to_string=True)
        answer = {"at": gdb.selected_frame().name()}
    print("debugger: " + json.dumps(answer), flush=True)
    if orders.get("reader") != "core":
        gdb.execute("disconnect", to_string=True)  # else GDB's end would let the guest run


main()
