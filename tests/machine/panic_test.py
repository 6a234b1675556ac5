#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""What becomes of the machine in a panic: QEMU is notified once, and every CPU halts for good, whatever else goes wrong."""

from __future__ import annotations

import re
import time
import unittest

from qemu import Guest

TIMEOUT = 60.0
IF = 1 << 9
STATE = re.compile(r"RFL=([0-9a-f]+) .*HLT=([01])")


def halted(guest: Guest) -> list[bool]:
    """Of each CPU, whether it halts and no interrupt ends that."""
    states = STATE.findall(guest.hmp("info registers -a"))
    return [hlt == "1" and not int(flags, 16) & IF for flags, hlt in states]


class Panic(unittest.TestCase):
    """crash=KIND of tests/guest/crash_panic.c."""

    def crash(self, kind: str, smp: int, stopped: bool = True) -> str:
        """What the guest said before it ended. stopped: all CPUs must halt, also when QEMU lets them go on."""
        with Guest(smp=smp, cmdline=f"acpi=off crash={kind}", timeout=TIMEOUT) as guest:
            guest.cont()
            self.assertEqual(guest.wait_status("guest-panicked", "shutdown"), "guest-panicked")
            guest.cont()
            self.wait_halted(guest, smp, stopped)
            guest.qmp("quit")
            told = [e["event"] for e in guest.end_events()].count("GUEST_PANICKED")
            self.assertIn(told, range(1, smp + 1) if "state" in kind else (1,))
            return guest.output()

    def wait_halted(self, guest: Guest, smp: int, every: bool) -> None:
        """Until all CPUs halt, or any. The guest's own time-out ends it."""
        while True:
            halts = halted(guest)
            self.assertEqual(len(halts), smp)
            if all(halts) or not every and any(halts):
                return
            if guest.status() != "running":
                guest.cont()
            time.sleep(0.02)

    def test_two_faults(self) -> None:
        """The CPU that holds the console's lock does not keep the other's panic waiting."""
        for smp in (2, 4):
            said = self.crash("two-faults", smp)
            self.assertEqual(said.count("PANIC:"), 1, said)
            self.assertEqual(said.count("EXCEPTION:"), 1, said)
            self.assertIn("on CPU 0", said)
            self.assertNotIn("panic in panic", said)

    def test_panic_in_panic(self) -> None:
        """One CPU has the panic; that its report faults ends it."""
        said = self.crash("panic-in-panic", 4)
        self.assertEqual(said.count("panic in panic: #PF page fault at 0x"), 1, said)

    def test_panic_state(self) -> None:
        """Where even the panic's own variables are gone, the console says so, and all ends."""
        for smp in (1, 2):
            said = self.crash("panic-state", smp)
            self.assertRegex(
                said, r"EXCEPTION: vector 14 at 0xffffffff80[0-9a-f]+, CR2 0x10\n.*, given up"
            )

    def test_apic_unmapped(self) -> None:
        """Where the others can't be stopped, the report is made nevertheless."""
        said = self.crash("apic-unmapped", 2, stopped=False)
        self.assertEqual(said.count("PANIC:"), 1, said)
        self.assertIn("backtrace:", said)
        self.assertRegex(said, r"in handling vector 14 at 0xffffffff80[0-9a-f]+, CR2 0x10\n")


if __name__ == "__main__":
    unittest.main()
