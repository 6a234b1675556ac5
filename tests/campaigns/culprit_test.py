#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`make culprit`, really run: the storing instruction, by both ways, and what it says where nothing is to be found."""

from __future__ import annotations

import io
import re
import resource
import subprocess
import sys
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "gdb"))

from culprit import verdict
from ktf.postmortem.culprit import culprit
from qemu import ROOT, gdb_command
from transcript import FREELY, Comparison

SECONDS = 20.0  # of all processors that the search uses; the host may be busy


QUICK = (
    "Runs.test_wild_store",
    "Runs.test_nothing_broken",
    "Runs.test_no_cmdline",
    "Judging",
    "Verdict",
)
OFF = " acpi=off"  # fewer events to search


def search(cmdline: str, *more: str) -> tuple[int, str]:
    """Status and what is printed."""
    command = [
        sys.executable,
        str(ROOT / "tests/campaigns/culprit.py"),
        f"--cmdline={cmdline and cmdline + OFF}",
        *more,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    return done.returncode, done.stdout + done.stderr


def used() -> float:
    """Seconds of processors that what we started and ended has used, QEMU and GDB included."""
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return times.ru_utime + times.ru_stime


class Runs(unittest.TestCase):
    """Guests that break something."""

    def test_wild_store(self) -> None:
        """The store itself, although 100,000 instructions passed; the same again."""
        start = used()
        status, said = search("crash=wild-store", "--smp=2")
        self.assertLess(used() - start, SECONDS)
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"(?m)^culprit: wild_store at tests/guest/crash_mm\.c:\d+, CPU 0")
        self.assertRegex(said, r"movq +\$0x6b6b6b6a,\(%r..\)")
        self.assertRegex(
            said, r"entry of level 1 for 0xffffc06000000000 in kernel, .*-> 0x6b6b6b6a"
        )
        self.assertRegex(said, r"(?m)^  #1 .* in crash_wild_store ")
        self.assertEqual(search("crash=wild-store", "--smp=2")[1], said)
        self.assertGreaterEqual(self.quiet(), 100_000)
        self.compare(said, '$ make culprit CMDLINE="crash=wild-store acpi=off" SMP=2\n')

    def quiet(self) -> int:
        """Instructions between the store and the access that notices: a loop of two, by the kernel's own code."""
        command = gdb_command(None, "-batch")
        for name in ("crash_wild_store", "work_quietly"):
            command += ["-ex", f"disassemble {name}"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        self.assertRegex(text, r"dec +%\w+\n.*\sjne ")
        counts = re.findall(r"mov +\$0x([0-9a-f]+),%e\w\w\b", text)
        return 2 * max(int(count, 16) for count in counts)

    def compare(self, said: str, command: str) -> None:
        """With what docs/postmortem.md has behind that command."""
        document = (ROOT / "docs/postmortem.md").read_text()
        self.assertIn(command, document)
        expected = document.partition(command)[2].partition("```")[0]
        varies = [rf"(\d+) writes{FREELY}", r"after event (\d+)", r"slot (\d+)"]
        # Which frame was free decides where its descriptor stands, at the start of a page or not.
        varies.append(rf"descriptor of frame 0x[0-9a-f]+: \d+ bytes at (0x[0-9a-f]+){FREELY}")
        Comparison(varies).compare(expected.splitlines(), said.splitlines())

    def test_alias(self) -> None:
        """A page table that is written through an address which is none of the window's."""
        status, said = search("crash=table-reuse", "--smp=1")
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"(?m)^culprit: .*\n.*\n.*0x0 -> 0x[0-9a-f]+\n  #0 .* map_by_hand ")
        self.assertRegex(
            said,
            r"(?m)^then: fill_buffer .*\n.*\n.* written at 0xffffc060000[0-4][0-9a-f]000: .*-> 0x5a5a",
        )

    def test_triple_fault(self) -> None:
        """A guest that goes down without a word."""
        status, said = search("crash=triple-fault", "--smp=4")
        self.assertEqual(status, 0, said)
        self.assertIn("run 1: triple fault on CPU 0 at triple_fault", said)
        self.assertRegex(said, r"(?m)^culprit: triple_fault.* at tests/guest/crash\.c:\d+, CPU 0")

    def test_journal(self) -> None:
        """The other way names the event."""
        status, said = search("crash=idt-unmapped", "--smp=1", "--by=journal")
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"event \d+ is the first after which C2 is broken")
        self.assertRegex(said, r"(?m)^  #\d+ .* in crash_unmap ")

    def test_descriptor(self) -> None:
        """A count in a frame's descriptor."""
        status, said = search("plant=P6", "--smp=1")
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"(?m)^culprit: plant_p6.* at tests/guest/plant\.c:\d+, CPU 0")

    def test_nothing_broken(self) -> None:
        """No structure, no culprit."""
        status, said = search("crash=null-call", "--smp=1")
        self.assertEqual(status, 0, said)
        self.assertIn("no structure is broken there", said)
        self.assertNotIn("culprit:", said)

    def test_busy_memory(self) -> None:
        """A count that each operation writes: watched only from the last good event on, here the last one."""
        status, said = search("plant=A4", "--smp=1")
        self.assertEqual(status, 0, said)
        self.assertIn("it broke after event", said)
        self.assertRegex(said, r"(?m)^last run: 1 writes after event \d+, the same end$")
        self.assertRegex(said, r"(?m)^culprit: plant_a4 at tests/guest/plant_frames\.c:\d+, CPU 0")

    def test_no_page_tables(self) -> None:
        """CR3 leads nowhere: whatever is said, it is no traceback."""
        status, said = search("crash=dead-cr3", "--smp=1")
        self.assertIn(status, (0, 1), said)
        self.assertNotIn("Traceback", said)
        self.assertRegex(said, "run 1: triple fault on CPU 0 at load_cr3")

    def test_no_cmdline(self) -> None:
        """It needs to know what goes wrong."""
        status, said = search("")
        self.assertEqual(status, 2)
        self.assertIn("CMDLINE=", said)


