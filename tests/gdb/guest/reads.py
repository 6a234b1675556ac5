# SPDX-License-Identifier: BSD-2-Clause
# What the commands ask the stub for, by GDB's packets or over its socket, and whether all of it is RAM.
"""with Reads() as reads: ...; reads.only_ram()."""

from __future__ import annotations

import re

from inside import check, run
from ktf.memory import stub
from ktf.debugger.target import GdbLink


def ram_of_guest() -> list[tuple[int, int]]:
    """First and last address of each run of RAM and ROM. Ranges that touch are one: a read may cross them."""
    ranges = sorted(
        (int(a, 16), int(b, 16))
        for view in run("monitor info mtree -f").split("FlatView")
        if 'AS "memory"' in view
        for a, b in re.findall(r"^ *(\w+)-(\w+) \(prio -?\d+, (?:ram|rom)\)", view, re.M)
    )
    runs: list[tuple[int, int]] = []
    for low, high in ranges:
        if runs and runs[-1][1] + 1 == low:
            low = runs.pop()[0]
        runs.append((low, high))
    return runs


class Reads:
    """Writes down each read of physical memory through the stub: asked, (address, size)."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.ram = ram_of_guest()

    def __enter__(self) -> Reads:
        packet, request, asked = GdbLink._packet, stub.request, self.asked
        self.before = packet, request

        def packets(link: GdbLink, text: str) -> str:
            """Of GDB's own."""
            if text.startswith("m"):
                at, size = (int(x, 16) for x in text[1:].split(","))
                asked.append((at, size))
            return packet(link, text)

        def socket(at: int, size: int) -> bytes:
            """Over GDB's socket."""
            asked.append((at, size))
            return request(at, size)

        setattr(GdbLink, "_packet", packets)
        setattr(stub, "request", socket)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(GdbLink, "_packet", self.before[0])
        setattr(stub, "request", self.before[1])

    def only_ram(self, least: int) -> None:
        """Ends the test unless there were so many reads, all of them of RAM."""
        check(len(self.asked) >= least, f"only {len(self.asked)} reads of the stub")
        for at, size in self.asked:
            inside = any(low <= at and at + size - 1 <= high for low, high in self.ram)
            check(inside, f"{size} bytes at {at:#x} are read, which is no RAM")
