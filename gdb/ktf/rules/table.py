# SPDX-License-Identifier: BSD-2-Clause
# The table of all rules, and one run of some of them over a database.
"""RULES: name -> Rule, in the contract's order. check(db, names) -> Report."""

from __future__ import annotations

from collections.abc import Iterable

from ktf.findings import Report, Rule
from ktf.kernel.database import Database
from ktf.rules import counts, cpu, frames, map, mappings, rights, slots, smp, tables, traps, types

_MODULES = (
    mappings,
    tables,
    slots,
    map,
    frames,
    counts,
    types,
    rights,
    cpu,
    smp,
    traps,
)
_ALL = [rule for module in _MODULES for rule in module.RULES]
_ORDER = (
    "P1 P2 P3 P4 P5 P6 P7 T1 T2 T3 T4 T5 T6 T7 A1 A2 A3 A4 A5 A6 M1 M2 X1 X2 X3 B1 C1 C2".split()
)
RULES: dict[str, Rule] = {name: next(r for r in _ALL if r.name == name) for name in _ORDER}


def check(db: Database, names: Iterable[str] = RULES) -> Report:
    """Applies these rules. What could not be read or followed is reported whatever rules are asked for."""
    wanted = set(names)
    decode(db)
    out = Report()
    for name, rule in RULES.items():
        if name in wanted:
            rule.check(db, out)
    # Rules may add to others than themselves; and what was found while decoding belongs to its rule.
    result = Report()
    for report in (db.found, out):
        for name in RULES:
            if name in wanted:
                result.take(report, name)
    for violation in db.found.blind:
        if violation.rule not in wanted:
            result.put(violation)
    return result


def decode(db: Database) -> None:
    """Decodes all parts, in the order in which they need each other."""
    db.tree, db.frames, db.rings, db.mappings, db.spaces, db.slots, db.reach, db.claims, db.regions
