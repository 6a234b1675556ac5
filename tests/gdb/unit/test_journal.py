# SPDX-License-Identifier: BSD-2-Clause
# The journal on made-up rings: one order of all CPUs, what an event is about, and rings full of nonsense.
"""Tests of ktf.journal and ktf.commands_journal."""

from __future__ import annotations

import json
import unittest
from typing import Any

import numpy as np

from fake_guest import Plain
from synthetic_journal import PLACES, STEP, Rings
from synthetic_model import IMAGE

from ktf.kernel import journal
from ktf.commands.journal import JournalCommand
from ktf.errors import KtfError


def said(rings: Rings, line: str) -> str:
    """What the command prints."""
    context = Plain(rings.machine.session())
    JournalCommand().invoke(context, line)
    return context.text


def numbers(found: journal.Journal) -> list[int]:
    """Which events those are."""
    numbers: list[int] = found.rows["number"].tolist()
    return numbers


class Order(unittest.TestCase):
    """All CPUs' events in one order; each at its place."""

    def test_two_cpus(self) -> None:
        """By number, the last ones of each; an old one of a CPU that does little is kept."""
        rings = Rings()
        rings.event(5, "GET", mfn=0x100, kind=1, refcount=1)
        for i in range(20):
            rings.event(i % 2, "MAP", mfn=0x200 + i, kind=1, va=0x1000 * i, count=1)
        found = rings.read()
        self.assertEqual(numbers(found), [1, *range(14, 22)])
        self.assertEqual(found.rows["cpu"].tolist(), [5, *[0, 1] * 4])
        self.assertEqual(found.notes, ())
        self.assertEqual([found.ago(r) for r in found.rows], [21, 8, 7, 6, 5, 4, 3, 2, 1])
        self.assertEqual(numbers(found.last(2)), [20, 21])
        self.assertEqual(numbers(found.since(20)), [20, 21])

    def test_empty(self) -> None:
        """Nothing happened yet."""
        rings = Rings()
        rings.machine.poke("struct mm", 0, journal_seq=STEP)
        self.assertEqual(len(rings.read()), 0)
        self.assertEqual(said(rings, ""), "none of the 0 events that are kept\n")

    def test_off(self) -> None:
        """It is said that nothing is written."""
        rings = Rings()
        rings.event(0, "GET", mfn=0x100, kind=1)
        rings.machine.poke("struct mm", 0, journal_on=0)
        self.assertIn("! the journal is switched off (mm.journal_on)", said(rings, ""))


