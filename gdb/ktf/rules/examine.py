# SPDX-License-Identifier: BSD-2-Clause
# One judgement of the guest at this stop, as every command makes it.
"""examine(session, names): the report, and what was looked at."""

from __future__ import annotations

from collections.abc import Sequence

from ktf.findings import Report
from ktf.kernel.database import Database, need_live, overwritten
from ktf.kernel.session import Session
from ktf.rules.smp import COVERED, held
from ktf.rules.table import check


def examine(session: Session, names: Sequence[str]) -> tuple[Report, dict[str, int]]:
    """The violations of these rules, and what was looked at. What held locks cover is set apart."""
    broken = overwritten(session)
    if broken:
        report = Report()
        report.add_blind("A3", broken)
        return report, dict.fromkeys(("entries", "leaves", "frames", "mappings", "spaces"), 0)
    db = Database(session)
    need_live(db)
    report = check(db, names)
    report.held = held(db, report)
    report.unsettled = report.without(rule for h in report.held for rule in COVERED[h.lock])
    return report, {
        "entries": db.reach.entries,
        "leaves": len(db.reach.all_leaves),
        "frames": len(db.frames.heads),
        "mappings": len(db.mappings),
        "spaces": len(db.spaces.rows),
    }
