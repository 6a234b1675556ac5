# SPDX-License-Identifier: BSD-2-Clause
# Exceptions of the processor: their names, error codes in words, what follows when one can't be delivered.
"""Fault: an exception with what is known of it (SDM vol. 3, chapter 6); pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DE, DB, NMI, BP, UD, DF, TS, NP, SS, GP, PF, MC = 0, 1, 2, 3, 6, 8, 10, 11, 12, 13, 14, 18
NAMES = {
    DE: "#DE",
    DB: "#DB",
    NMI: "NMI",
    BP: "#BP",
    4: "#OF",
    5: "#BR",
    UD: "#UD",
    7: "#NM",
    DF: "#DF",
    TS: "#TS",
    NP: "#NP",
    SS: "#SS",
    GP: "#GP",
    PF: "#PF",
    16: "#MF",
    17: "#AC",
    MC: "#MC",
    19: "#XM",
    20: "#VE",
    21: "#CP",
}
WITH_ERROR = frozenset({DF, TS, NP, SS, GP, PF, 17, 21, 29, 30})
CONTRIBUTORY = frozenset({DE, TS, NP, SS, GP})
EXCEPTIONS = 32  # vectors; from here on interrupts
PRESENT, WRITE, USER, RESERVED, FETCH = 1, 2, 4, 8, 16  # error code of a #PF


def name(vector: int) -> str:
    """ "#PF"; "interrupt 0xf0" for an interrupt."""
    return NAMES.get(
        vector, f"interrupt {vector:#x}" if vector >= EXCEPTIONS else f"exception {vector}"
    )


def event(vectors: list[int]) -> str:
    """Which of these came, as far as is known: " while an NMI was delivered"; "" for none."""
    if not vectors:
        return ""
    known = [("an NMI" if v == NMI else name(v)) for v in vectors]
    which = known[0] if len(known) == 1 else "an exception or interrupt"
    return f" while {which} was delivered"


@dataclass(frozen=True)
class Fault:
    """vector, its error code (0 where there is none), CR2 of a page fault. why: in words, where no address tells it."""

    vector: int
    error: int = 0
    address: int | None = None
    why: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """ "#PF"."""
        return name(self.vector)

    @property
    def access(self) -> str:
        """What a page fault was doing."""
        if self.error & FETCH:
            return "executing"
        return "writing" if self.error & WRITE else "reading"

    def fetches(self, va: int) -> bool:
        """True if it is that of fetching code there."""
        return self.vector == PF and bool(self.error & FETCH) and self.address == va

    def text(self) -> str:
        """In words, with the error code."""
        if self.vector == PF and self.address is not None:
            why = "not permitted" if self.error & PRESENT else "not present"
            if self.error & RESERVED:
                why = "reserved bit"
            mode = "user" if self.error & USER else "kernel"
            return (
                f"#PF {self.access} {self.address:#x} ({why}, {mode} mode, error {self.error:#x})"
            )
        return self.name + (f" (error {self.error:#x})" if self.vector in WITH_ERROR else "")

    def json(self) -> dict[str, Any]:
        """The contract's object."""
        address = None if self.address is None else f"{self.address:#x}"
        return {"vector": self.vector, "name": self.name, "error": self.error, "address": address}


def doubles(first: int, second: int) -> bool:
    """True if `second`, met while `first` is delivered, makes a double fault (SDM vol. 3, table 6-5)."""
    if first == PF:
        return second == PF or second in CONTRIBUTORY
    return first in CONTRIBUTORY and second in CONTRIBUTORY
