# SPDX-License-Identifier: BSD-2-Clause
# Which expressions are not evaluated: those that assign.
"""effect(): what an expression would change, by its words; pure.

GDB itself forbids calls and writes to memory (settings.nothing_changes()), but not writes to registers, where a variable
of the kernel may well stand.
"""

from __future__ import annotations

import re

_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_EFFECTS = (
    (re.compile(r"\+\+"), "++ changes the guest"),
    (re.compile(r"--"), "-- changes the guest"),
    (re.compile(r":="), ":= changes the guest"),
)
_ASSIGNS = re.compile(r"<<=|>>=|(?<![=!<>:])=(?!=)"), "= changes the guest"
COMPARE = ("ada", "pascal", "modula-2")  # languages in which `=` and `/=` compare


def effect(expression: str, language: str = "c") -> str:
    """Why it is refused, "" if it is not."""
    text = _QUOTED.sub("0", expression)
    effects = _EFFECTS if language in COMPARE else (*_EFFECTS, _ASSIGNS)
    return next((why for pattern, why in effects if pattern.search(text)), "")
