#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Holds the sessions of docs/*.md against real ones: each command is run in a real GDB on a real guest.

`tests/docs_test.py --write [--only=WORD]` puts what the commands print now into the documents, to be read before it is
committed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import unittest
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

from qemu import ROOT, Guest, free_port, gdb_command
from gdb_jobs import parse_guest, runs_on, wait_stop
from transcript import ZERO, Comparison, Mismatch

DOCS = ("docs/gdb.md", "docs/clients.md", "docs/postmortem.md", "README.md")
PROMPT = "(gdb) "
MARK = "@@docs@@"
SESSION = re.compile(r"<!-- session: *(.*?) *-->")
VARIES = re.compile(r"<!-- varies(, 0 too)?: (.*?) *-->")
EXCERPT = re.compile(r"<!-- from: (\S+) -->\n```c\n(.*?)```", re.S)
TIMEOUT = 60.0
ONLY = ""  # test the sessions with this word alone


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
    commands: list[Command] = field(default_factory=list)


class Document:
    """A document: sessions begin at their comment, commands stand in fenced blocks behind a prompt."""

    def __init__(self, name: str) -> None:
        self.path = ROOT / name
        self.lines = self.path.read_text().splitlines()
        self.sessions: list[Session] = []
        self.varies: list[str] = []
        fenced = False
        command: Command | None = None
        for number, line in enumerate(self.lines):
            if line.startswith("```"):
                fenced, command = not fenced, None
            elif fenced and line.startswith(PROMPT):
                command = Command(line.removeprefix(PROMPT), number + 1, number + 1)
                self.sessions[-1].commands.append(command)
            elif command is not None:
                command.last = number + 1
            elif match := SESSION.search(line):
                words = re.findall(r'(\w+)=("[^"]*"|\S+)', match[1])
                config = {key: value.strip('"') for key, value in words}
                self.sessions.append(Session(f"{name}:{number + 1}", config))
            elif match := VARIES.search(line):
                self.varies.append(match[2] + (ZERO if match[1] else ""))

    def printed(self, command: Command) -> list[str]:
        """What the document says that a command prints."""
        return self.lines[command.first : command.last]


class Gdb:
    """A GDB that is told one command after the other, on a guest of its own."""

    def __init__(self, guest: Guest, stop: str, symbols: bool) -> None:
        args = gdb_command(None if stop == "none" else guest.port, symbols=symbols)
        args += ["-ex", "set width 0", "-ex", "set height 0"]
        if stop == "ready":
            args += ["-ex", "hbreak ktf_ready", "-ex", "continue", "-ex", "delete"]
        args += ["-ex", f"set prompt {MARK}\\n"]
        self.guest = guest
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        self.timer = threading.Timer(TIMEOUT, self.process.kill)
        self.timer.start()
        self._lines()

    def _lines(self) -> list[str]:
        """What it prints up to its next prompt."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            if line.rstrip("\n").endswith(MARK):
                break
            lines.append(line.rstrip())
        return lines

    def run(self, command: str) -> list[str]:
        """The lines that a command prints; what is only this run's in words that all runs have in common."""
        guest, folder = self.guest, str(self.guest.dir)
        assert self.process.stdin is not None
        text = command.replace(":1234", f"127.0.0.1:{guest.port}").replace("DIR/", f"{folder}/")
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        common = {
            folder: "DIR",
            f"127.0.0.1:{guest.port}": ":1234",
            f"/proc/{guest.pid}/": "/proc/PID/",
            f"process {guest.pid}": "process PID",
            f"{ROOT}/": "",
        }
        lines = "\n".join(self._lines())
        for mine, word in common.items():
            lines = lines.replace(mine, word)
        return lines.strip("\n").splitlines()

    def close(self) -> None:
        """Ends GDB; the guest ends by itself."""
        self.timer.cancel()
        self.process.kill()
        self.process.communicate()


def talk(document: Document, session: Session) -> Iterator[tuple[Command, list[str], str]]:
    """Runs a session: each command, what it printed, and what is wrong with that ("" if nothing is)."""
    stop = session.config.get("stop", "ready")
    comparison = Comparison(document.varies)
    config = parse_guest({"mem": "128M", "ramfile": "1", **session.config})
    symbols = session.config.get("symbols", "1") != "0"
    with Guest(stopped=not runs_on(stop), timeout=TIMEOUT, **config) as guest:
        wait_stop(guest, stop)
        gdb = Gdb(guest, stop, symbols)
        try:
            for command in session.commands:
                command.real = comparison.translate(command.text)
                printed, why = gdb.run(command.real), ""
                try:
                    comparison.compare(document.printed(command), printed)
                except Mismatch as e:
                    why = str(e)
                yield command, printed, why
        finally:
            gdb.close()


def chosen(document: Document, word: str) -> Iterator[Session]:
    """The sessions that have a command with that word in it."""
    return (s for s in document.sessions if any(word in c.text for c in s.commands))


def write(document: Document, word: str) -> None:
    """Puts what is printed now into the document, but for what is cut by `...`, which is left alone."""
    edits = []
    for session in chosen(document, word):
        for command, printed, why in talk(document, session):
            if why:
                print(f"{document.path.name}:{command.first}: {command.text}: {why}")
            if "..." not in [line.strip() for line in document.printed(command)]:
                edits.append((command, printed))
    for command, printed in reversed(edits):
        document.lines[command.first - 1 : command.last] = [PROMPT + command.real, *printed]
    document.path.write_text("\n".join(document.lines) + "\n")


