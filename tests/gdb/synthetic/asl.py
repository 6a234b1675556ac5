# SPDX-License-Identifier: BSD-2-Clause
# What `iasl -d` makes of a table, and the devices that its text declares.
"""disassemble(file) -> text; declared(text) -> full paths of all that is a Device or a Processor."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from inside import check

OPENS = re.compile(r"^\s*(Scope|Device|Processor|ThermalZone|PowerResource) \(([\\^\w.]+)")
NOT_CODE = re.compile(r'"(?:\\.|[^"\\])*"|/\*.*?\*/|//.*$')


def disassemble(file: Path) -> str:
    """iasl's text of a table; the test ends if iasl does not accept it without a word."""
    command = ["iasl", "-p", str(file.with_suffix("")), "-d", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    check(done.returncode == 0, f"iasl -d {file}: status {done.returncode}: {said}")
    for word in ("Error", "Warning", "nvalid", "Could not", "ncorrect"):
        check(word not in said, f"iasl -d {file}: {said}")
    text = file.with_suffix(".dsl").read_text()
    for word in ("*** Error", "Invalid", "ncorrect checksum", "should be"):
        check(word not in text, f"iasl -d {file}: {[s for s in text.splitlines() if word in s]}")
    return text


def declared(text: str) -> set[str]:
    """Paths such as \\_SB_.PCI0.S08_, each segment of 4 letters, as Linux writes them."""
    scopes: list[tuple[str, ...]] = [()]
    opening: tuple[str, ...] | None = None
    found = set()
    for line in text.splitlines():
        match = OPENS.match(line)
        if match:
            opening = full(scopes[-1], match[2])
            if match[1] in ("Device", "Processor"):
                found.add("\\" + ".".join(opening))
        for c in NOT_CODE.sub("", line):
            if c == "{":
                scopes.append(scopes[-1] if opening is None else opening)
                opening = None
            elif c == "}":
                scopes.pop()
    check(len(scopes) == 1, "the brackets of iasl's text don't match")
    return found


def full(scope: tuple[str, ...], name: str) -> tuple[str, ...]:
    """A name as it stands in a scope."""
    if name.startswith("\\"):
        scope = ()
    while name.startswith("^"):
        scope, name = scope[:-1], name[1:]
    parts = name.lstrip("\\").split(".")
    return scope + tuple(part.ljust(4, "_") for part in parts if part)
