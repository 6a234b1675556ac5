#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`make check SUITE=trixie`: the README's two commands on a bare Debian of another release, in a chroot under build/suites/.

The bare system (mmdebstrap, minbase with git and make) is kept as a tar archive, and so are the packages that apt-get has
fetched; each run unpacks a new system and copies the sources into it. Everything runs in a mount and a PID namespace of
its own: whatever ends the run, no mount and no process is left. The last line is `N passed, N failed`, where a demo that
fails counts as one.

Exit status: 0 all passed, 1 something failed, 2 this can't be tried here (root, space, a wrong word), 3 the packages of
that release can't be reached.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator, Sequence

from packages import mirror
from qemu import BUILD, ROOT

SUITES = ("bookworm", "trixie", "sid")
PLACE = BUILD / "suites"
SOURCES = "ktf"  # the folder of the sources in the new system
NEEDED = 6 << 30  # bytes: the system 2 GiB, its packages 1 GiB, what is built and tested there
FRESH = 7 * 86400  # seconds for which a bare system is kept
INCLUDE = "ca-certificates,git,make"  # what the README asks a machine to have
FAILED, HERE, UNREACHED = 1, 2, 3
TOTAL = re.compile(r"^(\d+) passed, (\d+) failed$")
# How apt-get and mmdebstrap say that nobody answers.
NO_ANSWER = re.compile(
    r"Temporary failure resolving|Could not resolve|Could not connect|Unable to connect|Cannot initiate the connection"
    r"|Connection (timed out|refused|failed)|Failed to fetch|Network is unreachable|No route to host"
)
COMPILED = re.compile(r"  (CC|AS|HOSTCC|HOSTLD|FUZZCC|FUZZLD) ")
FULL = re.compile(r"No space left on device|not have enough (free )?space", re.IGNORECASE)


class CantTry(Exception):
    """One line that says what to do, and the exit status."""

    def __init__(self, text: str, status: int = HERE) -> None:
        super().__init__(text)
        self.status = status


# --- the bare system --------------------------------------------------------------------------------------


def isolated(*command: str) -> list[str]:
    """The command in namespaces of its own for mounts and processes, which end with it, and with us."""
    words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"]
    return [*words, "--kill-child", "--mount-proc", *command]


def bare(suite: str, place: Path) -> Path:
    """The archive of the bare system, made if there is none or it is old."""
    archive = place / "bare.tar"
    with contextlib.suppress(FileNotFoundError):
        if time.time() - archive.stat().st_mtime < FRESH:
            return archive
    part, work, log = place / "bare.tar.part", place / "work", place / "mmdebstrap.log"
    remove(work)
    work.mkdir()
    print(f"suite: making a bare {suite} by mmdebstrap ({os.path.relpath(log)})", flush=True)
    command = ["mmdebstrap", "--mode=root", "--format=tar", "--variant=minbase"]
    command.append(f"--include={INCLUDE}")
    if (
        suite == "sid"
    ):  # a copy of it that a mirror keeps for long is older than its Release file is meant to get
        command.append('--aptopt=Acquire::Check-Valid-Until "false"')
    command += [suite, str(part), *mirror()]
    env = {**os.environ, "TMPDIR": str(work)}
    with log.open("w") as f:
        status = subprocess.call(
            isolated(*command), stdin=subprocess.DEVNULL, stdout=f, stderr=f, env=env
        )
    remove(work)
    if status:
        part.unlink(missing_ok=True)
        raise why(log.read_text(errors="replace"), f"no bare {suite}", log)
    os.replace(part, archive)
    return archive


def why(text: str, what: str, log: Path) -> CantTry:
    """What kept a system or its packages from being made, by what the tools said."""
    name = os.path.relpath(log)
    if FULL.search(text):
        return CantTry(f"{what}: the disk is full: make room under {PLACE}, then again ({name})")
    if NO_ANSWER.search(text):
        return CantTry(
            f"{what}: its packages can't be reached: try again with a network ({name})", UNREACHED
        )
    last = next((line for line in reversed(text.splitlines()) if line.startswith("E:")), "")
    return CantTry(f"{what}: {last.removeprefix('E: ') or 'mmdebstrap failed'} ({name})")


def remove(path: Path) -> None:
    """The folder and what is in it. Nothing is mounted there: mounts are in namespaces that are gone."""
    if os.path.ismount(path) or any(f" {path}/" in line for line in mounts()):
        raise CantTry(f"something is mounted under {path}: `umount` it, then again")
    shutil.rmtree(path, ignore_errors=True)


def mounts() -> list[str]:
    """The lines of this namespace's mounts."""
    return Path("/proc/self/mounts").read_text().splitlines()


# --- the run ----------------------------------------------------------------------------------------------


def unpack(archive: Path, place: Path) -> Path:
    """A new system with the sources in it."""
    root = place / "root"
    remove(root)
    root.mkdir()
    run(["tar", "-xf", str(archive), "-C", str(root)], archive)
    with contextlib.suppress(FileNotFoundError):
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    for name in sources():
        target = root / SOURCES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return root