class About(unittest.TestCase):
    """Which memory and which addresses an event is about."""

    def setUp(self) -> None:
        self.rings = Rings()

    def frames(self, mfn: int, order: int = 0) -> list[int]:
        """Events of these pages."""
        return numbers(self.rings.read().of_frame(mfn, order))

    def vas(self, va: int, size: int = 1) -> list[int]:
        """Events of these addresses."""
        return numbers(self.rings.read().of_va(va, size))

    def test_block(self) -> None:
        """A block is all of its pages."""
        self.rings.event(0, "GET", mfn=0x200, order=3, kind=1)
        self.assertEqual(self.frames(0x1FF), [])
        self.assertEqual(self.frames(0x200), [1])
        self.assertEqual(self.frames(0x207), [1])
        self.assertEqual(self.frames(0x208), [])
        self.assertEqual(self.frames(0, 10), [1])
        self.assertEqual(self.vas(0, 1 << 63), [])

    def test_split(self) -> None:
        """Its frame is the lower half; the upper one was split as well."""
        self.rings.event(0, "SPLIT", mfn=0x200, order=3, kind=1)
        self.assertEqual(self.frames(0x20F), [1])
        self.assertEqual(self.frames(0x210), [])

    def test_ranges(self) -> None:
        """Consecutive pages are as many as count says; of others only the first frame is known."""
        self.rings.event(0, "MAP_RANGE", mfn=0x203, order=9, kind=1, va=0x8000, count=5)
        self.rings.event(0, "PUT_FRAMES", mfn=0x400, order=1, kind=1, va=0x8000, count=6)
        self.assertEqual(self.frames(0x202), [])
        self.assertEqual(self.frames(0x207), [1])
        self.assertEqual(self.frames(0x208), [])
        self.assertEqual(self.frames(0x401), [2])
        self.assertEqual(self.frames(0x402), [])
        self.assertEqual(self.vas(0xCFFF), [1, 2])
        self.assertEqual(self.vas(0xD000), [2])
        self.assertEqual(self.vas(0xE000), [])
        self.assertEqual(self.vas(0x7FFF), [])
        self.assertEqual(self.vas(0x7000, 0x1001), [1, 2])

    def test_shootdown(self) -> None:
        """It is about no frame, and names one address."""
        self.rings.event(0, "SHOOTDOWN", va=0xFFFFC00000000000, count=7)
        self.assertEqual(self.frames(0, 40), [])
        self.assertEqual(self.vas(0xFFFFC00000000FFF), [1])
        self.assertEqual(self.vas(0xFFFFC00000001000), [])
        self.assertEqual(self.vas(0xFFFFBFFFFFFFF000, 0x2000), [1])

    def test_top_of_the_address_space(self) -> None:
        """Where addresses end, nothing wraps."""
        self.rings.event(0, "MAP", mfn=0x200, order=18, kind=1, va=(1 << 64) - 4096)
        self.assertEqual(self.vas((1 << 64) - 1), [1])
        self.assertEqual(self.vas((1 << 64) - 1, 1 << 40), [1])
        self.assertEqual(self.vas(0, 4096), [])

    def test_in_words(self) -> None:
        """The sentence that a post-mortem says."""
        self.rings.event(0, "UNMAP", mfn=0x200, kind=1, va=0x1000, caller=0x5001)
        self.rings.event(0, "UNMAP", mfn=0x200, kind=1, va=0x1000, caller=0, count=2)
        found = self.rings.read()

        def source(va: int) -> str:
            return "bar + 16 at mm/foo.c:12" if va == 0x5000 else ""

        words = [journal.describe(row, found, source) for row in found.rows]
        self.assertEqual(words[0], "unmapped by bar at mm/foo.c:12, 2 events ago")
        self.assertEqual(words[1], "put down to 2 references by 0x0, 1 event ago")


