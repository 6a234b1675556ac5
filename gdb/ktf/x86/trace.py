# SPDX-License-Identifier: BSD-2-Clause
# The walk of one address through the page tables, step by step, and of many at once to physical ones.
"""trace(reader, root_mfn, rules, va) -> Trace; translate(reader, root_mfn, rules, vas) -> (pas, ok)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ktf.memory.readers import Reader
from ktf.x86.paging import ADDRESS, ALL, P, PS, Rules, entry_perm, level_shift


def translate(
    reader: Reader, root: int, rules: Rules, vas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Physical address of each virtual one, and True where it has one."""
    vas = np.asarray(vas, np.uint64)
    mfn = np.full(len(vas), root, np.uint64)
    pa = np.zeros(len(vas), np.uint64)
    ok = np.zeros(len(vas), bool)
    left = np.arange(len(vas))
    for level in range(rules.levels, 0, -1):
        if not len(left):
            break
        tables, inverse = np.unique(mfn[left], return_inverse=True)
        pages, readable = reader.read_pages(tables)
        index = (vas[left] >> np.uint64(level_shift(level))) & np.uint64(511)
        entry = pages[inverse, index.astype(np.int64)]
        good = readable[inverse] & ((entry & np.uint64(P)) != 0)
        left, entry = left[good], entry[good]
        leaf = (entry & np.uint64(PS)) != 0 if level in (2, 3) else np.full(len(left), level == 1)
        size = np.uint64(1 << level_shift(level))
        at = left[leaf]
        inside = vas[at] & (size - np.uint64(1))
        pa[at] = (entry[leaf] & np.uint64(ADDRESS) & ~(size - np.uint64(1))) | inside
        ok[at] = True
        left, entry = left[~leaf], entry[~leaf]
        mfn[left] = (entry & np.uint64(ADDRESS)) >> np.uint64(12)
    return pa, ok


@dataclass(frozen=True)
class Step:
    """One level of the walk of one address. perm: of this entry alone; problem: "" or why it ends here."""

    level: int
    table: int
    index: int
    entry: int
    perm: int
    leaf: bool
    problem: str = ""


@dataclass
class Trace:
    """The walk of one address: its steps, and pa if it ends at a page."""

    va: int
    steps: list[Step]
    pa: int | None = None

    @property
    def perm(self) -> int:
        """What all levels together allow."""
        perm = ALL
        for step in self.steps:
            perm &= step.perm
        return perm

    @property
    def problem(self) -> str:
        """Why it maps nothing; "" if it does."""
        return next((s.problem for s in self.steps if s.problem), "")

    def limits(self, bit: int) -> list[int]:
        """The levels that take away the permission W, U or X."""
        return [s.level for s in self.steps if not s.perm & bit]


def trace(reader: Reader, root: int, rules: Rules, va: int) -> Trace:
    """Walks one address from the root table, as far as it goes."""
    result = Trace(va, [])
    if not rules.is_canonical(va):
        step = Step(rules.levels, root, 0, 0, 0, False, "not a canonical address")
        result.steps.append(step)
        return result
    table = root
    for level in range(rules.levels, 0, -1):
        index = va >> level_shift(level) & 511
        pages, ok = reader.read_pages(np.array([table], np.uint64))
        entry = int(pages[0, index])
        leaf = level == 1 or (level <= 3 and bool(entry & PS))
        problem = _problem(rules, level, entry, leaf)
        if not ok[0]:
            problem, entry = f"table {table:#x} is not in the guest's RAM", 0
        perm = int(entry_perm(np.array([entry], np.uint64), rules.nxe)[0])
        result.steps.append(Step(level, table, index, entry, perm, leaf, problem))
        if problem:
            break
        if leaf:
            low = (1 << level_shift(level)) - 1
            result.pa = (entry & ADDRESS & ~low) | (va & low)
            break
        table = (entry & ADDRESS) >> 12
    return result


def _problem(rules: Rules, level: int, entry: int, leaf: bool) -> str:
    """Why the CPU would stop at this entry, "" if it would not."""
    if not entry & P:
        return "not present"
    if entry & rules.reserved(level, leaf):
        return f"reserved bits {entry & rules.reserved(level, leaf):#x} are set"
    if entry & PS and (level > 3 or (level == 3 and not rules.page_1g)):
        return f"PS is set, but level {level} has no pages"
    if leaf and level > 1 and entry & rules.low_bits(level):
        return "the large page is not aligned"
    return ""
