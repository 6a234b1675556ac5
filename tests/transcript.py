# SPDX-License-Identifier: BSD-2-Clause
"""Compares what a command printed with what a document says, where numbers of another build may differ. No I/O here.

    comparison = Comparison([r"(\\d+) entries"])     # what may vary besides the numbers that always may
    comparison.compare(expected_lines, printed_lines)
    comparison.translate("ktf-frame --mfn 0x114")   # 0x114 as this guest has it

Words, their order, and the lines must be the same, blanks apart. Numbers are held against each other so:

- 0x numbers of 3 digits and more may differ, but one number of the document is one number of the guest all through
  a session, and the other way round. Both are 0x multiples of 4096 or neither is; the upper 16 of 64 bits agree.
  Smaller ones may differ, but for 0x0, which is only itself.
- Decimal numbers and sizes agree, except where VARIES or the document's own patterns say that they vary: these are
  regular expressions whose groups vary. A 0 is only itself even there.
- A line `...` in the document stands for any number of lines, none included.
"""

from __future__ import annotations

import re
from typing import Sequence

# Groups vary from build to build: line numbers, counts of things, times, places in tables.
VARIES = (
    r"\bat [\w./-]+:(\d+)",  # source lines
    r"^(\d+)\t",
    r"\bfile [\w./-]+, line (\d+)",
    r"<[\w.]+\+(\d+)>|\b\w+ \+ (\d+)",  # offsets in functions
    r"\b(\d+) entries, (\d+) frames, (\d+) mappings",
    r"\b(\d+) ranges?, (\d+) pages?, (\d+[KMGT]?)",
    r"\b(\d+) tables?, (\d+) leaf entr",
    r"\b(\d+\.\d+) seconds",
    r"\bprocess (\d+)",
)
ZERO = "(?# 0 too)"  # at the end of a pattern whose groups may be 0 here and something else there
NUMBER = re.compile(r"\b0x[0-9a-f]+\b")
SHORT = 0x100


class Mismatch(Exception):
    """What was printed is not what the document says; the text says where."""


class Comparison:
    """The comparison of one session; remembers which number of the document is which of the guest."""

    def __init__(self, varies: Sequence[str] = ()) -> None:
        self.varies = [re.compile(p) for p in (*VARIES, *varies)]
        self.there: dict[int, int] = {}  # number of the document -> of the guest
        self.back: dict[int, int] = {}

    def compare(self, expected: Sequence[str], printed: Sequence[str]) -> None:
        """Mismatch that names the first line that differs."""
        want = [line for line in expected if line.strip()]
        have = [line for line in printed if line.strip()]
        at = 0
        for i, line in enumerate(want):
            if line.strip() == "...":
                at = self._resume(want[i + 1 :], have, at)
                continue
            if at == len(have):
                raise Mismatch(f"the line {line.strip()!r} is not printed")
            self._line(line, have[at])
            at += 1
        if at < len(have):
            raise Mismatch(f"more is printed: {have[at].strip()!r}")

    def _resume(self, rest: Sequence[str], have: Sequence[str], at: int) -> int:
        """Where what follows a `...` begins: as many lines before the end, or before the next `...`, as there are."""
        count = next((i for i, line in enumerate(rest) if line.strip() == "..."), len(rest))
        if count == len(rest):
            return max(at, len(have) - count)
        for start in range(at, len(have)):
            if self._shape(rest[0]) == self._shape(have[start]):
                return start
        raise Mismatch(f"no line like {rest[0].strip()!r} is printed")

    def translate(self, command: str) -> str:
        """A command with the numbers that were printed before as this guest printed them."""

        def number(match: re.Match[str]) -> str:
            value = int(match[0], 16)
            return hex(self.there.get(value, value))

        return NUMBER.sub(number, command)

    def _line(self, expected: str, printed: str) -> None:
        if self._shape(expected) != self._shape(printed):
            raise Mismatch(f"{printed.strip()!r} is printed, the document has {expected.strip()!r}")
        pairs = zip(NUMBER.findall(self._varied(expected)), NUMBER.findall(self._varied(printed)))
        for a, b in pairs:
            self._number(a, b, printed)

    def _varied(self, line: str) -> str:
        """A line without what a pattern says."""
        for pattern in self.varies:
            line = pattern.sub(_vary, line)
        return line

    def _shape(self, line: str) -> str:
        """A line without what may vary in it."""
        line = self._varied(line)
        line = NUMBER.sub(lambda m: "0x0" if int(m[0], 16) == 0 else "0x#", line)
        return " ".join(line.split())

    def _number(self, expected: str, printed: str, line: str) -> None:
        """A 0x number against the one in its place."""
        a, b = int(expected, 16), int(printed, 16)
        why = ""
        if a >= SHORT and self.there.setdefault(a, b) != b:
            why = f"was {self.there[a]:#x} before"
        elif b >= SHORT and a >= SHORT and self.back.setdefault(b, a) != a:
            why = f"stands for {self.back[b]:#x} as well"
        elif a >> 48 != b >> 48 or (a % 4096 == 0) != (b % 4096 == 0):
            why = "is another kind of number"
        elif len(expected) == 18 and a >> 48 in (0, 0x8000) and (a ^ b) & 0xFFF & ~0x60:
            why = "has other flags"
        if why:
            raise Mismatch(f"{printed} in {line.strip()!r} {why}; the document has {expected}")


def _vary(match: re.Match[str]) -> str:
    """The match with each of its groups replaced by #; a 0 stays."""
    text, base = match[0], match.start()
    spans = [match.span(i) for i in range(1, (match.re.groups or 0) + 1) if match[i] is not None]
    for first, last in sorted(spans, reverse=True):
        if text[first - base : last - base] != "0" or match.re.pattern.endswith(ZERO):
            text = text[: first - base] + "#" + text[last - base :]
    return text