def run(command: Sequence[str], archive: Path) -> None:
    """A program that only a full disk or a cut archive makes fail; the archive is made anew next time."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        full = FULL.search(done.stderr)
        if not full:
            archive.unlink(missing_ok=True)
        said = done.stderr.strip().splitlines()[-1:] or ["no reason"]
        todo = "make room" if full else "the bare system was removed"
        raise CantTry(f"{command[0]}: {said[0]}: {todo}, then again")


def sources() -> list[str]:
    """The files of a clean checkout as they are now: what git tracks or would; without git, all but build/."""
    ask = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(ask, capture_output=True, text=True)
        if done.returncode == 0:
            names = dict.fromkeys(name for name in done.stdout.split("\0") if name)
            return [name for name in names if os.path.lexists(ROOT / name)]
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ("build", ".git", "__pycache__")]
        found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in files]
    return sorted(found)


def script(root: Path, cache: Path, make: str) -> str:
    """What runs inside of the namespaces."""
    at = shlex.quote(str(root))
    env = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8"
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        if name in os.environ:
            env += f" {name}={shlex.quote(os.environ[name])}"
    inside = f"cd /{SOURCES} && {make}"
    lines = [
        "set -e",
        f"mount --bind {at} {at}",  # its root is a mount then: with namespaces of its own in there, as here
        f"mount -t proc proc {at}/proc",
        f"mount --rbind /dev {at}/dev",
        f"mount --bind {shlex.quote(str(cache))} {at}/var/cache/apt/archives",
        f"exec chroot {at} /usr/bin/env -i {env} /bin/bash -c {shlex.quote(inside)}",
    ]
    return "\n".join(lines)


def follow(command: Sequence[str], log: Path, quiet: bool) -> tuple[int, list[str]]:
    """Runs it and keeps what it says, shows it unless quiet; exit status and lines. The closing line is ours to say."""
    lines = []
    with log.open("a") as f:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            f.write(line)
            if not quiet and not TOTAL.match(line.strip()) and not COMPILED.match(line):
                print(line, end="", flush=True)
        return process.wait(), lines


def totals(lines: Sequence[str]) -> tuple[int, int] | None:
    """Of the last closing line."""
    for line in reversed(lines):
        if match := TOTAL.match(line.strip()):
            return int(match[1]), int(match[2])
    return None


def check(suite: str, only: str, jobs: str) -> int:
    """The whole run; the exit status."""
    place = PLACE / suite
    with alone(place):
        root = unpack(bare(suite, place), place)
        cache, log = place / "archives", place / "log"
        cache.mkdir(exist_ok=True)
        log.unlink(missing_ok=True)

        def make(*words: str, quiet: bool = False) -> tuple[int, list[str]]:
            print(f"suite: {suite}: {shlex.join(('make', *words))}", flush=True)
            inside = script(root, cache, shlex.join(("make", *words)))
            return follow(isolated("bash", "-c", inside), log, quiet)

        status, lines = make("packages", quiet=True)
        if status:
            raise why("\n".join(lines), f"{suite}: `make packages`", log)
        demo, _ = make("demo")
        status, lines = make("check", f"ONLY={only}", f"JOBS={jobs}")
        found = totals(lines)
        passed, failed = found if found else (0, 1)
        if found and status and not failed:
            failed = 1  # it says that all passed, and yet fails
        if demo:
            print(f"FAIL {suite}: make demo: exit status {demo}")
            failed += 1
        print(
            f"suite: {suite}: in {os.path.relpath(log)}; tests' logs: {os.path.relpath(root)}/{SOURCES}/build/check"
        )
        print(f"{passed} passed, {failed} failed", flush=True)
        return FAILED if failed or not passed else 0


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """One run of a release at a time."""
    place.mkdir(parents=True, exist_ok=True)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CantTry(f"another run of {place.name} is under way in {place}") from None
        yield
    finally:
        os.close(fd)


def possible(suite: str) -> None:
    """CantTry unless this can be done here."""
    if suite not in SUITES:
        raise CantTry(f"SUITE={suite}: {', '.join(SUITES[:-1])} or {SUITES[-1]} is wanted")
    if os.geteuid() != 0:
        raise CantTry(f"a chroot needs root: sudo make check SUITE={suite}")
    if shutil.which("mmdebstrap") is None:
        raise CantTry("no mmdebstrap: apt-get install mmdebstrap")
    done = subprocess.run(isolated("true"), capture_output=True, text=True)
    if done.returncode:
        raise CantTry(f"no namespaces of our own here: {done.stderr.strip()}")
    PLACE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(PLACE).free
    if free < NEEDED:
        raise CantTry(
            f"{free >> 20} MiB are free under {PLACE}, {NEEDED >> 20} are needed: make room, then again"
        )


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", default="")
    args = parser.parse_args()
    try:
        possible(args.suite)
        return check(args.suite, args.only, args.jobs)
    except CantTry as e:
        print(f"suite: {e}", file=sys.stderr)
        return e.status
    except OSError as e:  # a full disk, mostly
        print(f"suite: {e.filename or PLACE}: {e.strerror}: make room, then again", file=sys.stderr)
        return HERE


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # what we started ends with us
