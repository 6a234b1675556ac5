# SPDX-License-Identifier: BSD-2-Clause
# The walk over all page tables below a root: bounded, vectorised, level by level.
"""walk(reader, root_mfn, rules): every table and every leaf entry, sorted by address.

A table that can't be read, an entry that the CPU would refuse, a loop: each is a finding, and the
walk goes on with the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ktf.memory.readers import WORDS, Reader
from ktf.x86.paging import (
    ADDRESS,
    ALL,
    F_ALIGN,
    F_BOUND,
    F_LOOP,
    F_PS,
    F_RESERVED,
    F_UNREADABLE,
    LOOP,
    P,
    PS,
    READ,
    SKIPPED,
    UNREADABLE,
    Findings,
    Leaves,
    Rules,
    Tables,
    Walk,
    entry_perm,
    level_shift,
)

AHEAD = 1024  # tables of which the reader knows that they will be read
CHUNK = 64  # tables decoded at once: what is made of them stays in the processor's cache


@dataclass(frozen=True)
class Limits:
    """Where a walk ends although there is more: no guest's memory makes it run for ever."""

    tables: int = 65536
    leaves: int = 1 << 23
    seconds: float = 8.0


class _Walker:
    """One walk in progress; level by level, so that each level's tables are read together."""

    def __init__(
        self,
        reader: Reader,
        rules: Rules,
        limits: Limits,
        span: tuple[int, int],
        meet: Callable[[Leaves], None] | None,
    ) -> None:
        self.reader = reader
        self.rules = rules
        self.limits = limits
        self.low, self.high = span
        self.meet = meet
        self.until = time.monotonic() + limits.seconds
        self.table_rows: list[tuple[np.ndarray, ...]] = []
        self.leaf_rows: list[tuple[np.ndarray, ...]] = []
        self.finding_rows: list[tuple[np.ndarray, ...]] = []
        self.leaf_count = 0
        self.visits = 0
        self.notes: list[str] = []

    def run(self, root: int) -> Walk:
        """From the root down."""
        one = np.zeros(1, np.uint64)
        level = self.rules.levels
        rows: tuple[np.ndarray, ...] = (
            np.array([root], np.uint64),
            np.array([level], np.uint8),
            np.array([-1], np.int64),
            np.zeros(1, np.uint16),
            one,
            one,
            np.array([ALL], np.uint8),
            np.zeros(1, np.uint8),
        )
        ancestors: list[np.ndarray] = []
        base = 0
        while len(rows[0]):
            self._loops(rows, ancestors)
            self.table_rows.append(rows)
            below = self._level(level, base, rows)
            chain = [a[below[2] - base] for a in [*ancestors, rows[0]]]
            base += len(rows[0])
            ancestors, rows, level = chain, below, level - 1
        return self._result(root)

    def _loops(self, rows: tuple[np.ndarray, ...], above: list[np.ndarray]) -> None:
        """Marks the tables that are above themselves: they are not followed again."""
        mfn, state = rows[0], rows[7]
        for ancestor in above:
            state[mfn == ancestor] = LOOP
        self._refuse(rows, np.flatnonzero(state == LOOP), F_LOOP)

    @staticmethod
    def _order(rows: tuple[np.ndarray, ...]) -> np.ndarray:
        """The tables to read, each once before any a second time: shared ones must not push out others."""
        wanted = np.flatnonzero(rows[7] == READ)
        _, first = np.unique(rows[0][wanted], return_index=True)
        if len(first) == len(wanted):
            return wanted
        again = np.ones(len(wanted), bool)
        again[first] = False
        return np.concatenate([wanted[np.sort(first)], wanted[again]])

    def _skip(self, rows: tuple[np.ndarray, ...], which: np.ndarray, bound: str) -> None:
        """Leaves tables out, and says so."""
        rows[7][which] = SKIPPED
        self._refuse(rows, which, F_BOUND)
        level = int(rows[1][0])
        self.notes.append(
            f"the walk ended at its bound of {bound}: "
            f"{len(which)} references to level {level} tables were not followed"
        )

    def _refuse(self, rows: tuple[np.ndarray, ...], which: np.ndarray, kind: int) -> None:
        """Findings at the entries that point to these tables (a root has none: level above, row 0)."""
        if len(which):
            level = rows[1][which] + np.uint8(1)
            parent = np.maximum(rows[2][which], 0)
            self._find(kind, rows[4][which], level, parent, rows[5][which])

    def _find(
        self,
        kind: int,
        va: np.ndarray,
        level: np.ndarray,
        table: np.ndarray,
        entry: np.ndarray,
    ) -> None:
        if len(va):
            self.finding_rows.append((np.full(len(va), kind, np.uint8), va, level, table, entry))

    def _level(self, level: int, base: int, rows: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Reads the tables of one level; keeps their leaves, returns the tables below."""
        below = []
        order = self._order(rows)
        pending = start = 0
        while start < len(order):
            bound = self._bound(pending)
            if bound:
                self._skip(rows, order[start:], bound)
                break
            if start % AHEAD == 0:
                self.reader.expect(rows[0][order[start : start + AHEAD]])
            step = order[start : start + min(CHUNK, self.limits.tables - self.visits)]
            below.append(self._chunk(level, base, rows, step))
            pending += len(below[-1][0])
            start += len(step)
            self.visits += len(step)
        if not below:
            return tuple(a[:0] for a in rows)
        joined = tuple(np.concatenate(parts) for parts in zip(*below))
        if len(joined[4]) > 1 and (joined[4][1:] < joined[4][:-1]).any():
            by_va = np.argsort(joined[4], kind="stable")
            joined = tuple(c[by_va] for c in joined)
        return joined

    def _bound(self, pending: int) -> str:
        """The bound that was reached, "" if none was. pending: tables known to wait below this level."""
        if self.visits >= self.limits.tables or pending >= 4 * self.limits.tables:
            return f"{self.limits.tables} tables"
        if self.leaf_count >= self.limits.leaves:
            return f"{self.limits.leaves} leaf entries"
        if time.monotonic() > self.until:
            return f"{self.limits.seconds:g} seconds"
        return ""

    def _chunk(
        self, level: int, base: int, rows: tuple[np.ndarray, ...], which: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """The present entries of some tables: leaves and findings are kept, tables below returned."""
        pages, ok = self.reader.read_pages(rows[0][which])
        if not ok.all():
            rows[7][which[~ok]] = UNREADABLE
            self._refuse(rows, which[~ok], F_UNREADABLE)
        flat = pages.reshape(-1)
        present = (flat & np.uint64(P)).astype(bool)
        if not ok.all():
            present &= np.repeat(ok, WORDS)
        shift = level_shift(level)
        va = rows[4][which][:, None] + (np.arange(WORDS, dtype=np.uint64) << np.uint64(shift))
        va = va.reshape(-1)
        if self.low > 0 or self.high < 1 << self.rules.va_bits:
            last = va + np.uint64((1 << shift) - 1)
            present &= (last >= np.uint64(self.low)) & (va < np.uint64(self.high))
        at = np.flatnonzero(present)
        entry, va, row = flat[at], va[at], which[at >> 9]
        perm = rows[6][row] & entry_perm(entry, self.rules.nxe)
        large = (entry & np.uint64(PS)) != 0 if level > 1 else np.ones(len(at), bool)
        leaf = large if level <= 3 else np.zeros(len(at), bool)
        table = row + base
        self._judge(level, va, table, entry, large, leaf)
        if leaf.any():
            self._keep_leaves(level, va, entry, table, perm, leaf)
        if leaf.all():
            return tuple(a[:0] for a in rows)
        down = ~leaf
        count = int(down.sum())
        return (
            (entry[down] & np.uint64(ADDRESS)) >> np.uint64(12),
            np.full(count, level - 1, np.uint8),
            table[down],
            (at[down] & (WORDS - 1)).astype(np.uint16),
            va[down],
            entry[down],
            perm[down],
            np.zeros(count, np.uint8),
        )

    def _keep_leaves(
        self,
        level: int,
        va: np.ndarray,
        entry: np.ndarray,
        table: np.ndarray,
        perm: np.ndarray,
        leaf: np.ndarray,
    ) -> None:
        columns = [va, entry, np.full(len(va), level, np.uint8), table.astype(np.int32), perm]
        if not leaf.all():
            columns = [c[leaf] for c in columns]
        columns[0] = self.rules.canonical(columns[0])
        self.leaf_count += len(columns[0])
        if self.meet is None:
            self.leaf_rows.append(tuple(columns))
        else:
            self.meet(Leaves(*columns))

    def _judge(
        self,
        level: int,
        va: np.ndarray,
        table: np.ndarray,
        entry: np.ndarray,
        large: np.ndarray,
        leaf: np.ndarray,
    ) -> None:
        """Findings of entries that the CPU would refuse."""

        def report(kind: int, wrong: np.ndarray) -> None:
            if wrong.any():
                levels = np.full(int(wrong.sum()), level, np.uint8)
                self._find(kind, va[wrong], levels, table[wrong], entry[wrong])

        bits = self.rules.reserved(level, True)
        if bits:
            report(F_RESERVED, (entry & np.uint64(bits)) != 0)
        if level > 3 or (level == 3 and not self.rules.page_1g):
            report(F_PS, large)
        if level in (2, 3):
            low = np.uint64(self.rules.low_bits(level))
            report(F_ALIGN, leaf & ((entry & low) != 0))

    def _result(self, root: int) -> Walk:
        tables = Tables(*(np.concatenate(c) for c in zip(*self.table_rows)))
        tables.va = self.rules.canonical(tables.va)
        leaves = Leaves(*_join(self.leaf_rows, _NO_LEAVES))
        if len(self.leaf_rows) > 1 and (leaves.va[1:] < leaves.va[:-1]).any():
            leaves = leaves.take(np.argsort(leaves.va, kind="stable"))
        findings = Findings(*_join(self.finding_rows, _NO_FINDINGS))
        findings.va = self.rules.canonical(findings.va)
        return Walk(root, self.rules, tables, leaves, findings, self.leaf_count, self.notes)


_NO_LEAVES = tuple(np.zeros(0, t) for t in ("u8", "u8", "u1", "i4", "u1"))
_NO_FINDINGS = tuple(np.zeros(0, t) for t in ("u1", "u8", "u1", "i8", "u8"))


def _join(rows: list[tuple[np.ndarray, ...]], none: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    if not rows:
        return list(none)
    return [np.concatenate(c) if len(rows) > 1 else c[0] for c in zip(*rows)]


def walk(
    reader: Reader,
    root: int,
    rules: Rules,
    low: int = 0,
    high: int | None = None,
    limits: Limits = Limits(),
    meet: Callable[[Leaves], None] | None = None,
) -> Walk:
    """Every table and leaf below the root table with frame number root.

    low and high cut it to addresses [low, high), both linear: va & (2^va_bits - 1). With meet the leaves go to it, some
    thousand of one level at once, in no order, and are not kept.
    """
    span = (low, 1 << rules.va_bits if high is None else high)
    return _Walker(reader, rules, limits, span, meet).run(root)
