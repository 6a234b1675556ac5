# SPDX-License-Identifier: BSD-2-Clause
# A walk to one address, level by level, as text and JSON.
"""step_values(), step_line(): one level; not_mapped(), limits(): what it comes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ktf.x86.paging import ADDRESS, PAGES, PS, U, W, X, perm_text
from ktf.x86.trace import Step, Trace


RIGHTS = (("w", W), ("x", X), ("u", U))


def step_values(step: Step) -> dict[str, Any]:
    return {
        "level": step.level,
        "table": f"{step.table:#x}",
        "index": step.index,
        "entry": f"{step.entry:#x}",
        "perm": perm_text(step.perm),
        "problem": step.problem or None,
    }


def step_line(step: Step) -> str:
    head = f"{step.level:>5} {step.table:#012x} {step.index:>5} {step.entry:#018x} "
    if step.problem:
        return f"{head} {step.problem}"
    target = (step.entry & ADDRESS) >> 12
    goal = f"{PAGES[step.level]} page" if step.leaf else f"table {target:#x}"
    return f"{head} {perm_text(step.perm)}  {goal}"


def not_mapped(found: Trace) -> str:
    step = found.steps[-1]
    if step.problem == "not a canonical address":
        return f"not mapped: {found.va:#x} is {step.problem}"
    large = " (PS)" if step.entry & PS and step.level > 1 else ""
    return (
        f"not mapped: the walk ends at level {step.level}, entry {step.index} of table "
        f"{step.table:#x} is {step.entry:#x}{large}: {step.problem}"
    )


def limits(found: Trace) -> Iterator[str]:
    """Which levels take away which rights."""
    words = {"w": "written", "x": "executed", "u": "reached by user code"}
    for name, bit in RIGHTS:
        levels = found.limits(bit)
        if levels:
            where = ", ".join(map(str, levels))
            yield f"can't be {words[name]}: level{'s' if len(levels) > 1 else ''} {where}"
