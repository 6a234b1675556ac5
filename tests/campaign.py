# SPDX-License-Identifier: BSD-2-Clause
"""How a long run that is a target of its own ends: `make bitflip`, `make stops`."""

from __future__ import annotations

import time


def campaign_end(name: str, wrong: list[str], started: float) -> int:
    """Prints the last lines of a run that began at that time.monotonic(): what went wrong. Its exit status."""
    print(f"{time.monotonic() - started:.0f} s")
    for text in wrong[:20]:
        print(f"not ok {name} {text}")
    if not wrong:
        print(f"ok {name}")
    return 1 if wrong else 0