class Sessions(unittest.TestCase):
    """Documents say what is so."""

    def test_sessions(self) -> None:
        """Each command prints what the document has."""
        for document in map(Document, DOCS):
            for session in chosen(document, ONLY):
                for command, printed, why in talk(document, session):
                    with self.subTest(at=f"{document.path.name}:{command.first}"):
                        text = "\n".join(printed[:60])
                        self.assertEqual(why, "", f"\n(gdb) {command.text}\n{text}")

    def test_recipe(self) -> None:
        """The recipe for continuous integration ends with the status that it says, on a good and on a bad guest."""
        text = (ROOT / DOCS[0]).read_text()
        match = re.search(r"<!-- recipe -->\n```sh\n(.*?)```", text, re.S)
        assert match is not None
        cases = {
            "": (0, ": 0 violations"),
            "-fw_cfg name=opt/ktf/cmdline,string=plant=P2": (1, "P2: kernel"),
            "-m 6M": (1, "panic in "),  # too little to start
        }
        for word, (status, says) in cases.items():
            script = match[1].replace(":1234", f":{free_port()}").replace(" -S &", f" {word} -S &")
            done = subprocess.run(
                ["timeout", "60", "bash", "-c", script], cwd=ROOT, capture_output=True, text=True
            )
            said = f"{done.stdout}\n{done.stderr}"
            self.assertIn(f"exit status {status}\n", done.stdout, said)
            self.assertIn(says, done.stdout, said)
            self.assertNotIn("Traceback", said)

    def test_excerpts(self) -> None:
        """Code in a document is the code that it names; `...` stands for lines left out."""
        count = 0
        for name in DOCS:
            for match in EXCERPT.finditer((ROOT / name).read_text()):
                source = (ROOT / match[1]).read_text()
                at = 0
                for part in re.split(r"^ *\.\.\.\n", match[2], flags=re.M):
                    at = source.find(part, at)
                    self.assertGreaterEqual(at, 0, f"{name}: not in {match[1]}:\n{part}")
                count += 1
        self.assertGreater(count, 2)

    def test_every_command_has_one(self) -> None:
        """Each ktf command and function stands in docs/gdb.md behind a prompt."""
        text = Path(ROOT / DOCS[0]).read_text()
        told = {c.text for s in Document(DOCS[0]).sessions for c in s.commands}
        names = set()
        for source in (ROOT / "gdb/ktf").glob("*.py"):
            names |= set(re.findall(r'^    name = "(ktf\w*(?:-\w+)*)"$', source.read_text(), re.M))
        self.assertIn("ktf-maps", names)
        for name in sorted(names):
            word = re.compile(rf"(?<![\w-])\$?{name}(?![\w-])")
            self.assertTrue(
                any(word.search(t) for t in told), f"{DOCS[0]} has no session of {name}"
            )
            self.assertRegex(text, word)


class Comparing(unittest.TestCase):
    """What may differ, and what may not."""

    def compare(self, expected: str, printed: str, *varies: str) -> str:
        """Why they differ, "" if they do not."""
        try:
            Comparison(varies).compare(expected.splitlines(), printed.splitlines())
        except Mismatch as e:
            return str(e)
        return ""

    def test_same(self) -> None:
        """Other numbers of the same shape."""
        for expected, printed in (
            ("mfn 0x114, pa 0x114000", "mfn 0x117,  pa 0x117000"),
            (
                "f at a/b.c:35\n5 entries, 6 frames, 7 mappings",
                "f at a/b.c:4\n9 entries, 1 frames, 7 mappings",
            ),
            ("a\n...\nz 1", "a\nb\nc\nz 1"),
            ("a\n...\nc\n...\nz", "a\nb\nc\nd\nz"),
            ("a\n...", "a"),
        ):
            self.assertEqual(self.compare(expected, printed), "")
        self.assertEqual(self.compare("x 5 y", "x 6 y", r"x (\d+)"), "")

    def test_different(self) -> None:
        """What is told apart: words, lines, counts, zeros, numbers that were one and are two."""
        for expected, printed in (
            ("a b", "a c"),
            ("a", "a\nb"),
            ("a\nb", "a"),
            ("refcount 1", "refcount 2"),
            ("5 entries, 6 frames, 7 mappings", "5 entries, 0 frames, 7 mappings"),
            ("mfn 0x114 of 0x114", "mfn 0x117 of 0x118"),
            ("mfn 0x114 of 0x115", "mfn 0x117 of 0x117"),
            ("slot 0x0", "slot 0x1"),
            ("va 0xffffc07000001000", "va 0x7000001000"),
            ("pa 0x1000", "pa 0x1001"),
            ("entry 0x8000000000113003", "entry 0x8000000000114001"),
            ("a\n...\nc\n...\nz", "a\nb\nd\nz"),
            ("a\n...\nz 1", "a\nz 2"),
        ):
            self.assertNotEqual(self.compare(expected, printed), "", f"{expected!r} {printed!r}")

    def test_translate(self) -> None:
        """A command takes up the number that was printed."""
        comparison = Comparison()
        comparison.compare(["mfn 0x114"], ["mfn 0x119"])
        self.assertEqual(comparison.translate("x 0x114 0x115"), "x 0x119 0x115")


if __name__ == "__main__":
    ONLY = next((a.removeprefix("--only=") for a in sys.argv if a.startswith("--only=")), "")
    if "--write" in sys.argv:
        for each in DOCS:
            write(Document(each), ONLY)
    else:
        unittest.main(argv=[a for a in sys.argv if not a.startswith("--only=")])
