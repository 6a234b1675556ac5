# SPDX-License-Identifier: BSD-2-Clause
# From a violation to the bytes that `make culprit` watches, on made-up guests.
"""Tests of ktf.culprit: what is watched, and through which addresses."""

from __future__ import annotations

import unittest

from synthetic import Machine
from synthetic_journal import Rings
from synthetic_model import IMAGE
from synthetic_types import SYMBOLS

from ktf.rules.examine import examine
from ktf.postmortem.culprit import Watch, broken, watches
from ktf.rules.table import RULES

HEALTHY = Machine()
VA = 0xFFFFC00000000000


def watched(m: Machine) -> list[Watch]:
    """What is to be watched in that guest."""
    session = m.session()
    return watches(session, examine(session, list(RULES))[0])


class Places(unittest.TestCase):
    """The bytes that a violation is about."""

    def of(self, m: Machine, va: int) -> Watch:
        """The one watch on the bytes of the image at va."""
        found = [w for w in watched(m) if w.pa == va - IMAGE]
        self.assertEqual(len(found), 1)
        self.assertEqual(found[0].vas, [va])
        self.assertFalse(found[0].entry or found[0].busy)
        return found[0]

    def test_gdt(self) -> None:
        """A wild store over the GDT: over all of it, over the code's descriptor alone."""
        va = SYMBOLS["gdt"][0]
        for first, last, at, size in ((0, 8, 0x28, 16), (1, 2, 0x8, 8), (6, 7, 0x28, 16)):
            with self.subTest(first=first, last=last):
                m = HEALTHY.twin()
                m.symbol("gdt").view("<u8")[first:last] = 0x6B6B6B6B6B6B6B6B
                self.assertEqual(self.of(m, va + at).size, size)

    def test_gate(self) -> None:
        """A gate whose selector, handler or type is off."""
        for member, value in (("selector", 0x10), ("offset_middle", 0x1234), ("type", 0)):
            with self.subTest(member=member):
                m = HEALTHY.twin()
                m.rows("idt", "struct idt_gate")[14][member] = value
                self.assertEqual(self.of(m, SYMBOLS["idt"][0] + 14 * 16).size, 16)

    def test_outside(self) -> None:
        """What a selector beyond the GDT's end would name is not watched."""
        m = HEALTHY.twin()
        m.rows("idt", "struct idt_gate")[:]["selector"] = 0x100
        gdt = SYMBOLS["gdt"][0] - IMAGE
        every = watched(m)
        self.assertFalse([w for w in every if gdt <= w.pa < gdt + 4096])
        self.assertTrue([w for w in every if w.pa == SYMBOLS["idt"][0] - IMAGE])

    def test_entry_and_descriptor(self) -> None:
        """A page-table entry, whose accessed and dirty bits are the processor's own; its frame's descriptor."""
        m = HEALTHY.twin()
        mfn, index = m.entry_at(1, VA, 1)
        m.set_entry(1, VA, 1, 0x6B6B6B6A)
        every = watched(m)
        found = {w.pa: w for w in every}
        entry = found[mfn * 4096 + index * 8]
        self.assertTrue(entry.entry)
        one, other = (0x6B03).to_bytes(8, "little"), (0x6B63).to_bytes(8, "little")
        self.assertTrue(entry.same(one, other))
        self.assertFalse(entry.same(one, (0x6B01).to_bytes(8, "little")))
        self.assertTrue(any(w.name == f"descriptor of frame {m.page.mfn:#x}" for w in every))

    def test_json(self) -> None:
        """The next run's GDB gets all of it."""
        m = HEALTHY.twin()
        m.set_entry(1, VA, 1, 0x6B6B6B6A)
        for watch in watched(m):
            again = Watch.of(watch.json())
            self.assertEqual((again.name, again.pa, again.vas), (watch.name, watch.pa, watch.vas))
            self.assertEqual(again.json(), watch.json())

    def test_broken(self) -> None:
        """A watch's own violation is not mixed up with others."""
        m = HEALTHY.twin()
        m.set_entry(1, VA, 1, 0x6B6B6B6A)
        entry = next(w for w in watched(m) if w.entry)
        self.assertIs(broken(examine(m.session(), list(RULES))[0], entry), True)
        other = HEALTHY.twin()
        other.set_entry(3, 0x40000000, 1, 0x6B6B6B6A)
        self.assertIs(broken(examine(other.session(), list(RULES))[0], entry), False)


class Aliases(unittest.TestCase):
    """Every address through which the bytes could be written."""

    ALIAS = VA + 0x7000

    def guest(self, *events: tuple[str, int, int]) -> list[int]:
        """The addresses of the broken entry for VA; events are of the table's frame: what, pages before it, va."""
        m = HEALTHY.twin()
        mfn, self.index = m.entry_at(1, VA, 1)
        m.set_entry(1, VA, 1, 0x6B6B6B6A)
        rings = Rings(m)
        for op, before, va in events:
            many = 2 if op.endswith("RANGE") else 1
            rings.event(0, op, mfn=mfn - before, kind=1, va=va, count=many)
        watch = next(w for w in watched(m) if w.pa == mfn * 4096 + self.index * 8)
        self.window = watch.vas[0]
        return watch.vas[1:]

    def test_window(self) -> None:
        """A table is written through its window."""
        self.assertEqual(self.guest(), [])
        self.assertEqual(self.window & 0xFFF, self.index * 8)

    def test_past(self) -> None:
        """An alias that was mapped by hand and is gone: only the journal knows it."""
        self.assertEqual(
            self.guest(("MAP", 0, self.ALIAS), ("UNMAP", 0, self.ALIAS)),
            [self.ALIAS + self.index * 8],
        )

    def test_past_range(self) -> None:
        """The second page of a range that was mapped."""
        found = self.guest(("MAP_RANGE", 1, self.ALIAS))
        self.assertEqual(found, [self.ALIAS + 0x1000 + self.index * 8])

    def test_other_frame(self) -> None:
        """What was mapped there of another frame does not count."""
        self.assertEqual(self.guest(("MAP", 1, self.ALIAS)), [])

    def test_now(self) -> None:
        """An alias that is there now, if it can be written."""
        for writable in (0, 2):
            m = HEALTHY.twin()
            mfn, index = m.entry_at(1, VA, 1)
            m.set_entry(1, VA, 1, 0x6B6B6B6A)
            m.set_entry(1, self.ALIAS, 1, mfn << 12 | 1 | writable | 1 << 63)
            watch = next(w for w in watched(m) if w.pa == mfn * 4096 + index * 8)
            self.assertEqual(self.ALIAS + index * 8 in watch.vas, bool(writable))


if __name__ == "__main__":
    unittest.main()
