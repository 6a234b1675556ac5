#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's table of crash=KIND, as its symbols tell it, against the kinds that tests/campaigns/postmortem.py tries."""

from __future__ import annotations

import re
import subprocess
import unittest

from postmortem import CPUS, KINDS, runs
from qemu import ROOT, gdb_command

PRINT = "print 'tests/guest/crash.c'::kinds"


def table() -> list[str]:
    """The kinds in the kernel's image, which `crash=list` prints."""
    command = [*gdb_command(None, "-batch"), "-ex", "set print elements 0", "-ex", PRINT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return re.findall(r'\bkind = 0x[0-9a-f]+(?: <[^>]*>)? "([^"]+)"', done.stdout)


class Table(unittest.TestCase):
    """Each kind has its test."""

    def test_every_kind(self) -> None:
        """No kind without what is expected of it, none expected that is not there."""
        kinds = table()
        self.assertGreater(len(kinds), 20)
        self.assertEqual(sorted(kinds), sorted(KINDS))

    def test_every_kind_runs(self) -> None:
        """With one of the counts of CPUs at least."""
        for kind in KINDS:
            self.assertTrue(any(runs(kind, smp) for smp in CPUS), kind)


if __name__ == "__main__":
    unittest.main()
