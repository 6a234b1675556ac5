#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Power: the button arrives as an event, and switching off by \\_S5 ends QEMU; on each machine, firmware, 1 and 4 CPUs."""

from __future__ import annotations

import re
import unittest
from typing import Any

from qemu import EXIT_SUCCESS, Guest, GuestError

PRESSED = "ACPI: the power button was pressed"
IDLE = "Nothing left to do"
# As a machine does it, not as our debug guests: QEMU ends.
ENDS = ["-action", "shutdown=poweroff"]
TESTS = "test=acpi,acpi_two_maps,acpi_random,acpi_restart"


def reasons(guest: Guest) -> list[str]:
    """Why QEMU says that it ended, in its own words."""
    return [e["data"]["reason"] for e in guest.end_events() if e["event"] == "SHUTDOWN"]


class Power(unittest.TestCase):
    """One boot each."""

    def boot(self, words: str, **config: Any) -> Guest:
        """A guest that runs; closed at the end of the test."""
        guest = Guest(stopped=False, timeout=100, cmdline=words, extra=ENDS, **config)
        self.addCleanup(guest.close)
        return guest

    def ended(self, guest: Guest) -> str:
        """It powered itself off, and nothing else happened. What it said."""
        # Not guest.wait(), whose questions might meet the end, and its last words be lost.
        self.assertEqual(guest.process.wait(), 0, guest.tail())
        said = guest.output()
        self.assertEqual(reasons(guest), ["guest-shutdown"], guest.tail())
        for words in ("PANIC", "FAILED", "reset"):
            self.assertNotIn(words, said)
        self.assertEqual(said.splitlines()[-1], "ACPI: powering off")
        return said

    def button(self, machine: str, uefi: bool, smp: int) -> None:
        """The tests of ACPI, then the button, which powers off."""
        guest = self.boot(f"{TESTS} power-button", machine=machine, uefi=uefi, smp=smp)
        said = guest.wait_serial(IDLE)
        self.assertIn(f"{TESTS.count(',') + 1} passed, 0 failed", said)
        self.assertIn(f"ready: {smp} CPU", said)
        self.assertNotIn(PRESSED, said)
        guest.qmp("system_powerdown")
        self.assertEqual(self.ended(guest).count(PRESSED), 1)
        devices = re.search(r"ACPI: (\d+) devices, (\d+) processor objects", said)
        assert devices is not None
        self.assertEqual(int(devices[2]), smp, devices[0])

    def test_word(self) -> None:
        guest = self.boot("test=acpi_work power-off", smp=2)
        self.assertIn("1 passed, 0 failed", self.ended(guest))

    def test_failed_test_is_not_powered_off(self) -> None:
        guest = self.boot("test=no-such-test power-off power-button")
        self.assertNotIn(guest.wait(), (0, EXIT_SUCCESS))

    def test_without_acpi(self) -> None:
        """Then nobody hears the button, and nothing is powered off."""
        guest = self.boot("acpi=off power-off")
        self.assertIn(
            "ACPI: not running: the machine can't be powered off", guest.wait_serial(IDLE)
        )
        guest.qmp("system_powerdown")
        self.assertEqual(guest.status(), "running")
        guest.close()
        guest.close()  # twice, and after its end, is nothing special
        self.assertNotIn(PRESSED, guest.output())

    def test_first_start(self) -> None:
        """The counts before ACPI was ever up are those after: nothing stays of the first start alone."""
        guest = self.boot("acpi=off test=acpi_restart")
        self.assertEqual(guest.wait(), EXIT_SUCCESS, guest.tail())
        self.assertIn("1 passed, 0 failed", guest.output())

    def test_close_after_the_end(self) -> None:
        """What was still to be sent to a QEMU that is gone does not matter."""
        guest = self.boot("power-off")
        self.assertEqual(guest.process.wait(60), 0)
        with self.assertRaises(GuestError):
            guest.qmp("query-status")
        guest.close()


def add_machines() -> None:
    """A test method for each machine."""
    for machine in ("pc", "q35"):
        for uefi in (False, True):
            for smp in (1, 4):

                def test(
                    self: Power, machine: str = machine, uefi: bool = uefi, smp: int = smp
                ) -> None:
                    self.button(machine, uefi, smp)

                setattr(Power, f"test_{machine}_{'uefi' if uefi else 'bios'}_{smp}", test)


add_machines()

if __name__ == "__main__":
    unittest.main()
