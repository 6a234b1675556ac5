#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The package list from Python's side, and a PATH that holds no command from outside of it.

tests/packages.py DIRECTORY prints that PATH, for the check's own build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

LIST = Path(__file__).resolve().parent / "packages.txt"
COMMAND_DIRS = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/")


def listed() -> dict[str, list[str]]:
    """Package -> what we call of it, all groups."""
    rows = [
        line.split() for line in LIST.read_text().splitlines() if line and not line.startswith("#")
    ]
    return {row[1]: row[2:] for row in rows}


def installed() -> dict[str, bool]:
    """Debian's installed packages -> whether essential; empty on another system."""
    if shutil.which("dpkg-query") is None:
        return {}
    form = "${Package} ${Essential} ${db:Status-Status}\n"
    out = subprocess.run(
        ["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in out.splitlines()]
    return {name: essential == "yes" for name, essential, status in rows if status == "installed"}


def files(*packages: str) -> set[str]:
    """All paths that the packages hold."""
    out = subprocess.run(
        ["dpkg", "-L", *packages], capture_output=True, text=True, check=True
    ).stdout
    return {line for line in out.splitlines() if line.startswith("/")}


def with_dependencies(package: str) -> list[str]:
    """The package and the installed ones it depends on directly: they come along with it."""
    form = "${Pre-Depends}, ${Depends}"
    out = subprocess.run(
        ["dpkg-query", "-W", "-f", form, package], capture_output=True, text=True, check=True
    ).stdout
    names = {
        word.split()[0].split(":")[0] for word in out.replace("|", ",").split(",") if word.split()
    }
    return [package, *sorted(names & set(installed()))]


def restricted_path(directory: Path) -> str:
    """Fills the directory with links to the commands of the listed and the essential packages; a PATH of it alone.

    A test that calls anything else then fails here as it would on a fresh machine. On a system without dpkg: the PATH
    as it is.
    """
    have = installed()
    if not have:
        return os.environ["PATH"]
    names = [name for name, essential in have.items() if essential or name in listed()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in files(*names):
        link = directory / os.path.basename(path)
        if path.startswith(COMMAND_DIRS) and os.path.isfile(path) and not link.is_symlink():
            link.symlink_to(path)
    return str(directory)


if __name__ == "__main__":
    print(restricted_path(Path(sys.argv[1]).resolve()))
