# SPDX-License-Identifier: BSD-2-Clause
"""Compares what a command printed with what a document says, where numbers of another build may differ. No I/O here.

    comparison = Comparison([r"(\\d+) entries"])     # what may vary besides the numbers that always may
    comparison.compare(expected_lines, printed_lines)
    comparison.translate("ktf-frame --mfn 0x114")   # 0x114 as this guest has it

Words, their order, and the lines must be the same, blanks apart. So must numbers, but for two sorts that differ from
build to build; and all through a session, one of them in the document is one of the guest, and the other way round:

- 0x numbers of 3 digits and more. Both are multiples of 4096 or neither is; the upper 16 of 64 bits agree, and so do
  an entry's flags.
- What VARIES or a pattern of the document's own says: the groups of these regular expressions, wherever the same words
  stand around them. "free is 1, but 0 are counted" may be "free is 5, but 4 are counted", never "free is 5, but 5 are
  counted"; nor may a line further on have another number in the 5's place. What is counted is at most twice as much as
  in the document and at least half (so a 0 is a 0), unless the pattern varies freely, as the numbers of lines do. A
  group named `time` or `any` is any number at all.

A line `...` in the document stands for any number of lines, none included.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

FREELY = "(?# freely)"  # at the end of a pattern whose groups may be of any size
VARIES = (
    rf"\bat [\w./-]+:(\d+){FREELY}",  # source lines
    rf"^(\d+)\t{FREELY}",
    rf"\bfile [\w./-]+, line (\d+){FREELY}",
    rf"<[\w.]+\+(\d+)>|\b\w+ \+ (\d+){FREELY}",  # offsets in functions
    r"\b(\d+) entries, (\d+) frames, (\d+) mappings",
    r"\b(\d+) ranges?, (\d+) pages?, (\d+[KMGT]?)",
    r"0x[0-9a-f]+-0x[0-9a-f]+ +(\d+[KMGT]?)",
    r"\b(\d+) tables?, (\d+) leaf entr",
    r", ([\d,]+) events? ago",
    r"\b(?P<time>\d+\.\d+) seconds",
    # where something stands: in a page table, in the memory map, among the descriptors
    rf"^ +\d 0x[0-9a-f]+ +(\d+) 0x{FREELY}",
    rf"\bin 0x[0-9a-f]+\[(\d+)\]{FREELY}",
    rf"\bslot (\d+){FREELY}",
    rf"region (\d+), \w+, mfn (0x[0-9a-f]+) to (0x[0-9a-f]+){FREELY}",
    rf"\bdescriptor +(0x[0-9a-f]+) \(index (0x[0-9a-f]+)\), ring (0x[0-9a-f]+) < > (0x[0-9a-f]+){FREELY}",
    rf"\bframe 0x[0-9a-f]+ order (\d+), (?:text|rodata|data|bss),{FREELY}",
    rf"last unmapped in epoch (\d+){FREELY}",
)
NUMBER = re.compile(r"\b0x[0-9a-f]+\b")
# Arguments of an inlined function, whose order is each compiler's own.
LOST = re.compile(r"(?<=\()\w+=<optimized out>(?:, \w+=<optimized out>)+(?=\))")
SHORT = 0x100
UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


class Mismatch(Exception):
    """What was printed is not what the document says; the text says where."""


class Taken(NamedTuple):
    """A number that a pattern took from a line."""

    words: str  # the match without its numbers
    number: str
    counts: bool  # whether half or twice as much is the limit


class Comparison:
    """The comparison of one session; remembers which number of the document is which of the guest."""

    def __init__(self, varies: Sequence[str] = ()) -> None:
        self.use(varies)
        self.there: dict[tuple[str, str], str] = {}  # words, number of the document -> of the guest
        self.back: dict[tuple[str, str], str] = {}

    def use(self, varies: Sequence[str]) -> None:
        """Other patterns from here on; the numbers stay."""
        self.varies = [re.compile(p) for p in (*VARIES, *varies)]

    def compare(self, expected: Sequence[str], printed: Sequence[str]) -> None:
        """Mismatch that names the first line that differs."""
        for line, found in self.align(expected, printed):
            if found is not None:
                self._line(line, found)

    def align(
        self, expected: Sequence[str], printed: Sequence[str]
    ) -> list[tuple[str, str | None]]:
        """Each line of the document with the one that is printed for it, None for a `...`; Mismatch if there are more or less."""
        want = [line for line in expected if line.strip()]
        have = [line for line in printed if line.strip()]
        pairs: list[tuple[str, str | None]] = []
        at = 0
        for i, line in enumerate(want):
            if line.strip() == "...":
                at = self._resume(want[i + 1 :], have, at)
                pairs.append((line, None))
                continue
            if at == len(have):
                raise Mismatch(f"the line {line.strip()!r} is not printed")
            pairs.append((line, have[at]))
            at += 1
        if at < len(have):
            raise Mismatch(f"more is printed: {have[at].strip()!r}")
        return pairs

    def _resume(self, rest: Sequence[str], have: Sequence[str], at: int) -> int:
        """Where what follows a `...` begins: as many lines before the end as there are; before another `...` the first like them."""
        count = next((i for i, line in enumerate(rest) if line.strip() == "..."), len(rest))
        if count == len(rest):
            return max(at, len(have) - count)
        wanted = [self._shape(line) for line in rest[:count]]
        shapes = [self._shape(line) for line in have]
        # Where not all are, the first alone: then it is said which of them differs.
        for lines in (wanted, wanted[:1]):
            for start in range(at, len(have)):
                if shapes[start : start + len(lines)] == lines:
                    return start
        raise Mismatch(f"no line like {rest[0].strip()!r} is printed")

    def translate(self, command: str) -> str:
        """A command with the numbers that were printed before as this guest printed them."""

        def number(match: re.Match[str]) -> str:
            return self.there.get(("", hex(int(match[0], 16))), match[0])

        return NUMBER.sub(number, command)

    def _line(self, expected: str, printed: str) -> None:
        if self._shape(expected) != self._shape(printed):
            raise Mismatch(f"{printed.strip()!r} is printed, the document has {expected.strip()!r}")
        wanted, found = self._taken(expected), self._taken(printed)
        for a, b in zip(wanted[1], found[1]):
            why = self._pair(a.words, a.number, b.number)
            if not why and a.counts and not 0.5 <= _amount(b.number) / _amount(a.number) <= 2:
                why = "is too far off"
            self._judge(b.number, a.number, printed, why or "differs" * (a.words != b.words))
        for one, other in zip(NUMBER.findall(wanted[0]), NUMBER.findall(found[0])):
            self._judge(other, one, printed, self._number(one, other))

    def _judge(self, number: str, expected: str, line: str, why: str) -> None:
        if why:
            raise Mismatch(f"{number} in {line.strip()!r} {why}; the document has {expected}")

    def _taken(self, line: str) -> tuple[str, list[Taken]]:
        """A line without what a pattern says, and what was taken from it."""
        taken: list[Taken] = []
        for pattern in self.varies:
            line = pattern.sub(lambda match: _take(match, taken), line)
        return line, taken

    def _shape(self, line: str) -> str:
        """A line without what may vary in it."""
        line = self._taken(line)[0]
        line = LOST.sub(lambda m: ", ".join(sorted(m[0].split(", "))), line)
        line = NUMBER.sub(lambda m: "0x#" if int(m[0], 16) >= SHORT else m[0], line)
        return " ".join(line.split())

    def _pair(self, words: str, a: str, b: str) -> str:
        """Why these can't be the same number, "" if they can."""
        if self.there.setdefault((words, a), b) != b:
            return f"was {self.there[words, a]} before"
        if self.back.setdefault((words, b), a) != a:
            return f"stands for {self.back[words, b]} as well"
        return ""

    def _number(self, expected: str, printed: str) -> str:
        """Why a 0x number can't be the one in its place."""
        a, b = int(expected, 16), int(printed, 16)
        if a < SHORT:
            return ""
        why = self._pair("", hex(a), hex(b))
        # A page's address stays one; another one may be a page's by chance.
        if not why and (a >> 48 != b >> 48 or a % 4096 == 0 and b % 4096 != 0):
            why = "is another kind of number"
        if not why and len(expected) == 18 and a >> 48 in (0, 0x8000) and (a ^ b) & 0xFFF & ~0x60:
            why = "has other flags"
        return why


def _take(match: re.Match[str], taken: list[Taken]) -> str:
    """The match with each of its groups replaced by #, which are put on the list; a 0 that counts stays."""
    counts = not match.re.pattern.endswith(FREELY)
    text, base, found = match[0], match.start(), []
    for i in range(match.re.groups, 0, -1):
        number = match[i]
        if number is None or counts and number == "0":
            continue
        text = text[: match.start(i) - base] + "#" + text[match.end(i) - base :]
        if i not in (match.re.groupindex.get(name) for name in ("time", "any")):
            found.append(number)
    words = " ".join(NUMBER.sub("0x#", text).split())
    taken += [Taken(words, number, counts and "0x" not in number) for number in found]
    return text


def _amount(text: str) -> float:
    """A number with its unit."""
    unit = UNITS.get(text[-1], 0)
    digits = text[:-1] if unit else text
    return float(digits.replace(",", "")) * (1 << unit)
