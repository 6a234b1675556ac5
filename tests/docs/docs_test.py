#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Holds the sessions of docs/*.md, and the examples of the help texts, against real ones, in a real GDB on a real guest.

documents.py reads them, transcript.py says which numbers may differ and which not.

`tests/docs/docs_test.py --write [--only=WORD]` puts what the commands print now into the documents, to be read before it is
committed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Iterator, Sequence

from documents import DOCS, GDB, PROMPT, Command, Document, Session, help_document
from gdb_jobs import parse_guest, runs_on, wait_stop
from qemu import ROOT, Guest, free_port, gdb_command
from transcript import FREELY, Comparison, Mismatch

MARK = "@@docs@@"
EXCERPT = re.compile(r"<!-- from: (\S+) -->\n```c\n(.*?)```", re.S)
OURS = ("same", "anew", "ends")  # words of a session that are not the guest's
TIMEOUT = 120.0
ONLY = ""  # test the sessions with this word alone


@dataclass
class Said:
    """What a command printed, and what is wrong with that ("" if nothing is)."""

    command: Command
    printed: list[str]
    why: str


class Gdb:
    """A GDB that gets one command after the other, on a guest of its own."""

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

    def ended(self) -> str:
        """The exit status of a GDB that a command has ended."""
        return str(self.process.wait(10))

    def close(self) -> None:
        """Ends GDB; the guest ends by itself."""
        self.timer.cancel()
        self.process.kill()
        self.process.communicate()


def talk(document: Document, sessions: Sequence[Session]) -> Iterator[Said]:
    """Runs sessions on one guest: the first one, and those with `same=1` behind it."""
    config = {"mem": "128M", "ramfile": "1", **sessions[0].config}
    config = {key: value for key, value in config.items() if key not in OURS}
    stop, comparison = config.get("stop", "ready"), Comparison()
    symbols = config.get("symbols", "1") != "0"
    with Guest(stopped=not runs_on(stop), timeout=TIMEOUT, **parse_guest(config)) as guest:
        wait_stop(guest, stop)
        gdb = Gdb(guest, stop, symbols)
        try:
            for session in sessions:
                if "anew" in session.config:
                    comparison = Comparison()
                comparison.use(session.varies)
                for command in session.commands:
                    command.real = comparison.translate(command.text)
                    said = Said(command, gdb.run(command.real), "")
                    try:
                        comparison.compare(document.printed(command), said.printed)
                        if "ends" in session.config and command is session.commands[-1]:
                            comparison.compare([session.config["ends"]], [gdb.ended()])
                    except Mismatch as e:
                        said.why = str(e)
                    yield said
        finally:
            gdb.close()


def chosen(document: Document, word: str) -> Iterator[list[Session]]:
    """The sessions of each guest on which a command with that word is run."""
    guests: list[list[Session]] = []
    for session in document.sessions:
        if "same" not in session.config:
            guests.append([])
        guests[-1].append(session)
    return (g for g in guests if any(word in c.text for s in g for c in s.commands))


def write(document: Document, word: str) -> None:
    """Puts what is printed now into the document. Where `...` stands only the lines that are there are renewed."""
    edits = []
    for sessions in chosen(document, word):
        for said in talk(document, sessions):
            command = said.command
            if said.why:
                print(f"{document.name}:{command.first}: {command.text}: {said.why}")
            edits.append((command, renewed(document.printed(command), said.printed)))
    for command, lines in reversed(edits):
        document.lines[command.first - 1 : command.last] = [PROMPT + command.real, *lines]
    (ROOT / document.name).write_text("\n".join(document.lines) + "\n")


def renewed(there: list[str], printed: list[str]) -> list[str]:
    """The lines of a document with the numbers that are printed now."""
    if "..." not in [line.strip() for line in there]:
        return printed
    try:
        pairs = iter(Comparison([rf"\b(\d[\d.,]*[KMGT]?)\b{FREELY}"]).align(there, printed))
    except Mismatch:
        return there
    lines = []
    for line in there:
        found = next(pairs)[1] if line.strip() else line
        lines.append(line if found is None else found)
    return lines


class Sessions(unittest.TestCase):
    """Documents say what is so."""

    def test_sessions(self) -> None:
        """Each command prints what the document has."""
        for document in map(Document, DOCS):
            self.run_all(document)

    def test_help(self) -> None:
        """And what its help text has."""
        self.run_all(help_document())

    def run_all(self, document: Document) -> None:
        """All sessions of a document that can be run."""
        self.assertEqual(document.problems, [])
        for sessions in chosen(document, ONLY):
            for said in talk(document, sessions):
                with self.subTest(at=f"{document.name}:{said.command.first}"):
                    text = "\n".join(said.printed[:60])
                    self.assertEqual(said.why, "", f"\n(gdb) {said.command.text}\n{text}")

    def test_recipe(self) -> None:
        """The recipe for continuous integration ends with the status that it says, whatever becomes of the guest."""
        text = (ROOT / GDB).read_text()
        match = re.search(r"<!-- recipe -->\n```sh\n(.*?)```", text, re.S)
        assert match is not None
        recipe = match[1]
        words = "-fw_cfg name=opt/ktf/cmdline,string="
        # Where the guest goes wrong only behind ktf_ready(), its run ends somewhere else: it gets there or not.
        later = {"ktf_ready": "machine_exit"}
        cases: list[tuple[str, dict[str, str], int, str]] = [
            ("", {**later, "-k 10 60": "-k 10 20"}, 124, "has not crashed: it is stopped in "),
            ("", {}, 0, ": 0 violations"),
            (f"{words}plant=P2", {}, 1, "P2: kernel"),
            (f"{words}plant=unknown", {}, 1, "panic in "),  # before ktf_ready()
            (f"{words}crash=page-fault", later, 1, "#PF writing 0x10 in page_fault"),
            (f"{words}crash=triple-fault", later, 1, "#BP (int3) in triple_fault"),
        ]

        def run(case: tuple[str, dict[str, str], int, str]) -> str:
            script = recipe.replace(":1234", f":{free_port()}")
            script = script.replace(" -S &", f" {case[0]} -S &")
            for word, other in case[1].items():
                self.assertIn(word, script)
                script = script.replace(word, other)
            done = subprocess.run(
                ["timeout", "60", "bash", "-c", script], cwd=ROOT, capture_output=True, text=True
            )
            return f"{done.stdout}\n{done.stderr}"

        with ThreadPoolExecutor(2) as pool:
            for case, said in zip(cases, pool.map(run, cases)):
                with self.subTest(case=case):
                    self.assertIn(f"exit status {case[2]}\n", said)
                    self.assertIn(case[3], said)
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


if __name__ == "__main__":
    ONLY = next((a.removeprefix("--only=") for a in sys.argv if a.startswith("--only=")), "")
    if "--write" in sys.argv:
        for each in DOCS:
            write(Document(each), ONLY)
    else:
        unittest.main(argv=[a for a in sys.argv if not a.startswith("--only=")])
