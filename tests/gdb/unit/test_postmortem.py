# SPDX-License-Identifier: BSD-2-Clause
# The reason that ktf-postmortem finds for an address: by page tables, records, stacks and the journal of a made-up guest.
"""Tests of ktf.postmortem."""

from __future__ import annotations

import unittest
from copy import copy
from dataclasses import replace

from fake_guest import Plain
from synthetic import CR0, CR4, Machine
from synthetic_journal import Rings
from synthetic_model import STACKS, leaf

from ktf.postmortem.delivery import Chain
from ktf.x86.exceptions import DF, PF, Fault
from ktf.postmortem.story import Inquest
from ktf.postmortem.reasons import Reason
from ktf.kernel.session import Session
from ktf.postmortem.stop import PANIC, TRIPLE, Stop

HEALTHY = Machine()
VA = 0xFFFFC00000000000
GONE = VA + 0x6000  # nothing is mapped there
CODE = 0xFFFFFFFF80211000
USER_PAGE = 0x400000  # in the second space
PRESENT, WRITE, FETCH = 1, 2, 16
GUARDS = 1 << 20 | 1 << 21  # SMEP, SMAP
CALLERS = {0x10: "unmap_it at a.c:1", 0x20: "map_it at a.c:2", 0x30: "get_it at a.c:3"}


class Named(Plain):
    """Knows the lines of its callers."""

    def source(self, va: int) -> str:
        """Calls return behind them: journal.caller() asks for the address before."""
        return next((text for at, text in CALLERS.items() if at - 2 <= va <= at), "")


