#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`make style`: clang-format, black and mypy over the tree, and the first lines of each file. Rewrites nothing.

Prints `ok NAME` or `not ok NAME why` for each; a tool that is not installed is a failure.
Formatters change their mind from version to version, and mypy judges by numpy's own hints: a tool of another version
than TOOLS says is named, and judges nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parents[2]
DIRS = ("lib", "arch", "boot", "mm", "kernel", "acpi", "gdb", "tools", "tests")
# The tools whose verdict counts: Debian 12's. The tree is formatted by them.
TOOLS = {"clang-format": "14.", "black": "23.", "mypy": "1.0."}
SPDX = "SPDX-License-Identifier: BSD-2-Clause"
WIDTH = 100
RULE = re.compile(r"\s*/\* --- .+? -+ \*/")
PATH_LIKE = re.compile(r"(?<![\w.$)}\"'])/(?:root|home|work|Users)/\w")


def sources(*suffixes: str) -> list[str]:
    """Files of ours with one of these endings, relative to the top."""
    paths = [p for d in DIRS for p in sorted((ROOT / d).rglob("*")) if p.suffix in suffixes]
    return [str(p.relative_to(ROOT)) for p in paths if "__pycache__" not in p.parts]


def heads() -> list[str]:
    """Complaints about first lines: each file names its licence in the first line (behind a #! line)."""
    bad = []
    for name in sources(".c", ".h", ".S", ".ld", ".py", ".sh", ".cfg", ".txt") + [
        "Makefile",
        ".ci/run",
    ]:
        lines = (ROOT / name).read_text().splitlines()
        first = lines[1:2] if lines and lines[0].startswith("#!") else lines[:1]
        if not first or SPDX not in first[0]:
            bad.append(f"{name}: no SPDX line at its head")
    return bad


def places() -> list[str]:
    """Complaints about paths of somebody's machine."""
    bad = []
    for name in sources(".c", ".h", ".S", ".ld", ".py", ".sh", ".cfg", ".txt") + [
        "Makefile",
        ".ci/run",
    ]:
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
            if PATH_LIKE.search(line) and "PATH_LIKE" not in line:
                bad.append(f"{name}:{number}: a path of one machine")
    return bad


def comments() -> list[str]:
    """Complaints about C comments that clang-format leaves alone: section rules on one line, nothing over 100 columns."""
    bad = []
    for name in sources(".c", ".h"):
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
            if len(line) > WIDTH:
                bad.append(f"{name}:{number}: {len(line)} columns, more than {WIDTH}")
            if line.lstrip().startswith("/* ---") and not RULE.fullmatch(line):
                bad.append(
                    f"{name}:{number}: a section rule is `/* --- name ---...--- */` in one line"
                )
    return bad


def tool(*command: str) -> list[str]:
    """Complaints of a program: what it prints if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


def version(name: str) -> str:
    """The first number with a point that the tool says of itself."""
    done = subprocess.run([name, "--version"], capture_output=True, text=True)
    match = re.search(r"\d+\.[\d.]+", done.stdout)
    return match[0] if match else "?"


def clang_format() -> list[str]:
    """Complaints of clang-format: the places, without the text around them."""
    complaints = tool("clang-format", "--dry-run", "-Werror", *sources(".c", ".h"))
    places = [
        line.split(": error: ")[0].rsplit(":", 1)[0] for line in complaints if ": error: " in line
    ]
    return [
        f"{place}: clang-format -i would change it" for place in dict.fromkeys(places)
    ] or complaints


def main() -> int:
    """Entry."""
    python = sources(".py")
    checks: dict[str, Callable[[], list[str]]] = {
        "heads": heads,
        "places": places,
        "comments": comments,
        "clang-format": clang_format,
        "black": lambda: tool("black", "--check", "-q", "--diff", *python),
        "mypy": lambda: tool("mypy", *python),
    }
    status = 0
    for name, check in checks.items():
        if name in TOOLS and shutil.which(name) is None:
            print(f"not ok {name} is not installed: `make style` installs it")
            status = 1
            continue
        if name in TOOLS and not (have := version(name)).startswith(TOOLS[name]):
            print(f"ok {name} (not judged: {have}; the tree goes by {TOOLS[name]}x of Debian 12)")
            continue
        bad = check()
        for line in bad[:100]:
            print(line)
        print(f"not ok {name} {len(bad)} lines, above" if bad else f"ok {name}")
        status |= bool(bad)
    return status


if __name__ == "__main__":
    sys.exit(main())
