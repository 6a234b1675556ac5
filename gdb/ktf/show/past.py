# SPDX-License-Identifier: BSD-2-Clause
# What frames and journal tell of a frame's past, in words.
"""Past(session, context): who mapped, put, took a frame; what it is now. What could not be read is None."""

from __future__ import annotations

import numpy as np

from ktf.kernel import journal
from ktf.kernel.context import Context
from ktf.kernel.database import Database
from ktf.kernel.session import Session
from ktf.memory.readers import PAGE


class Past:
    """db and journal are None until somebody has read them."""

    def __init__(self, session: Session, context: Context) -> None:
        self.session = session
        self.context = context
        self.db: Database | None = None
        self.journal: journal.Journal | None = None

    def _journal_of(self, mfn: int) -> journal.Journal | None:
        return None if self.journal is None else self.journal.of_frame(mfn)

    def _tell(self, row: np.void) -> str:
        assert self.journal is not None
        return journal.describe(row, self.journal, self.context.source)

    def _last(self, found: journal.Journal | None, names: tuple[str, ...]) -> str:
        """The last event of one of these kinds, in words."""
        if found is None:
            return ""
        rows = [r for r in found.rows if found.op_names[int(r["op"])] in names]
        return self._tell(rows[-1]) if rows else ""

    def since(self, row: np.void, va: int) -> str:
        """What became of the page that was mapped at va."""
        assert self.journal is not None
        mfn = int(row["mfn"])
        if int(row["pages"]) > 1 and row["va"]:
            mfn += (va - int(row["va"])) // PAGE
        return f"frame {mfn:#x}, {self.now(mfn, int(row['number']))}"

    def now(self, mfn: int, number: int) -> str:
        """How a frame is used now, and by whom since that event."""
        if self.db is None:
            return "of which nothing more is known"
        index = int(self.db.frames.find(np.array([mfn]))[0])
        if not index:
            return "in no frame now"
        frames = self.db.frames
        if int(frames.kind[index]) == self.db.kinds["FRAME_TABLE"]:
            return f"since reused as level {int(frames.level[index])} table"
        if frames.is_free[index]:
            return "free now"
        taken = self._journal_of(mfn)
        if taken is not None:
            got = taken.since(number + 1)
            rows = [r for r in got.rows if got.op_names[int(r["op"])] == "get"]
            if rows:
                return f"since handed out to {journal.caller(rows[-1], self.context.source)}"
        kind = self.db.kind_name(int(frames.kind[index]))
        return f"{kind}, still in use" if kind != "available" else "still owned"

    def history(self, mfn: int) -> str:
        """A frame that should be something else: what it is now, and its last events."""
        line = self.db.frame_line(mfn) if self.db is not None else f"frame {mfn:#x}"
        past = self._last(self._journal_of(mfn), ("space_destroy", "put", "get"))
        gone = self._last(self._journal_of(mfn), ("space_destroy",))
        return f"{line}; {gone or past}" if past else line
