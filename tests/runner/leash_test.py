#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What is left of a check that a signal ended: nothing, whatever its tests had started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from typing import Callable, TypeVar

from job import LEASH, PYTHON
from qemu import BUILD, ROOT

Found = TypeVar("Found")
TIMEOUT = 120.0
GONE = 10.0  # seconds that a process may take to end
# A check of one test, which runs that program.
CHECK = """
import sys
from pathlib import Path
from job import execute
execute(sys.argv[2:], Path(sys.argv[1]), 600, lambda out, err, status: [])
"""
# A test that leaves nothing out: workers that wait for work, a child that ignores signals, and that one's child.
TEST = """
import subprocess, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
with ProcessPoolExecutor(2, get_context("fork")) as pool:
    list(pool.map(abs, range(8)))
    child = "trap '' HUP INT TERM; sleep 1000 & wait"
    subprocess.Popen(["sh", "-c", child])
    time.sleep(1000)
"""


def stat(pid: int) -> list[str]:
    """State, parent, group, session, ... of a process; [] if there is none, or what is left of it."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if words[0] in "ZX" else words


def family(root: int) -> dict[int, str]:
    """All that descend from a process, by number, with the time of their start, which no later one shares."""
    rows = {int(p.name): stat(int(p.name)) for p in Path("/proc").glob("[0-9]*")}
    found, todo = {}, [root]
    while todo:
        parent = todo.pop()
        mine = [pid for pid, row in rows.items() if row and int(row[1]) == parent]
        found.update({pid: rows[pid][19] for pid in mine})
        todo += mine
    return found


class Left(unittest.TestCase):
    """Each test starts a check or a program, ends it, and looks for what descended from it."""

    def setUp(self) -> None:
        self.dir = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)

    def ended(self, command: list[str], count: int, signum: int) -> None:
        """It is ended when it has so many descendants; soon none of them is there."""
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "env", "--default-signal", *command],  # nohup's too
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end, mine = time.monotonic() + TIMEOUT, family(process.pid)
        while len(mine) < count and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
            mine = family(process.pid)
        guests = self.guests(mine)
        process.send_signal(signum)
        process.wait()
        self.assertGreaterEqual(len(mine), count, "it did not get so far")
        left = self.soon_gone(lambda: self.left(mine))
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        for guest in guests:
            shutil.rmtree(guest, ignore_errors=True)
        self.assertEqual(left, {})

    def soon_gone(self, look: Callable[[], Found]) -> Found:
        """What it finds at last; a process that was sent SIGKILL may take a moment to end."""
        end = time.monotonic() + GONE
        while (found := look()) and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def left(self, mine: dict[int, str]) -> dict[int, str]:
        """Those that are still there, and what they are."""
        return {
            pid: Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:80]
            for pid, start in mine.items()
            if (row := stat(pid)) and row[19] == start
        }

    def guests(self, mine: dict[int, str]) -> list[Path]:
        """The directories of guests among them, which nobody removes who was killed."""
        found = []
        for pid in mine:
            try:
                at = Path(os.readlink(f"/proc/{pid}/cwd"))
            except OSError:
                continue
            if at.is_relative_to((BUILD / "guests").resolve()):
                found.append(at)
        return found

    def check(self, *test: str) -> list[str]:
        """The command of a check that runs it."""
        return [PYTHON, "-c", CHECK, str(self.dir / "log"), *test]

    def test_check(self) -> None:
        """Leash, test, two workers, shell, sleep."""
        for signum in (signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT):
            with self.subTest(signal.Signals(signum).name):
                self.ended(self.check(PYTHON, "-c", TEST), 6, signum)

    def test_bitflip(self) -> None:
        """In a check leash, campaign, guest, two workers; and by itself, without the leash."""
        campaign = [PYTHON, "tests/campaigns/bitflip.py", "--flips=100000", "--jobs=2"]
        self.ended(self.check(*campaign), 5, signal.SIGTERM)
        self.ended(campaign, 3, signal.SIGKILL)

    def test_status(self) -> None:
        """The command's own, a signal included; and what it leaves behind in its group goes with it."""
        for script, status in (
            ("exit 7", 7),
            ("kill -ABRT $$", -signal.SIGABRT),
            ("kill -9 $$", -9),
        ):
            done = subprocess.run(
                [
                    *LEASH,
                    str(os.getpid()),
                    "sh",
                    "-c",
                    f"ulimit -c 0; sleep 1000 & echo $!; {script}",
                ],
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                timeout=TIMEOUT,
            )
            self.assertEqual(done.returncode, status, script)
            sleeper = int(done.stdout)
            self.assertEqual(self.soon_gone(lambda: stat(sleeper)), [], script)

    def test_parent_is_gone(self) -> None:
        """Where the parent ended before the leash was there, nothing is started."""
        file = self.dir / "started"
        subprocess.run([*LEASH, "1", "touch", str(file)], start_new_session=True, timeout=TIMEOUT)
        self.assertFalse(file.exists())


if __name__ == "__main__":
    unittest.main()
