#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""How little memory a guest may have: docs/limits.md says how much is needed, and with less the serial line says so."""

from __future__ import annotations

import re
import time
import unittest

from qemu import ROOT, Guest

READY = "KTF is ready"
# The kernel's words, or GRUB's (boot/grub.cfg) where the kernel does not fit: that depends on the release of GRUB.
TOO_LITTLE = ("no 2 MiB of available memory", "GRUB can't start the kernel")


def boot(mebibytes: int) -> str:
    """What a guest of that size says, up to one of these words."""
    with Guest(mem=f"{mebibytes}M", smp=2, stopped=False, timeout=100) as guest:
        said, until = guest.output(), time.monotonic() + 60
        while not any(words in said for words in (READY, *TOO_LITTLE)) and time.monotonic() < until:
            time.sleep(0.1)
            said = guest.output()
        return said


class Memory(unittest.TestCase):
    """Guests around the smallest one."""

    def test_smallest(self) -> None:
        text = (ROOT / "docs/limits.md").read_text()
        match = re.search(r"The smallest guest is one of `-m (\d+)M`", text)
        assert match is not None
        least = int(match[1])
        for mebibytes in (least, least + 1):
            self.assertIn(READY, boot(mebibytes), f"{mebibytes} MiB")
        for mebibytes in range(least - 3, least):
            said = boot(mebibytes)
            self.assertTrue(any(words in said for words in TOO_LITTLE), f"{mebibytes}: {said}")


if __name__ == "__main__":
    unittest.main()
