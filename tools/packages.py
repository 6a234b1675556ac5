#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The package list from Python's side, and a PATH that holds no command from outside of it.

tools/packages.py DIRECTORY prints that PATH, for the check's own build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

LIST = Path(__file__).resolve().parent / "packages.txt"
COMMAND_DIRS = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/")


def listed(*groups: str) -> dict[str, list[str]]:
    """Package -> what we call of it; of these groups, or of all."""
    rows = [
        line.split() for line in LIST.read_text().splitlines() if line and not line.startswith("#")
    ]
    return {row[1]: row[2:] for row in rows if not groups or row[0] in groups}


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


def with_dependencies(package: str, depth: int = 2) -> list[str]:
    """The package, and of those that it depends on, so many steps deep, the installed ones: they come along with it."""
    form, have = "${Pre-Depends}, ${Depends}\n", set(installed())
    found = {package}
    for _ in range(depth):
        out = subprocess.run(
            ["dpkg-query", "-W", "-f", form, *found], capture_output=True, text=True, check=True
        ).stdout
        words = out.replace("|", ",").replace("\n", ",").split(",")
        found |= {word.split()[0].split(":")[0] for word in words if word.split()} & have
    return sorted(found)


def holders(packages: list[str]) -> list[str]:
    """The dependencies of these packages that hold a command which the list names for one of them."""
    held = {os.path.basename(path) for path in files(*packages) if path.startswith(COMMAND_DIRS)}
    found = []
    for package, things in listed().items():
        commands = {t for t in things if re.fullmatch(r"[\w.-]+", t)} - held
        if package in packages and commands:
            others = [name for name in with_dependencies(package) if name not in packages]
            found += [
                name for name in others if commands & {os.path.basename(f) for f in files(name)}
            ]
    return found


def mirror() -> list[str]:
    """Where this machine has its own Debian packages from: one URI, or none if that is not known."""
    if shutil.which("apt-get") is None:
        return []
    form = "$(ORIGIN) $(LABEL) $(REPO_URI) $(RELEASE)"
    out = subprocess.run(
        ["apt-get", "indextargets", "--format", form], capture_output=True, text=True
    ).stdout
    rows = [line.split() for line in out.splitlines()]
    return [
        r[2] for r in rows if len(r) == 4 and r[:2] == ["Debian", "Debian"] and "-" not in r[3]
    ][:1]


def restricted_path(directory: Path) -> str:
    """Fills the directory with links to the commands of the listed and the essential packages; a PATH of it alone.

    A test that calls anything else then fails here as it would on a fresh machine. On a system without dpkg: the PATH
    as it is.
    """
    have = installed()
    if not have:
        return os.environ["PATH"]
    names = [name for name, essential in have.items() if essential or name in listed()]
    names += holders(names)
    directory.mkdir(parents=True, exist_ok=True)
    for path in files(*names):
        link = directory / os.path.basename(path)
        if path.startswith(COMMAND_DIRS) and os.path.isfile(path) and not link.is_symlink():
            link.symlink_to(path)
    return str(directory)


if __name__ == "__main__":
    print(restricted_path(Path(sys.argv[1]).resolve()))
