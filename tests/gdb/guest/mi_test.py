#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The commands under GDB/MI, connected as the launch.json of docs/gdb.md says; the guests are real."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import unittest
from typing import Any

from mi import ADDRESS, Editor, Launch, documented, quoted
from qemu import ROOT, Guest, free_port, wait_listening

NOTHING = re.compile(r"\d+ entries, \d+ frames, \d+ mappings: 0 violations\n\Z")
# Each command; FOLDER is the guest's.
COMMANDS = (
    "ktf-pt-check",
    "ktf-frame",
    "ktf-frame &mm",
    "ktf-maps",
    "ktf-maps -v",
    "ktf-maps ktf_ready",
    "ktf-maps --leaves",
    "ktf-journal -n 5",
    "ktf-snapshot before",
    "ktf-diff before",
    "ktf-acpi",
    "ktf-postmortem",
    "ktf-core FOLDER/core",
)


class UnderMi(unittest.TestCase):
    """One guest and one GDB each."""

    launch: Launch

    @classmethod
    def setUpClass(cls) -> None:
        """The document, read once."""
        cls.launch = documented()

    def start(self, **config: Any) -> tuple[Guest, Editor]:
        """A guest at its first instruction, and the editor at its stub; both end with the test."""
        guest = self.enterContext(Guest(ramfile=True, timeout=120, **config))
        editor = self.enterContext(Editor(120))
        self.connect(editor, guest.port)
        return guest, editor

    def connect(self, editor: Editor, port: int) -> None:
        """As launch.json says, but for the number of the port."""
        address = re.sub(r":\d+$", f":{port}", self.launch[ADDRESS])
        for answer in editor.launch(self.launch, address):
            self.assertIn(answer.word, ("done", "connected"), "".join(editor.log))

    def run_to(self, editor: Editor, *places: str) -> str:
        """Breakpoints there, as an editor sets them (`-c CONDITION` first), and the record of the stop."""
        for place in places:
            self.assertEqual(editor.command(f"-break-insert -f {place}").word, "done")
        self.assertEqual(editor.command("-exec-continue").word, "running")
        return editor.stopped()

    def printed(self, editor: Editor, command: str) -> str:
        """What a command prints, which must be no error."""
        answer = editor.console(command)
        self.assertEqual(answer.word, "done", f"{command}: {answer.results}")
        return answer.console

    def test_commands(self) -> None:
        """Each command says under MI what it says on a terminal, and as JSON."""
        guest, editor = self.start(smp=2)
        self.assertIn('reason="breakpoint-hit"', self.run_to(editor, "ktf_ready"))
        for command in COMMANDS:
            with self.subTest(command):
                text = command.replace("FOLDER", str(guest.dir))
                said = self.printed(editor, text)
                self.assertNotIn('~"', said)
                found = json.loads(self.printed(editor, f"{text} --json"))
                self.assertEqual((found["command"], found["ok"]), (command.split()[0], True))
        self.assertRegex(self.printed(editor, "ktf-pt-check"), NOTHING)
        self.assertIn(
            "this is ktf_ready at kernel/main.c:", self.printed(editor, "ktf-maps ktf_ready")
        )
        self.assertIn("mapcount", self.printed(editor, "ktf-frame &mm"))
        self.assertRegex(self.printed(editor, "ktf-maps -v"), "read by ramfile: ")
        self.assertIn(str(guest.dir), self.printed(editor, "ktf-maps -v"))
        self.assertRegex(self.printed(editor, "ktf-maps"), r"kernel: \d+ ranges, \d+ pages, ")
        self.assertRegex(self.printed(editor, "ktf-journal -n 5"), "CPU|cpu")
        for expression in ("$ktf_ok()", "$ktf_frame(&mm)->refcount"):
            answer = editor.command(f"-data-evaluate-expression {quoted(expression)}")
            self.assertEqual(answer.value("value"), "1", expression)

    def test_core(self) -> None:
        """The same of a core; GDB's name for its file is text of GDB."""
        guest, editor = self.start()
        self.run_to(editor, "ktf_ready")
        self.printed(editor, f"ktf-core {guest.dir}/core")
        self.printed(editor, "disconnect")
        self.printed(editor, f"core-file {guest.dir}/core")
        self.assertRegex(self.printed(editor, "ktf-pt-check"), NOTHING)

    def test_stub(self) -> None:
        """By physical reads: GDB has its connection in another mode while it speaks MI."""
        _, editor = self.start()
        self.run_to(editor, "ktf_ready")
        self.printed(editor, "set ktf reader gdbstub")
        self.assertRegex(self.printed(editor, "ktf-pt-check"), NOTHING)

    def test_condition(self) -> None:
        """$ktf_ok() decides which of two breakpoints stops: the second on a healthy guest, the first on a broken one."""
        for words, hits in (("", ["0", "1"]), ("plant=A4", ["1", "0"])):
            with self.subTest(words):
                _, editor = self.start(cmdline=words)
                places = [f'-c "$ktf_ok() == {ok}" ktf_ready' for ok in (0, 1)]
                self.assertIn('reason="breakpoint-hit"', self.run_to(editor, *places))
                table = editor.command("-break-list").results
                self.assertEqual(re.findall(r'times="(\d+)"', table), hits)

    def test_crash(self) -> None:
        """What ended the guest."""
        _, editor = self.start(smp=4, cmdline="crash=null-call", log=True)
        stop = self.run_to(editor)
        self.assertNotIn("exited", stop)
        said = self.printed(editor, "ktf-postmortem")
        self.assertRegex(said, r"(?m)^#PF .*null_call at tests/guest/crash\w*\.c:\d+")
        found = json.loads(self.printed(editor, "ktf-postmortem --json"))
        self.assertTrue(found["ok"])
        self.assertEqual(found["chain"][0]["name"], "#PF")

    def test_documented_guest(self) -> None:
        """The guest as the document starts it, with another port."""
        port = free_port()
        (line,) = self.launch.guest.replace("\\\n", " ").splitlines()
        self.assertIn(self.launch[ADDRESS], line)
        words = shlex.split(line.replace(self.launch[ADDRESS], f"127.0.0.1:{port}"))
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *words], cwd=ROOT)
        try:
            self.assertTrue(wait_listening(process, port))
            with Editor(60) as editor:
                self.connect(editor, port)
                self.assertIn("ktf_ready", self.run_to(editor, "ktf_ready"))
                self.assertRegex(self.printed(editor, "ktf-pt-check"), NOTHING)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    unittest.main()
