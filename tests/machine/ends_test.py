#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""How guests end: `make run`'s status and line, and what Guest.wait() says, for each way and whichever QEMU is installed."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
import unittest

from job import PYTHON
from qemu import EXIT_FAILURE, EXIT_SUCCESS, ROOT, Guest, GuestError, gdb_command

TIMEOUT = 90.0
BOOTED = "KTF is ready"
# Command line of the guest, the run's status (None: any but 0), and a pattern for the line that says how it ended.
RUNS: dict[str, tuple[str, int | None, str]] = {
    "success": ("acpi=off test=lib_string", 0, r"\A\Z"),
    "failure": (
        "acpi=off test=no-such",
        EXIT_FAILURE,
        rf"\AThe guest ended with status {EXIT_FAILURE}\b.*\Z",
    ),
    "power-off": ("power-off", 0, r"\AThe guest switched the machine off\.\Z"),
    "panic": (
        "acpi=off crash=panic",
        None,
        r"\AThe guest has panicked: `make debug 'CMDLINE=acpi=off crash=panic'`.* says why\.\Z",
    ),
    "triple fault": (
        "acpi=off crash=triple-fault",
        None,
        r"\AThe guest was reset, by a triple fault: `make debug 'CMDLINE=.*'`.* says why\.\Z",
    ),
}


def command(words: str, smp: int = 1) -> list[str]:
    """As the Makefile runs a guest."""
    return [PYTHON, str(ROOT / "tools/qemu.py"), "run", f"--smp={smp}", f"--cmdline={words}"]


class Run(unittest.TestCase):
    """`make run`."""

    def test_ends(self) -> None:
        """By itself, with the guest's status."""
        for name, (words, status, said) in RUNS.items():
            with self.subTest(name):
                done = subprocess.run(
                    command(words, smp=2),
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT,
                )
                self.assertIn(BOOTED, done.stdout, done.stdout + done.stderr)
                self.assertRegex(done.stderr.strip(), re.compile(said, re.DOTALL))
                if status is None:
                    self.assertNotEqual(done.returncode, 0)
                else:
                    self.assertEqual(done.returncode, status, done.stderr)

    def on_terminal(self, keys: bytes) -> tuple[int, str]:
        """A guest that would run for ever, on a terminal; these keys once it is up. Status and all that was shown."""
        main, terminal = pty.openpty()
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command("acpi=off")],
            cwd=ROOT,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        said, end, sent = b"", time.monotonic() + TIMEOUT, False
        try:
            while process.poll() is None and time.monotonic() < end:
                if select.select([main], [], [], 0.1)[0]:
                    try:
                        said += os.read(main, 4096)
                    except OSError:
                        break  # nobody has the terminal any more
                if b"Nothing left to do" in said and not sent:
                    os.write(main, keys)
                    sent = True
            return process.wait(max(0.1, end - time.monotonic())), said.decode(errors="replace")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            os.close(main)

    def test_user(self) -> None:
        """Ctrl-a x ends it with status 0; the console's own monitor (Ctrl-a c, quit) does, too."""
        for keys in (b"\x01x", b"\x01cquit\n"):
            with self.subTest(keys=keys):
                status, said = self.on_terminal(keys)
                self.assertEqual(status, 0, said)
                self.assertNotIn("The guest ", said)


class Wait(unittest.TestCase):
    """Guest.wait()."""

    def wait(self, words: str, extra: tuple[str, ...] = ()) -> int:
        """Of a guest with that command line."""
        with Guest(stopped=False, smp=2, timeout=TIMEOUT, cmdline=words, extra=extra) as guest:
            return guest.wait()

    def test_status(self) -> None:
        """The kernel's own, whether QEMU ends at once or pauses first."""
        self.assertEqual(self.wait("acpi=off test=lib_string"), EXIT_SUCCESS)
        self.assertEqual(self.wait("acpi=off test=no-such"), EXIT_FAILURE)

    def test_no_end(self) -> None:
        """An end that is not the guest's own is raised, and named."""
        for words, said in (
            ("power-off", "switched the machine off"),
            ("acpi=off crash=panic", "the kernel panicked"),
            ("acpi=off crash=triple-fault", "was reset"),
        ):
            with self.subTest(words):
                with self.assertRaisesRegex(GuestError, said):
                    self.wait(words)

    def test_killed(self) -> None:
        """By GDB's `kill`, which QEMU from 10.0 on reports as a shutdown by the guest."""
        with Guest(cmdline="acpi=off", stopped=True, timeout=TIMEOUT) as guest:
            subprocess.run(
                gdb_command(guest.port, "-batch", "-ex", "kill"),
                capture_output=True,
                timeout=TIMEOUT,
            )
            with self.assertRaisesRegex(GuestError, "^GDB's `kill` ended the machine$"):
                guest.wait()

    def test_reset(self) -> None:
        """A reset that is no triple fault: here by the monitor."""
        with Guest(stopped=False, timeout=TIMEOUT, cmdline="acpi=off") as guest:
            guest.wait_serial(BOOTED)
            guest.qmp("system_reset")
            with self.assertRaisesRegex(GuestError, "was reset"):
                guest.wait()


if __name__ == "__main__":
    unittest.main()
