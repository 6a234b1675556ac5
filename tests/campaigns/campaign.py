# SPDX-License-Identifier: BSD-2-Clause
"""What the long runs that are targets of their own share: `make bitflip`, `make stops`."""

from __future__ import annotations

import argparse
import time


# Of random stops of the stress test 87 % meet a held lock. Were it 70 % on another machine: of 20 stops fewer than 4 do
# so once in two million runs.
HELD_AT_LEAST = 0.2


def too_few_held(stops: int, held: int) -> str:
    """Why these random stops say nothing of stops in the middle of an operation; "" if they do."""
    if held and held >= HELD_AT_LEAST * stops:
        return ""
    return f"only {held} of {stops} stops met a held lock: no operation was stopped half done"


def campaign_end(name: str, wrong: list[str], started: float, args: argparse.Namespace) -> int:
    """Prints the last lines of a run that began at that time.monotonic(): what went wrong, and how to repeat it.

    Its exit status. args: of the command line, all that the run depends on.
    """
    print(f"{time.monotonic() - started:.0f} s")
    for text in wrong[:20]:
        print(f"not ok {name} {text}")
    if wrong:
        words = " ".join(f"--{key}={value}" for key, value in vars(args).items())
        print(f"again: tests/python tests/campaigns/{name}.py {words}")
    else:
        print(f"ok {name}")
    return 1 if wrong else 0
