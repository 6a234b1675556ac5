#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""QEMU's stub on a unix socket, with so many CPUs that the monitor's answers are long."""

from __future__ import annotations

import json
import re
import subprocess
import unittest

from qemu import Guest, gdb_command

CPUS = 32
SECONDS = 3.0  # of GDB's time
TIMES = re.compile(r"^took (\S+) s, (\S+) s of the processor$", re.M)
TIMED = """python
import time
wall, own = time.monotonic(), time.process_time()
gdb.execute("ktf-pt-check --json")
print(f"took {time.monotonic() - wall:.2f} s, {time.process_time() - own:.2f} s of the processor")
"""


class UnixStub(unittest.TestCase):
    """One guest, looked at more than once."""

    def gdb(self, guest: Guest, *commands: str) -> str:
        """What GDB prints; it must come to its end."""
        args = [word for command in commands for word in ("-ex", command)]
        # From the guest's directory: a socket's name may have 107 bytes, a checkout's path may have more.
        done = subprocess.run(
            gdb_command(None, "-batch", "-ex", "target remote stub", *args, "-ex", "disconnect"),
            cwd=guest.dir,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_many_cpus(self) -> None:
        """By each way to read memory."""
        with Guest(
            mem="256M", smp=CPUS, ramfile=True, stopped=False, timeout=150, cmdline="acpi=off"
        ) as guest:
            guest.wait_serial(f"ready: {CPUS} CPU")
            guest.hmp("gdbserver none")  # that of TCP
            guest.hmp("gdbserver unix:stub,server=on,wait=off")
            for reader in ("auto", "gdbstub"):
                with self.subTest(reader):
                    script = guest.dir / "timed.gdb"
                    script.write_text(TIMED + "end\n")
                    said = self.gdb(guest, f"set ktf reader {reader}", "source timed.gdb")
                    found = json.loads(next(x for x in said.splitlines() if x.startswith("{")))
                    self.assertEqual((found["ok"], found["violations"]), (True, []), said)
                    times = TIMES.search(said)
                    assert times is not None, said
                    print(f"{reader}: {times[0]}")
                    self.assertLess(float(times[2]), SECONDS, said)
            said = self.gdb(guest, "ktf-core core", "ktf-postmortem", "ktf-pt-check")
            self.assertIn(f" {CPUS} CPUs, ", said)
            self.assertRegex(said, r"mappings: 0 violations\n")


if __name__ == "__main__":
    unittest.main()
