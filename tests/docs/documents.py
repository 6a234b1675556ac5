# SPDX-License-Identifier: BSD-2-Clause
"""The documents as tests read them: the sessions with GDB, and whatever only looks like one. No I/O but reading.

docs/gdb.md says in its head how a session is written. What would not be run, or is not understood, is a problem. The
examples of the help texts are read as one more document, HELP.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Iterator, Sequence

from qemu import ROOT
from transcript import FREELY

GDB = "docs/gdb.md"
DOCS = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md")))
PROMPT = "(gdb) "
KEYWORD = re.compile(r"<!-- (\w[\w ]*): ?(.*?) *-->")
WORD = re.compile(r'(\w+)=("[^"]*"|\S+)')


@dataclass
class Command:
    """A command in a document, and the lines that it prints there: lines [first, last) of the file."""

    text: str
    first: int
    last: int
    real: str = ""  # with the numbers of the guest that it was run on


@dataclass
class Session:
    """The commands for one guest, in the order of the document."""

    name: str
    config: dict[str, str]
    varies: list[str]  # the patterns of its section
    commands: list[Command] = field(default_factory=list)


class Document:
    """A document: sessions begin at their comment, commands stand in fenced blocks behind a prompt."""

    def __init__(
        self, name: str, lines: Sequence[str] | None = None, common: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.lines = (ROOT / name).read_text().splitlines() if lines is None else list(lines)
        self.sessions: list[Session] = []
        self.problems: list[str] = []
        self.patterns: list[tuple[int, str]] = []  # where they stand
        self.common = list(common)  # patterns for all sections
        self.varies = self.common  # patterns for the section
        self.session: Session | None = None
        self.fence: str | None = None
        self.command: Command | None = None
        comment = False
        for number, line in enumerate(self.lines, 1):
            if comment:
                comment = "-->" not in line
            elif self.fence is None and line.startswith("<!--") and "-->" not in line:
                comment = True
            elif re.match(r"\s*```", line):
                self._fence(number, line)
            elif re.match(r"\s*\(gdb\)", line):
                self._prompt(number, line)
            elif self.fence is not None:
                self._printed(number)
            else:
                self._text(number, line)
        if comment or self.fence is not None:
            self._problem(len(self.lines), "a comment or a fenced block has no end")
        self._unused()

    def printed(self, command: Command) -> list[str]:
        """What the document says that a command prints."""
        return self.lines[command.first : command.last]

    def commands(self) -> Iterator[Command]:
        """All of all sessions."""
        for session in self.sessions:
            yield from session.commands

    def _problem(self, number: int, text: str) -> None:
        self.problems.append(f"{self.name}:{number}: {text}")

    def _fence(self, number: int, line: str) -> None:
        if not line.startswith("```"):
            self._problem(number, "a fenced block must not be indented")
        word = line.strip().removeprefix("```")
        if self.fence is not None and word:
            self._problem(number, "a fenced block begins in another one")
        self.fence = word if self.fence is None else None
        self.command = None

    def _prompt(self, number: int, line: str) -> None:
        if self.fence != "" or not line.startswith(PROMPT) or self.session is None:
            self._problem(
                number, "would not be run: not in a ``` block of a session of this section"
            )
            return
        self.command = Command(line.removeprefix(PROMPT), number, number)
        self.session.commands.append(self.command)

    def _printed(self, number: int) -> None:
        if self.command is not None:
            self.command.last = number

    def _text(self, number: int, line: str) -> None:
        if line.startswith("## "):
            self.varies, self.session = list(self.common), None
        match = KEYWORD.match(line)
        if not match:
            return
        word, rest = match[1], match[2]
        if word == "session":
            if WORD.sub("", rest).strip():
                self._problem(number, f"no KEY=VALUE: {rest}")
            config = {key: value.strip('"') for key, value in WORD.findall(rest)}
            self.session = Session(f"{self.name}:{number}", config, self.varies)
            self.sessions.append(self.session)
        elif word in ("varies", "varies freely"):
            if not re.compile(rest).groups:
                self._problem(number, "no group, so nothing varies")
            self.patterns.append((number, rest))
            self.varies.append(rest + (FREELY if word == "varies freely" else ""))
        elif word != "from":
            self._problem(number, f"what is `{word}:`?")

    def _unused(self) -> None:
        for session in self.sessions:
            if not session.commands:
                self.problems.append(f"{session.name}: a session without a command")
        text = [line for c in self.commands() for line in self.printed(c)]
        for number, pattern in self.patterns:
            if not any(re.search(pattern, line) for line in text):
                self._problem(number, "nothing is printed to which this applies")


# --- help texts -----------------------------------------------------------------------------------------

# On which guest each example is run; @NAME stands for that of NAME, and what else is done there is not shown.
HELP = r"""
<!-- varies freely: ^\$(\d+) = -->
<!-- varies freely: ^Breakpoint (\d+) at -->
<!-- session: -->
@ktf-maps
<!-- session: same=1 anew=1 -->
@ktf-frame
<!-- session: same=1 anew=1 -->
@ktf-acpi
<!-- session: same=1 anew=1 -->
@ktf_frame
<!-- session: same=1 anew=1 -->
@ktf_paddr
<!-- session: same=1 anew=1 -->
@ktf_maps_of
<!-- session: same=1 anew=1 -->
@ktf_ok
<!-- session: same=1 anew=1 -->
@ktf-core
<!-- session: same=1 anew=1 -->
@ReaderParameter
<!-- session: cmdline="plant=P4" stop=reset -->
```
(gdb) hbreak plant_bug
...
(gdb) continue
...
```
@ktf-snapshot
<!-- session: same=1 anew=1 -->
@ktf-check-at
<!-- session: same=1 anew=1 -->
@ktf-diff
<!-- session: same=1 anew=1 -->
@ktf-pt-check
<!-- session: same=1 anew=1 -->
@ktf-journal
<!-- session: cmdline="crash=null-call" stop=panic -->
@ktf-postmortem
"""


def help_texts() -> dict[str, str]:
    """Each docstring of gdb/ktf with a prompt in it, by the name of the command or function, or of its class."""
    found = {}
    for source in sorted((ROOT / "gdb/ktf").rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ClassDef) and PROMPT in (text := ast.get_docstring(node) or ""):
                names = [
                    n.value.value
                    for n in node.body
                    if isinstance(n, ast.Assign)
                    and ast.unparse(n.targets[0]) == "name"
                    and isinstance(n.value, ast.Constant)
                ]
                found[str((names or [node.name])[0])] = text
    return found


def help_document() -> Document:
    """The examples as sessions."""
    examples = {}
    for name, text in help_texts().items():
        lines = text.splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith("  " + PROMPT))
        rest = lines[first:]
        count = rest.index("") if "" in rest else len(rest)
        example = "\n".join(line.removeprefix("  ") for line in rest[:count])
        examples[name] = example.replace("build/crash.core", "DIR/crash.core")
    lines = []
    for line in HELP.splitlines():
        if line.startswith("@"):
            line = f"```\n{examples.pop(line[1:], 'no such help')}\n```"
        lines += line.splitlines()
    varies = dict.fromkeys(p for s in Document(GDB).sessions for p in s.varies)
    document = Document("HELP", lines, list(varies))
    document.problems += [f"the example of {name} is not run" for name in examples]
    return document