class Nonsense(unittest.TestCase):
    """Rings that were overwritten, and events that are being written."""

    def strange(self, rings: Rings) -> str:
        """The only note on the rings."""
        notes = rings.read().notes
        self.assertTrue(notes)
        return notes[0]

    def test_being_written(self) -> None:
        """A number was taken, but the event does not stand there yet."""
        rings = Rings()
        for _ in range(3):
            rings.event(0, "GET", mfn=0x100, kind=1)
        rings.machine.poke("struct mm", 0, journal_seq=5 * STEP)
        self.assertIn("1 of the last 4 events are not in the rings", self.strange(rings))
        self.assertEqual(numbers(rings.read()), [1, 2, 3])

    def test_wrong_place(self) -> None:
        """An event stands at the place of its number, once, and is not of the future."""
        for seq in (1, STEP + 1, 2 * STEP, 1 << 63, 65 * STEP):
            rings = Rings()
            rings.event(0, "GET", mfn=0x100, kind=1)
            rings.event(1, "GET", mfn=0x101, kind=1)
            rings.bytes.view(np.uint64)[1 * STEP // 8] = seq
            self.assertIn("1 place of its rings holds no event", self.strange(rings), hex(seq))
            self.assertEqual(numbers(rings.read()), [2], hex(seq))

    def test_twice(self) -> None:
        """The same number on two CPUs: one is believed."""
        rings = Rings()
        rings.event(0, "GET", mfn=0x100, kind=1)
        rings.bytes[8 * STEP + STEP : 8 * STEP + 2 * STEP] = rings.bytes[STEP : 2 * STEP]
        self.assertIn("no event", self.strange(rings))
        self.assertEqual(numbers(rings.read()), [1])

    def test_no_operation(self) -> None:
        """Numbers that name none."""
        for op in (0, 16, 1 << 31):
            rings = Rings()
            rings.event(0, "GET", mfn=0x100, kind=1)
            rings.bytes.view(np.uint32)[(STEP + 40) // 4] = op
            self.assertEqual(len(rings.read()), 0)
            self.assertIn("no event", self.strange(rings))

    def test_no_number(self) -> None:
        """mm.journal_seq itself is overwritten: the events are shown all the same."""
        for seq in (0, 77, (1 << 64) - 1):
            rings = Rings()
            rings.event(0, "GET", mfn=0x100, kind=1)
            rings.machine.poke("struct mm", 0, journal_seq=seq)
            self.assertIn("no number of an event", self.strange(rings))
            self.assertEqual([rings.read().ago(r) for r in rings.read().rows], [1])

    def test_pointers(self) -> None:
        """A CPU without a ring, and pointers that lead nowhere: the other rings are read, and the missing ones named."""
        for va, told in ((0, False), (0x1000, True), (IMAGE - 1, True), ((1 << 64) - 4096, True)):
            rings = Rings()
            for cpu in (0, 1, 2):
                rings.event(cpu, "GET", mfn=0x100, kind=1)
            rings.at[1] = va
            found = rings.read()
            self.assertEqual(numbers(found), [1, 3], hex(va))
            self.assertEqual([int(r["cpu"]) for r in found.rows], [0, 2])
            self.assertEqual(
                f"of the ring of CPU 1 at {va:#x} 1 page can't be read" in str(found.notes), told
            )
            self.assertIn("1 of the last 3 events", str(found.notes))
        rings.at[:] = 0
        self.assertRaises(KtfError, rings.read)

    def test_random(self) -> None:
        """Any bytes at all: text, JSON, every filter; never an exception, never silent."""
        random = np.random.default_rng(1)
        rings = Rings()
        rings.event(0, "GET", mfn=0x100, kind=1)
        for turn in range(60):
            rings.bytes[:] = random.integers(0, 256, len(rings.bytes), np.uint8)
            if turn % 2:  # numbers that fit, all else random
                seq = np.arange(len(rings.bytes) // STEP) % PLACES * STEP + turn * PLACES * STEP
                rings.bytes.view(np.uint64)[:: STEP // 8] = seq
                rings.bytes.view(np.uint32)[10 :: STEP // 4] %= 14
                rings.machine.poke("struct mm", 0, journal_seq=(turn + 1) * PLACES * STEP)
            self.assertIn("no event", self.strange(rings))
            for where in ("", "0x200", "--va 0xffffc00000000000", "--mfn 1"):
                self.assertNotIn("error", said(rings, f"{where} -n 1000"))
                answer: dict[str, Any] = json.loads(said(rings, f"{where} -n 1000 --json"))
                self.assertTrue(answer["ok"], answer)


class Line(unittest.TestCase):
    """The command line."""

    def test_options(self) -> None:
        """What can't be meant is refused."""
        rings = Rings()
        rings.event(0, "GET", mfn=0x200, kind=1)
        for line in ("-n 0", "-n -1", "-n all", "-n", "--mfn", "1 --mfn --pa", "--bogus", "--va"):
            with self.assertRaises(KtfError, msg=line):
                said(rings, line)

    def test_where(self) -> None:
        """A frame by number, address of memory, or pointer; an address by its value."""
        rings = Rings()
        rings.event(0, "MAP", mfn=0x200, kind=1, va=0xFFFFC00000000000, refcount=1, mapcount=2)
        for line in ("0x200000", "--mfn 0x200", "--pa 0x200fff", "0xffffc00000000123", ""):
            text = said(rings, line)
            self.assertIn("map        0x200            0 available 0xffffc00000000000", text, line)
        self.assertIn("none of the 1 events", said(rings, "0xffffc00000001000"))
        answer = json.loads(said(rings, "--json"))["events"][0]
        self.assertEqual(answer["va"], "0xffffc00000000000")
        self.assertEqual(answer["ago"], 1)


if __name__ == "__main__":
    unittest.main()
