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
import numpy as np


class Timed:
    """Something done several times: the shortest time, and the shortest processor time of this process."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action = action
        self.walls: list[float] = []
        self.cpus: list[float] = []

    def again(self) -> Any:
        """What comes of it."""
        wall, cpu = time.monotonic(), time.process_time()
        found = self.action()
        self.walls.append(time.monotonic() - wall)
        self.cpus.append(time.process_time() - cpu)
        return found

    def figures(self, name: str) -> dict[str, float]:
        """Both."""
        return {f"{name}_s": round(min(self.walls), 3), f"{name}_cpu_s": round(min(self.cpus), 4)}


def yardstick() -> int:
    """Work of the commands' kinds that is always the same: about half on large arrays, half in Python and on short ones.

    On a guest with few pages, where arrays are short, ktf-maps takes half and ktf-pt-check a third of what they take on the
    small full guest. Nothing is sorted here and np.unique() is not called: what these take differs from one numpy to the
    next, up to fifty times, and the commands spend little on them.
    """
    return on_arrays() ^ on_short_arrays() ^ in_python()


def on_arrays() -> int:
    """Gathers, scatters, masks and sums over some megabytes in no order."""
    numbers = np.arange(1 << 18, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    places = (numbers >> np.uint64(46)).astype(np.int64)
    table = np.zeros(1 << 18, dtype=np.uint64)
    for _ in range(3):
        picked = numbers[places]
        table[places] = picked >> np.uint64(12)
        odd = np.flatnonzero((picked & np.uint64(1)) != 0)
        table[odd] += np.cumsum(picked[odd])
    return int(table[-1])


def on_short_arrays() -> int:
    """So short that the call is what counts."""
    few = np.arange(16, dtype=np.uint64)
    for _ in range(1500):
        few = (few & np.uint64(0xFFFF)) + few[::-1]
    return int(few[0])


class Pair:
    """Two numbers."""

    def __init__(self, left: int, right: int) -> None:
        self.left, self.right = left, right

    def text(self) -> str:
        """Both."""
        return f"{self.left:#x} {self.right}"


def in_python() -> int:
    """Objects, calls, texts and a dict."""
    table = {i: Pair(i, 3 * i) for i in range(8000)}
    return sum(len(table[i].text()) for i in table)


def measure(reader: str, times: int) -> dict[str, Any]:
    """Both commands, as a user types them, the yardstick in between, and how much memory GDB has needed."""
    gdb.execute(f"set ktf reader {reader}")
    yard = Timed(yardstick)
    maps = Timed(lambda: gdb.execute("ktf-maps -v", to_string=True))
    check = Timed(lambda: gdb.execute("ktf-pt-check --json", to_string=True))
    text, found = "", {}
    for _ in range(times):
        yard.again()
        text = maps.again()
        yard.again()
        found = json.loads(check.again())
    return {
        **yard.figures("yardstick"),
        **maps.figures("maps"),
        **check.figures("pt_check"),
        "gdb_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "counts": found["counts"],
        "total": found["total"],
        "read_by": text[text.index("\nread by ") + len("\nread by ") :].split(":")[0],
        "maps": text[: text.index("\nread by ")],
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
