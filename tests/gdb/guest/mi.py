# SPDX-License-Identifier: BSD-2-Clause
"""GDB as an editor runs it: by the machine interface, and in the order in which VS Code's C/C++ extension speaks it."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from dataclasses import dataclass, field
from typing import Any

from qemu import ROOT, GuestError

RECORD = re.compile(r"(\d*)([\^*=~@&])(.*)", re.S)
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
HEADING = "## In an editor\n"
ADDRESS = "miDebuggerServerAddress"


@dataclass
class Answer:
    """What came of one command, up to its result."""

    word: str  # done, running, error, ...
    results: str  # as it stands in the record
    console: str  # what it printed

    def value(self, name: str) -> str:
        """Of the result `name="..."`; "" if there is none."""
        found = re.search(rf"\b{name}={STRING.pattern}", self.results)
        return plain(found[1]) if found else ""


def plain(quoted: str) -> str:
    """The text of a C string of MI, without its quotes."""
    return quoted.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")


def quoted(text: str) -> str:
    """The text as a C string of MI."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass
class Launch:
    """The launch.json of docs/gdb.md, and the command there that starts a guest."""

    config: dict[str, Any]
    guest: str
    folder: str = field(default=str(ROOT))

    def __getitem__(self, name: str) -> str:
        """A string of it, with the folder that is open in the editor."""
        return self.filled(str(self.config[name]))

    def filled(self, text: str) -> str:
        """The editor's own variables."""
        return text.replace("${workspaceFolder}", self.folder)


def documented() -> Launch:
    """What docs/gdb.md says."""
    section = (ROOT / "docs/gdb.md").read_text().split(HEADING)[1].split("\n## ")[0]
    blocks = dict(re.findall(r"```(json|sh)\n(.*?)```", section, re.S))
    (config,) = json.loads(blocks["json"])["configurations"]
    return Launch(config, blocks["sh"])


class Editor:
    """A GDB that speaks MI; ends with the `with` block, or at the time-out."""

    def __init__(self, timeout: float = 60) -> None:
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "gdb", "-q", "-nx", "--interpreter=mi"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.log: list[str] = []
        self._stops: list[str] = []
        self._token = 1000
        self._timer = threading.Timer(timeout, self.process.kill)
        self._timer.start()

    def __enter__(self) -> Editor:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self.process.kill()
        self.process.communicate()

    def _record(self) -> tuple[str, str, str]:
        """The next record: token, kind, text. What the program prints by itself has no kind."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise GuestError("GDB ended, or did not answer in time:\n" + "".join(self.log[-20:]))
        self.log.append(line)
        found = RECORD.fullmatch(line.rstrip("\n"))
        if not found:
            return "", "", line
        if found[2] == "*" and found[3].startswith("stopped"):
            self._stops.append(found[3])
        return found[1], found[2], found[3]

    def command(self, text: str) -> Answer:
        """Runs a command of MI."""
        assert self.process.stdin is not None
        self._token += 1
        self.log.append(f"{self._token}{text}\n")
        self.process.stdin.write(f"{self._token}{text}\n")
        self.process.stdin.flush()
        console = ""
        while True:
            token, kind, rest = self._record()
            if kind == "~":
                console += plain(rest[1:-1])
            elif kind == "^" and token == str(self._token):
                word, _, results = rest.partition(",")
                return Answer(word, results, console)

    def console(self, text: str) -> Answer:
        """A command of GDB's own language: in VS Code `-exec COMMAND`, a setup command without a dash."""
        return self.command(f"-interpreter-exec console {quoted(text)}")

    def stopped(self) -> str:
        """The record of the next stop; waits for it."""
        while not self._stops:
            self._record()
        return self._stops.pop(0)

    def launch(self, launch: Launch, address: str) -> list[Answer]:
        """What the extension does up to the first stop; its first commands, and the answers to the file's own."""
        self.command("-gdb-set mi-async on")
        answers = []
        for step in launch.config["setupCommands"]:
            text = launch.filled(step["text"])
            answers.append(self.command(text) if text.startswith("-") else self.console(text))
        self.console("set pagination off")
        self.console("set debuginfod enabled off")
        self.command("-gdb-set auto-solib-add on")
        answers.append(self.command(f"-environment-cd {quoted(launch['cwd'])}"))
        answers.append(self.command(f"-file-exec-and-symbols {quoted(launch['program'])}"))
        self.console("show architecture")
        self.command("-break-insert main")  # there need be none
        answers.append(self.command(f"-target-select remote {address}"))
        self.stopped()
        self.command("-thread-info")
        self.command("-stack-list-frames 0 999")
        return answers