class Reasons(unittest.TestCase):
    """Why an access failed."""

    def setUp(self) -> None:
        self.machine = HEALTHY.twin()
        self.rings = Rings(self.machine)
        self.kept: dict[tuple[int, ...], Inquest] = {}  # by what was done to the machine so far
        self.rsp = STACKS[0][0] + 0x10  # the first stack is full

    def root(self, space: int) -> int:
        """CR3 of a space."""
        table = self.machine.tables[self.machine.roots[space]]
        assert table is not None
        return table.mfn << 12

    def inquest(self, stop: str, chain: Chain, cr3: int) -> Inquest:
        """Of a stop with that chain, at CODE."""
        session: Session = self.machine.session(cr3)
        mine = session.registers[0]
        control = {**mine.control, "cr0": CR0, "cr3": cr3, "cr4": CR4 | GUARDS}
        general = {**mine.general, "rip": CODE, "rflags": 2, "rsp": self.rsp}
        mine = replace(mine, control=control, general=general)
        return Inquest(session, Named(session), Stop(stop, mine, chain))

    def cause(self, va: int, error: int = 0, cr3: int | None = None) -> Reason:
        """The first line for a page fault that the kernel has handled."""
        root = self.root(1) if cr3 is None else cr3
        key = root, self.rings.next, self.rsp
        if key not in self.kept:
            self.kept[key] = self.inquest(PANIC, Chain(), root)
        one = copy(self.kept[key])
        one.stop = Stop(PANIC, one.registers, Chain([Fault(PF, error, va)]))
        return one.cause

    def unmapped(self, **members: int) -> None:
        """The journal's events of a page that was mapped at GONE, and is not any more."""
        mfn = self.machine.page.mfn
        self.rings.event(0, "MAP", mfn=mfn, kind=1, va=GONE, count=1, caller=0x20)
        self.rings.event(0, "UNMAP", mfn=mfn, kind=1, va=GONE, count=0, caller=0x10, **members)

    def test_access(self) -> None:
        """What was done, where to."""
        for error, word in ((0, "reading"), (WRITE, "writing"), (FETCH, "executing")):
            self.assertTrue(self.cause(GONE, error).text.startswith(f"#PF {word} {GONE:#x}"))

    def test_unmapped(self) -> None:
        """By whom, how long ago."""
        self.unmapped()
        said = self.cause(GONE + 0x10)
        self.assertIn("unmapped by unmap_it at a.c:1, 1 event ago", said.text)
        self.assertIsNone(said.rule)

    def test_mapped_again(self) -> None:
        """Who unmapped it before it was mapped again did no harm."""
        self.unmapped()
        mfn = self.machine.page.mfn
        self.rings.event(0, "MAP", mfn=mfn, kind=1, va=GONE, count=1, caller=0x20)
        self.assertNotIn("unmapped by", self.cause(GONE).text)

    def test_still_mapped(self) -> None:
        """A put that only counted down unmapped nothing."""
        mfn = self.machine.page.mfn
        self.rings.event(0, "MAP", mfn=mfn, kind=1, va=GONE, count=2, caller=0x20)
        self.rings.event(0, "UNMAP", mfn=mfn, kind=1, va=GONE, count=1, caller=0x10)
        self.assertNotIn("unmap_it", self.cause(GONE).text)

    def test_shootdown_between(self) -> None:
        """The flush that belongs to an unmap does not hide it."""
        self.unmapped()
        self.rings.event(0, "SHOOTDOWN", va=GONE, count=1, caller=0x10)
        self.assertIn("unmapped by unmap_it", self.cause(GONE).text)

    def test_range(self) -> None:
        """A page within a range, and one behind its end."""
        first = GONE - 0x1000
        self.rings.event(
            0, "PUT_RANGE", mfn=self.machine.page.mfn - 1, kind=1, va=first, count=2, caller=0x10
        )
        said = self.cause(GONE)
        self.assertIn("by unmap_it at a.c:1", said.text)
        self.assertIn(f"frame {self.machine.page.mfn:#x}", said.text)
        self.assertNotIn("by unmap_it", self.cause(GONE + 0x1000).text)

    def test_since(self) -> None:
        """What its frame is now: owned, handed out, free, a page table."""
        self.unmapped()
        self.assertIn("still owned", self.cause(GONE).text)
        self.rings.event(0, "GET", mfn=self.machine.page.mfn, kind=1, refcount=1, caller=0x30)
        self.assertIn("since handed out to get_it at a.c:3", self.cause(GONE).text)
        for mfn, words in (
            (
                next(b.mfn for b in self.machine.blocks.values() if not b.refcount + b.mapcount),
                "free now",
            ),
            (self.machine.entry_at(1, VA, 1)[0], "since reused as level 1 table"),
            (0x8000, "in no frame now"),
        ):
            self.setUp()
            self.rings.event(0, "UNMAP", mfn=mfn, kind=1, va=GONE, count=0, caller=0x10)
            self.assertIn(words, self.cause(GONE).text)

    def test_guards(self) -> None:
        """A user page: SMAP for what the kernel reads or writes, SMEP for what it executes."""
        user = self.root(2)
        self.assertIn("SMAP is on", self.cause(USER_PAGE, PRESENT, user).text)
        self.assertNotIn("SMEP", self.cause(USER_PAGE, PRESENT, user).text)
        entry = self.machine.set_entry(2, USER_PAGE, 1, 0)
        self.machine.set_entry(2, USER_PAGE, 1, entry & ~(1 << 63) | 2)
        self.kept.clear()
        self.assertIn("SMAP is on", self.cause(USER_PAGE, PRESENT | WRITE, user).text)
        said = self.cause(USER_PAGE, PRESENT | FETCH, user).text
        self.assertIn("SMEP is on", said)
        self.assertNotIn("SMAP", said)

    def test_rights(self) -> None:
        """A page that is there, but not for this."""
        self.assertIn("may not be written", self.cause(CODE, PRESENT | WRITE).text)
        self.assertIn("of text", self.cause(CODE, PRESENT | WRITE).text)
        self.assertIn("may not be executed", self.cause(VA, PRESENT | FETCH).text)

    def test_null(self) -> None:
        """Page 0, and what lies a little above it."""
        self.assertIn("a null pointer", self.cause(0x10).text)
        self.assertIn("near null", self.cause(0x2000).text)
        self.assertNotIn("null", self.cause(0x20000).text)

    def test_guard_pages(self) -> None:
        """Below a stack, above one; not on it."""
        bottom, top = STACKS[0]
        said = self.cause(bottom - 8, WRITE).text
        self.assertIn("stack 'cpu0' has overflowed into its guard page", said)
        self.assertIn("the guard page above stack 'cpu0'", self.cause(top, WRITE).text)
        self.assertNotIn("guard", self.cause(bottom - 0x1008, WRITE).text)
        self.rsp = top - 0x100  # nearly empty: a wild store
        said = self.cause(bottom - 8, WRITE).text
        self.assertIn("the guard page below stack 'cpu0'", said)
        self.assertNotIn("overflowed", said)

    def test_elsewhere(self) -> None:
        """The address is mapped, but in another space: then events name it."""
        self.rings.event(0, "MAP", mfn=self.machine.page.mfn, kind=1, va=GONE, count=1, caller=0x20)
        said = self.cause(GONE).text
        self.assertIn("nothing is mapped there in this address space", said)
        self.assertIn("mapped by map_it at a.c:2, 1 event ago", said)

    def test_rights_overwritten(self) -> None:
        """The page is there, but its entry has fewer rights than its record says; so has one above it."""
        said = self.cause(VA, PRESENT | WRITE)
        self.assertNotIn("overwritten", said.text)
        self.machine.set_entry(1, VA, 1, self.machine.set_entry(1, VA, 1, 0) & ~2)
        said = self.inquest(PANIC, Chain([Fault(PF, PRESENT | WRITE, VA)]), self.root(1)).cause
        self.assertIn("which may not be written; the level 1 entry of table", said.text)
        self.assertIn("overwritten", said.text)
        self.assertEqual(said.rule, "P5")

    def test_overwritten(self) -> None:
        """An entry that is not what its record says."""
        self.machine.set_entry(1, VA, 1, 0x6B6B6B6A)
        said = self.cause(VA)
        self.assertIn("is 0x6b6b6b6a (not present): overwritten", said.text)
        self.assertEqual(said.rule, "P5")
        self.assertNotIn("overwritten", self.cause(GONE).text)

    def test_shared_table(self) -> None:
        """A page table that somebody can write through another address."""
        mfn, _ = self.machine.entry_at(1, VA, 1)
        self.machine.set_entry(1, GONE + 0x1000, 1, leaf(mfn, 1, 1))
        said = self.cause(GONE)
        self.assertIn(f"its level 1 table {mfn:#x} can be written at {GONE + 0x1000:#x}", said.text)
        self.assertEqual(said.rule, "T4")
        elsewhere = VA + (1 << 30) + (4 << 21)
        self.assertNotIn("can be written", self.cause(elsewhere).text)

    def test_dead_root(self) -> None:
        """CR3 holds what is no space's root; the roots of all spaces are none of that."""
        page = self.machine.page.mfn
        self.machine.words[page] = self.machine.words[self.root(1) >> 12]  # it leads to the kernel
        said = self.cause(GONE, 0, page << 12)
        self.assertIn(f"CR3 is {page << 12:#x}, which is no address space's root", said.text)
        self.assertEqual(said.rule, "C1")
        for space in (1, 2, 3):
            self.assertNotIn("CR3", self.cause(GONE, 0, self.root(space)).text)

    def test_undelivered(self) -> None:
        """A triple fault tells both: why it began, and why nobody could take it."""
        top = STACKS[1][1]
        self.machine.set_entry(1, top - 8, 1, 0)
        chain = Chain([Fault(PF, WRITE, STACKS[0][0] - 8), Fault(DF)])
        chain.broken, chain.what = Fault(PF, WRITE, top - 8), "IST 1 stack"
        said = self.inquest(TRIPLE, chain, self.root(1)).cause.text
        self.assertIn("stack 'cpu0' has overflowed into its guard page; #DF can't be ", said)
        self.assertIn(
            f"the IST 1 stack 'cpu0 #DF' at {top - 8:#x}: the level 1 entry of table", said
        )

    def test_places(self) -> None:
        """Each with its walk."""
        places = {p.name: p for p in self.inquest(PANIC, Chain(), self.root(1)).places()}
        self.assertEqual(places["RIP"].walk.pa, CODE & 0x7FFFFFFF)
        self.assertEqual(places["IDT"].walk.problem, "")


if __name__ == "__main__":
    unittest.main()