class Judging(unittest.TestCase):
    """Which of the writes it was."""

    def test_states(self) -> None:
        """The first one found broken after the last one found sound; else the last that nobody could judge."""
        cases: list[tuple[list[bool | None], int | None]] = [
            ([], None),
            ([False], None),
            ([False, True], 1),
            ([True, False, None, True, True], 3),
            ([False, None, None], 2),
            ([None], 0),
        ]
        for states, number in cases:
            self.assertEqual(culprit(states), number, states)


class Verdict(unittest.TestCase):
    """What is made of a run with watches."""

    FIRST: dict[str, Any] = {
        "stop": {"kind": "panic", "cpu": 0, "source": "", "registers": {"rip": 1, "rsp": 8}}
    }
    WRITE: dict[str, Any] = {
        "watch": 0,
        "va": 0x1000,
        "before": "01" * 8,
        "after": "6b" * 8,
        "cpu": 0,
        "at": 0x2000,
        "instruction": "mov %rax,(%rdi)",
        "source": "store at a.c:1",
        "backtrace": "#0 store",
        "event": 5,
        "broken": [True],
    }

    def verdict(self, **changed: Any) -> tuple[int | None, str]:
        """Status and text for a run with one write."""
        found = {**self.FIRST, "writes": [self.WRITE], "missed": [], **changed}
        with redirect_stdout(io.StringIO()) as text:
            status = verdict(found, self.FIRST, [{"name": "an entry"}])
        return status, text.getvalue()

    def test_culprit(self) -> None:
        """The store, the place, old and new value."""
        status, said = self.verdict()
        self.assertEqual(status, 0)
        self.assertIn("culprit: store at a.c:1, CPU 0, after event 4 of the journal\n", said)
        self.assertIn("written at 0x1000: 0x101010101010101 -> 0x6b6b6b6b6b6b6b6b\n", said)

    def test_ended_elsewhere(self) -> None:
        """A run that is not the first one again proves nothing, whatever it wrote."""
        for name, value in (("kind", "idle"), ("cpu", 1), ("registers", {"rip": 1, "rsp": 16})):
            status, said = self.verdict(stop={**self.FIRST["stop"], name: value})
            self.assertEqual(status, 2, name)
            self.assertIn("! this run ended elsewhere: ", said)
            self.assertNotIn("culprit", said)

    def test_missed(self) -> None:
        """A change that no watch saw is reported, and no store is blamed for it."""
        status, said = self.verdict(missed=["an entry"])
        self.assertIsNone(status)
        self.assertIn("! an entry changed through an address that is not mapped any more", said)
        self.assertNotIn("culprit", said)

    def test_nobody(self) -> None:
        """No write, none that broke anything."""
        for writes in ([], [{**self.WRITE, "broken": [False]}]):
            status, said = self.verdict(writes=writes)
            self.assertIsNone(status)
            self.assertNotIn("culprit", said)


if __name__ == "__main__":
    # The others search for minutes by the journal: `tests/campaigns/culprit_test.py --all`.
    unittest.main(argv=sys.argv[:1] if "--all" in sys.argv else [*sys.argv, *QUICK])
