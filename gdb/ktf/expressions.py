# SPDX-License-Identifier: BSD-2-Clause
# Which expressions are not evaluated: those that would change something.
"""effect(): what an expression would do besides having a value; pure."""

from __future__ import annotations

import re

_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_EFFECTS = (
    (re.compile(r"\+\+"), "++ changes the guest"),
    (re.compile(r"--"), "-- changes the guest"),
    (re.compile(r"<<=|>>=|(?<![=!<>])=(?!=)"), "= changes the guest"),
)


def effect(expression: str) -> str:
    """Why it is refused, "" if it is not. Calls are left to GDB, which knows what is a function."""
    text = _QUOTED.sub("0", expression)
    return next((why for pattern, why in _EFFECTS if pattern.search(text)), "")
