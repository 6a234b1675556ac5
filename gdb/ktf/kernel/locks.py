# SPDX-License-Identifier: BSD-2-Clause
# Who holds the manager's locks, and which CPUs are up, as struct mm says.
"""owner(), online_mask(); pure."""

from __future__ import annotations

import numpy as np

from ktf.kernel.database import Database


def owner(db: Database, lock: str) -> int:
    """Token of the CPU that holds it, 0 if nobody does."""
    return int(db.mm[lock]["owner"][0]) if lock in db.mm.layout.names else 0


def online_mask(db: Database) -> int:
    """A bit for each CPU that is up."""
    return sum(1 << i for i in np.flatnonzero(db.mm["cpu"]["online"][0] != 0).tolist())
