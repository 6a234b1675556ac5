# SPDX-License-Identifier: BSD-2-Clause
# What is wrong with the guest: violations of rules, each kept up to a bound, all of them counted.
"""Violation and Report.

    report.add("A3", "the list ends outside its pool", mfn=0x100)
    report.each("P2", bad, lambda i: Violation("P2", f"leaf {i} ..."))     # bad: index array

A report never holds more than KEEP violations of one rule as objects, however much is broken: a
guest full of random bytes must not cost more than a second of printing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Callable, Iterable

import numpy as np

KEEP = 500  # of one rule


@dataclass(frozen=True)
class Violation:
    """One broken rule at one place. What does not apply is None."""

    rule: str
    message: str
    space: str | None = None
    va: int | None = None
    level: int | None = None
    entry: int | None = None
    mfn: int | None = None

    def json(self) -> dict[str, object]:
        """The contract's object: addresses and frame numbers as hexadecimal strings."""
        out = asdict(self)
        for key in ("va", "entry", "mfn"):
            out[key] = None if out[key] is None else f"{out[key]:#x}"
        return {k: out[k] for k in ("rule", "space", "va", "level", "entry", "mfn", "message")}

    def place(self) -> str:
        """Where: space, address, frame; as far as known."""
        parts = []
        if self.space is not None:
            parts.append(self.space)
        if self.va is not None:
            parts.append(f"va {self.va:#x}")
        if self.level is not None:
            parts.append(f"level {self.level}")
        if self.entry is not None:
            parts.append(f"entry {self.entry:#x}")
        if self.mfn is not None:
            parts.append(f"mfn {self.mfn:#x}")
        return " ".join(parts)

    def text(self) -> str:
        """One line."""
        place = self.place()
        return f"{self.rule}: {place}: {self.message}" if place else f"{self.rule}: {self.message}"


@dataclass(frozen=True)
class Rule:
    """A rule: its name, its text (the contract's), and the function that adds what breaks it to a report."""

    name: str
    text: str
    check: Callable[[Any, "Report"], None]


class Report:
    """Violations by rule. blind: those that mean 'not everything could be looked at'."""

    def __init__(self) -> None:
        self.kept: dict[str, list[Violation]] = {}
        self.counts: Counter[str] = Counter()
        self.blind: list[Violation] = []
        self.held: list[Any] = []  # rules_smp.Held: locks that were held
        self.unsettled: Report | None = None  # what these locks cover

    def put(self, violation: Violation) -> None:
        """Adds one."""
        kept = self.kept.setdefault(violation.rule, [])
        if len(kept) < KEEP:
            kept.append(violation)
        self.counts[violation.rule] += 1

    def add(
        self,
        rule: str,
        message: str,
        *,
        space: str | None = None,
        va: int | None = None,
        level: int | None = None,
        entry: int | None = None,
        mfn: int | None = None,
    ) -> None:
        """Adds one from its parts."""
        self.put(Violation(rule, message, space, va, level, entry, mfn))

    def add_blind(self, rule: str, message: str, **place: int) -> None:
        """Adds one that takes sight from other rules: it is shown whatever rules are asked for."""
        self.add(rule, message, **place)  # type: ignore[arg-type]
        if len(self.blind) < KEEP:
            self.blind.append(self.kept[rule][-1])

    def each(self, rule: str, bad: np.ndarray, describe: Callable[[int], Violation]) -> None:
        """Adds one for each number in bad; only the first are put into words."""
        room = KEEP - len(self.kept.get(rule, []))
        for i in bad[: max(room, 0)].tolist():
            self.put(describe(i))
        self.counts[rule] += max(len(bad) - max(room, 0), 0)

    def take(self, other: Report, rule: str) -> None:
        """Adds another report's violations of one rule."""
        kept = other.kept.get(rule, [])
        for violation in kept:
            self.put(violation)
        self.counts[rule] += other.counts[rule] - len(kept)

    def without(self, rules: Iterable[str]) -> Report:
        """Takes the violations of these rules out, and returns them."""
        taken = Report()
        for rule in set(rules):
            if rule in self.counts:
                taken.kept[rule] = self.kept.pop(rule, [])
                taken.counts[rule] = self.counts.pop(rule)
        return taken

    def total(self) -> int:
        """All violations, kept or only counted."""
        return sum(self.counts.values())

    def all(self, rules: Iterable[str]) -> list[Violation]:
        """The kept ones, in the order of these rules."""
        return [v for rule in rules for v in self.kept.get(rule, [])]
