# SPDX-License-Identifier: BSD-2-Clause
# Every rule of ktf-pt-check on made-up guests: healthy ones, and ones with one thing broken.
"""Tests of ktf.rules and all that they stand on. A case breaks one thing; only its rules may speak."""

from __future__ import annotations

import json
import random
import re
import time
import unittest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

import rule_cases_frames  # noqa: F401  adds its cases to those of rule_cases
from fake_guest import Plain
from rule_cases import CASES as LINKED_CASES
from rule_cases import VA, page_moved
from rule_cases_rights import retyped
from rule_cases_state import STATE_CASES
from synthetic import CR0, CR4, STRUCTS, Machine
from synthetic_model import BASE, BASES, STACKS, UC, W, leaf
from synthetic_types import MM_VA, SYMBOLS

from ktf.kernel.backtrace import Backtrace
from ktf.commands.maps import MapsCommand
from ktf.commands.check import CheckCommand, text, unsettled_text
from ktf.rules.examine import examine
from ktf.kernel.database import Database
from ktf.kernel.descriptors import Frames
from ktf.errors import NotYet
from ktf.findings import KEEP, Report, Violation
from ktf.rules import table as rules
from ktf.rules.table import RULES, check

CASES = LINKED_CASES + STATE_CASES
HEALTHY = Machine()


class RuleTests(unittest.TestCase):
    """Healthy guests have no violation; each case exactly those that it says."""

    def examine(self, m: Machine, cr3: int | None = None) -> Report:
        """All rules."""
        return examine(m.session(cr3), list(RULES))[0]

    def test_healthy(self) -> None:
        """Nothing is reported, and everything is counted."""
        m = HEALTHY.twin()
        report, counts = examine(m.session(), list(RULES))
        self.assertEqual(text(report, counts).splitlines()[:-1], [])
        self.assertEqual(counts["frames"], len(m.blocks))
        self.assertEqual(counts["mappings"], len(m.records))
        self.assertEqual(counts["spaces"], 3)
        user = sum(
            len([i for i in t.entries if i < 256])
            for t in m.tables
            if t and t.space != 1 and t.level == 4
        )
        own = sum(len(t.entries) for t in m.tables if t and (t.space == 1 or t.level < 4))
        self.assertEqual(counts["entries"], own + user)

    def test_cases(self) -> None:
        """What is broken is reported by its rule, at its place, and no rule that it does not break."""
        for rule, also, function in CASES:
            with self.subTest(rule=rule, case=function.__name__):
                m = HEALTHY.twin()
                place = function(m)
                report = self.examine(m)
                lines = text(report, dict.fromkeys(("entries", "frames", "mappings"), 0))
                found = {r for r, n in report.counts.items() if n}
                self.assertIn(rule, found, lines)
                self.assertLessEqual(found, {rule, *also.split()}, lines)
                if place is not None:
                    named = any(place in (v.va, v.mfn) for v in report.kept[rule])
                    self.assertTrue(named, f"{place:#x} is not named:\n{lines}")

    def test_every_rule_has_a_case(self) -> None:
        """But C1, which is tried below."""
        self.assertEqual({c[0] for c in CASES} | {"C1"}, set(RULES))

    def test_alone(self) -> None:
        """A rule that is asked for alone finds its cases, too, and reports nothing else."""
        for rule, _, function in CASES:
            with self.subTest(rule=rule, case=function.__name__):
                m = HEALTHY.twin()
                function(m)
                report = examine(m.session(), [rule])[0]
                found = {r for r, n in report.counts.items() if n}
                self.assertIn(rule, found)
                blind = {v.rule for v in report.blind}
                self.assertLessEqual(found, {rule} | blind)

    def test_c1(self) -> None:
        """CR3 holds a copy of the root, or a user space's."""
        m = HEALTHY.twin()
        root = m.tables[m.roots[1]]
        assert root is not None
        m.words[m.page.mfn] = m.words[root.mfn]
        report = self.examine(m, m.page.mfn << 12)
        self.assertEqual({r for r, n in report.counts.items() if n}, {"C1"})
        self.assertEqual(report.kept["C1"][0].mfn, m.page.mfn)
        user = m.tables[m.roots[2]]
        assert user is not None
        m.mm_row("cpu", 0, "space", 2)
        m.poke("space_t", 2, cpus=1)
        self.assertEqual(self.examine(m, user.mfn << 12).total(), 0)

    def test_tables_and_records_may_be_read(self) -> None:
        """T4 is about writing."""
        for mfn in (HEALTHY.tables[HEALTHY.roots[1]].mfn, int(HEALTHY.arena_mfn[0][0])):  # type: ignore[union-attr]
            m = HEALTHY.twin()
            page_moved(m, mfn, attr=0)
            self.assertEqual(self.examine(m).total(), 0)

    def test_writable_large_page(self) -> None:
        """T4 where a large page holds tables, or the manager's records, behind a first page of another kind."""
        for mfn, words in ((0xC00, "a page table, "), (0x400, "the manager's records, ")):
            m = HEALTHY.twin()
            va = VA + (1 << 30) + (5 << 21)
            m.set_entry(1, va, 2, leaf(mfn, 2, W))
            report = self.examine(m)
            said = [v.message for v in report.kept["T4"] if v.va == va]
            self.assertEqual([words in text for text in said].count(True), 1, said)

    def test_registers(self) -> None:
        """What only a CPU's registers show."""
        for rule, word, registers in (
            ("X2", "WP", {"cr0": CR0 & ~(1 << 16)}),
            ("X2", "SMEP", {"cr4": CR4 & ~(1 << 20)}),
            ("X2", "SMAP", {"cr4": CR4 & ~(1 << 21)}),
            ("X2", "UMIP", {"cr4": CR4 & ~(1 << 11)}),
            ("C2", "IDTR", {"idt": MM_VA}),
            ("C2", "IDTR", {"idt_limit": 0xFFE}),
            ("C2", "GDTR", {"gdt": MM_VA}),
            ("C2", "TR is", {"tss": MM_VA}),
            ("C2", "selector", {"task": 0x38}),
            ("C2", "guard|not mapped", {"rsp": STACKS[0][0] - 0x800}),
            ("C2", "r-x-", {"rsp": 0xFFFFFFFF80211000}),
            ("C2", "no known stack", {"rsp": MM_VA + 0x100}),
            ("X2", "PKE", {"cr4": CR4 | 1 << 22}),
            ("X2", "PKS", {"cr4": CR4 | 1 << 24}),
            ("X2", "IOPL", {"rflags": 0x3002}),
            ("M2", "CD and NW", {"cr0": CR0 | 1 << 30}),
            ("M2", "CD and NW", {"cr0": CR0 | 1 << 29}),
            ("C1", "PCIDE", {"cr4": CR4 | 1 << 17}),
            ("C2", "FSGSBASE", {"cr4": CR4 | 1 << 16}),
            ("C2", "CET", {"cr4": CR4 | 1 << 23}),
            ("C2", "CS is 0x9", {"cs": 9}),
            ("C2", "CS is 0x38", {"cs": 0x38}),
            ("C2", "SS is 0x38", {"ss": 0x38}),
            ("C2", "LDTR is 0x28", {"ldt": 0x28}),
            ("C2", "GS base is 0x0", {"gs": 0}),
            ("C2", "GS base", {"gs": SYMBOLS["percpu"][0] + 104}),
            ("C2", "'cpu0 #DF', but no exception", {"rsp": STACKS[1][1] - 0x100}),
            ("C2", "RSP0 is 0x0, on no known stack", {"user": 1, "rsp": 0x1000}),
        ):
            with self.subTest(registers=registers):
                m = HEALTHY.twin()
                report = examine(m.session(None, **registers), list(RULES))[0]
                self.assertEqual({r for r, n in report.counts.items() if n}, {rule})
                self.assertRegex(report.kept[rule][0].message, word)
        for good in ({"ss": 0}, {"rsp": SYMBOLS["boot_stack_top"][0] - 8}):
            self.assertEqual(examine(HEALTHY.session(None, **good), list(RULES))[0].total(), 0)

    def test_accessed_and_dirty_don_t_matter(self) -> None:
        """The CPU sets them in any present entry."""
        m = HEALTHY.twin()
        for table in m.tables:
            if table is not None:
                page = m.words[table.mfn]
                page[(page & np.uint64(1)) != 0] |= np.uint64(0x60)
        self.assertEqual(self.examine(m).total(), 0)

    def test_unreadable_is_never_healthy(self) -> None:
        """An arena's page that is not mapped is reported whatever rule is asked for."""
        m = HEALTHY.twin()
        m.set_entry(1, BASE + 0x1000, 1, 0)
        for rule in RULES:
            report = examine(m.session(), [rule])[0]
            self.assertTrue(report.total(), rule)

    def test_find(self) -> None:
        """The frame of each page as the tree and the tails lead to it, page by page; its kind the same where nothing else
        is read; in broken trees as well."""
        beyond = [1 << 18, (1 << 29) + 5, (1 << 40) - 1]
        mfns = np.concatenate([np.arange(0, 4096, 3), beyond]).astype(np.int64)
        rng = random.Random(3)
        for broken in range(40):
            m = HEALTHY.twin()
            used = np.flatnonzero(m.words.any(axis=1)).tolist()
            for _ in range(broken):
                words = m.words[rng.choice(used)]
                words[rng.choice(np.flatnonzero(words).tolist())] ^= np.uint64(
                    1 << rng.randrange(32)
                )
            if broken % 4 == 3:  # tails that lead into other pages
                at = m.arena_mfn[0][rng.randrange(1, len(m.arena_mfn[0]))]
                m.words[at, ::4] |= np.uint64(rng.getrandbits(7) << 57)
            frames = Database(m.session()).frames
            found = frames.find(mfns)
            if broken % 5 == 0:
                self.assertEqual(
                    found.tolist(), [self.plain_find(frames, i) for i in mfns.tolist()]
                )
            kind = np.where(found > 0, frames.kind[found], 0)
            alone = Database(m.session()).kind_of_mfns(mfns.astype(np.uint64))
            self.assertEqual(alone.tolist(), kind.tolist(), f"{broken} bits")
            self.assertTrue(found.any() or broken)

    def plain_find(self, frames: Frames, mfn: int) -> int:
        """One page, in plain steps."""
        entry = int(frames.tree.lookup(np.array([mfn]))[0])
        index = entry & ~frames.tree.block
        if entry and entry == index:
            index += mfn % 128
            index -= int(frames.tail[index])
        return index if 0 < index < frames.count and frames.is_head[index] else 0

    def test_find_unmapped(self) -> None:
        """Where descriptors are not mapped there are no frames, whatever memory holds at 0."""
        m = HEALTHY.twin()
        frames = Database(m.session()).frames
        page, place = int(frames.granule_page[0]), int(frames.granule_place[0])
        mfns = np.arange(place, place + 128)
        self.assertTrue(frames.find(mfns).any())
        m.words[0] = m.words[m.arena_mfn[0][page]]
        m.set_entry(1, BASES[0] + page * 4096, 1, 0)
        db = Database(m.session())
        self.assertFalse(db.kind_of_mfns(mfns).any())
        self.assertFalse(db.frames.find(mfns).any())

    def test_magic(self) -> None:
        """A struct mm that was overwritten is a finding, one that is not there yet an error."""
        m = HEALTHY.twin()
        m.poke("struct mm", 0, magic=0x1234)
        report = self.examine(m)
        self.assertEqual(report.counts["A3"], 1)
        self.assertIn("magic", report.kept["A3"][0].message)
        m.place("struct mm", 0)[:] = 0
        m.symbol("kernel_cr3")[:] = 0
        with self.assertRaisesRegex(Exception, "no frames yet"):
            self.examine(m)

    def test_early(self) -> None:
        """Before mm_init() has ended there is nothing to check; later the same words are wrong."""
        during = SYMBOLS["mm_init"][0] + 8
        for live, root, rip, early in (
            (False, False, 0, True),
            (False, True, during, True),
            (True, False, during, True),
            (False, True, 0, False),
            (True, False, 0, False),
        ):
            with self.subTest(live=live, root=root, rip=rip):
                m = HEALTHY.twin()
                if not live:
                    m.poke("struct mm", 0, live=0)
                if not root:
                    m.symbol("kernel_cr3")[:] = 0
                if early:
                    with self.assertRaisesRegex(NotYet, "still at work"):
                        examine(m.session(rip=rip), list(RULES))
                else:
                    report = examine(m.session(rip=rip), list(RULES))[0]
                    self.assertTrue(report.counts["A4"] + report.counts["C1"])
        m = HEALTHY.twin()
        m.poke("struct mm", 0, live=0)
        m.symbol("kernel_cr3")[:] = 0
        m.symbol("smp_up").view(np.uint32)[0] = 2
        self.assertTrue(examine(m.session(rip=during), list(RULES))[0].total())

    def test_starting(self) -> None:
        """A CPU on the boot's page tables is starting where it starts, and as long as it is not online."""
        m = HEALTHY.twin()
        session = m.session()
        for rip, fine in (
            (0x50, True),
            (SYMBOLS["ap_long"][0] + 10, True),
            (SYMBOLS["ap_high"][0] + 60, True),
            (SYMBOLS["mm_init"][0], False),
        ):
            other = replace(session.cpu, number=1, cr3=SYMBOLS["boot_l4"][0], rip=rip)
            for online in (0, 1):
                m.mm_row("cpu", 1, "online", online)
                session = m.session()
                session.cpus.append(other)
                report = check(Database(session), ["C1"])
                text = " ".join(v.message for v in report.kept.get("C1", []))
                self.assertEqual("CPU 1: CR3 is 0x202000" in text, not fine or bool(online), text)

    def test_window(self) -> None:
        """No message names an address of more than 64 bits, whatever mm.window is."""
        m = HEALTHY.twin()
        m.poke("struct mm", 0, window=(1 << 64) - 1)
        report = self.examine(m)
        self.assertTrue(report.counts["T4"])
        said = " ".join(v.message for kept in report.kept.values() for v in kept)
        self.assertLessEqual(max(len(x) for x in re.findall("0x([0-9a-f]+)", said)), 16, said)

    def test_words(self) -> None:
        """What a message tells apart differs; counts are counts; a sound value is called sound."""

        def bit(m: Machine, number: int, attr: int = W) -> None:
            va = retyped(m, m.large.maps[1], attr)
            m.set_entry(1, va, 2, m.set_entry(1, va, 2, 0) ^ 1 << number)

        def overlap(m: Machine) -> None:
            block = next(b for b in m.blocks.values() if b.refcount == b.mapcount == 0)
            m.poke("frame_t", block.index, order=block.order + 3)

        cases: tuple[tuple[Callable[[Machine], None], str, str | None], ...] = (
            (lambda m: bit(m, 20), "P5", r"entry is 0x\w+, .* says .*: bits 0x100000 differ"),
            (lambda m: bit(m, 12, UC), "P4", r": bits 0x1000 differ$"),
            (lambda m: bit(m, 12, UC), "P5", r": bits 0x1000 differ "),
            (overlap, "A1", r": its frames have \d+ pages more than it has$"),
            (lambda m: m.poke("struct mm", 0, levels=5), "A4", "is 5, should be 4 as the CPU has"),
            (lambda m: m.poke("space_t", 1, levels=6), "T7", "6 levels, but the CPU uses 4"),
            (lambda m: m.poke("space_t", 1, levels=6), "A4", None),
        )
        for function, rule, words in cases:
            with self.subTest(rule=rule, words=words):
                m = HEALTHY.twin()
                function(m)
                said = [v.message for v in self.examine(m).kept.get(rule, [])]
                self.assertEqual(any(re.search(words or "", s) for s in said), words is not None)
                self.assertNotRegex(" ".join(said), r" -\d+ pages")

    def test_cut(self) -> None:
        """Of a core that is cut that comes first, in the text and in JSON."""
        session = HEALTHY.twin().session()
        session.cut = "the core file is cut: 1 of 2 bytes are there"
        session.notes = [session.cut]
        for command in (CheckCommand(), MapsCommand()):
            context = Plain(session)
            command.invoke(context, "")
            self.assertEqual(context.text.splitlines()[0], f"! {session.cut}")
            self.assertEqual(context.text.count(session.cut), 1)
            context = Plain(session)
            command.invoke(context, "--json")
            self.assertIn(session.cut, str(json.loads(context.text)["notes"]))

    def test_many(self) -> None:
        """However much is broken, all is counted and little is kept."""
        report = Report()
        report.each("P1", np.arange(10**6), lambda i: Violation("P1", f"number {i}"))
        self.assertEqual(report.total(), 10**6)
        self.assertEqual(len(report.kept["P1"]), KEEP)
        lines = text(report, dict.fromkeys(("entries", "frames", "mappings"), 0)).splitlines()
        self.assertEqual(len(lines), 22)
        self.assertIn("and 999980 more", lines[-2])
        self.assertTrue(lines[-1].endswith(": 1000000 violations"))


class LockTests(unittest.TestCase):
    """A lock covers what it guards only while its CPU may be in an operation of the manager."""

    ENDS = (("smp_idle_loop", "kernel/smp.c"), ("ap_high", ""))

    def held_by(self, *functions: tuple[str, str], whole: bool = True) -> Report:
        """CPU 0 has map_lock and is inside of these; a mapcount is wrong."""
        m = HEALTHY.twin()
        m.poke("frame_t", m.alias.index, mapcount=m.alias.mapcount + 1)
        m.mm_struct("map_lock", owner=1, inside=1)
        session = m.session()
        session.unwind = lambda cpu: Backtrace(functions if cpu == 0 else (), whole)
        return examine(session, list(RULES))[0]

    def test_operation(self) -> None:
        """In a function of mm/, or perhaps in one: nothing counts, and the text says how much that is."""
        mine = ("vmap_4k", "mm/vmap_fast.c")
        for functions, whole, where in (
            ((mine, *self.ENDS), True, "in vmap_4k"),
            ((("cpu_park", "arch/x86/park.c"), mine, *self.ENDS), True, "in cpu_park for vmap_4k"),
            ((("map_lock", "mm/internal.h"), ("x", "elsewhere.c")), True, "in map_lock"),
            ((("x", "/src/mm/x.c"),), True, "in x"),
            (self.ENDS, False, "in smp_idle_loop"),
            ((("", ""), *self.ENDS), True, "in unknown code"),
            ((), False, ""),
        ):
            with self.subTest(functions=functions, whole=whole):
                report = self.held_by(*functions, whole=whole)
                self.assertEqual(report.total(), 0, report.kept)
                holder = "CPU 0 holds map_lock" + (f", {where}" if where else "")
                assert report.unsettled is not None
                lines = unsettled_text(report.held, report.unsettled).splitlines()
                self.assertEqual(lines[0], f"in progress: {holder}")
                self.assertTrue(lines[1].startswith("in progress: P6: mfn "), lines)
                self.assertTrue(
                    lines[-1].startswith(f"! 1 finding not counted, for {holder}: "), lines
                )

    def test_leak(self) -> None:
        """In none, for certain: everything counts, the lock as well."""
        for functions in (self.ENDS, (("commit", "tests/guest/comm/x.c"), *self.ENDS)):
            report = self.held_by(*functions)
            self.assertEqual(report.held, [])
            self.assertEqual({r for r, n in report.counts.items() if n}, {"P6", "A3"})
            text = f"is in no function of mm/ but in {functions[0][0]} < "
            self.assertIn(text, report.kept["A3"][0].message)


class GarbageTests(unittest.TestCase):
    """Whatever memory holds: findings, soon, and no exception."""

    def pages(self, m: Machine) -> list[tuple[str, int]]:
        """Every page that holds structures."""
        found = [(s, f) for s, frames in zip(STRUCTS, m.arena_mfn) for f in frames]
        found += [("a page table", t.mfn) for t in m.tables if t is not None]
        first = (MM_VA & (1 << 31) - 1) >> 12
        return found + [("struct mm", first + i) for i in range(-(-m.mm_layout.size // 4096))]

    def test_random_pages(self) -> None:
        """A whole page of structures overwritten."""
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        m = HEALTHY.twin()
        places = self.pages(m)
        for struct, mfn in rng.sample(places, 20):
            for fill in (rng.randbytes(4096), b"\xff" * 4096, b"\x01\0\0\0" * 1024):
                with self.subTest(seed=seed, struct=struct, mfn=hex(mfn)):
                    saved = m.words[mfn].copy()
                    m.words[mfn] = np.frombuffer(fill, np.uint64)
                    started = time.monotonic()
                    report, counts = examine(m.session(), list(RULES))
                    text(report, counts)
                    self.assertLess(time.monotonic() - started, 10)
                    self.assertTrue(report.total())
                    m.words[mfn] = saved

    def test_all_random(self) -> None:
        """All of them at once, with only the start of struct mm left."""
        rng = np.random.default_rng(7)
        m = HEALTHY.twin()
        for struct, mfn in self.pages(m):
            if struct not in ("struct mm", "a page table"):
                m.words[mfn] = rng.integers(0, 1 << 63, 512, np.uint64)
        report, _ = examine(m.session(), list(RULES))
        self.assertTrue(report.total())

    def test_flips(self) -> None:
        """Single bits, of what is in use and has a meaning: each is found."""
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        m = HEALTHY.twin()
        for _ in range(100):
            struct, index, size = self.object(m, rng)
            raw = m.place(struct, index)
            byte, bit = rng.randrange(size), rng.randrange(8)
            raw[byte] ^= 1 << bit
            report, _ = examine(m.session(), list(RULES))
            raw[byte] ^= 1 << bit
            with self.subTest(seed=seed, struct=struct, index=index, byte=byte, bit=bit):
                self.assertTrue(report.total())

    def object(self, m: Machine, rng: random.Random) -> tuple[str, int, int]:
        """An object in use, and how many of its bytes have a meaning."""
        kind = rng.randrange(4)
        if kind == 0:
            return "frame_t", rng.choice(list(m.blocks.values())).index, 28  # then the epoch
        if kind == 1:
            return "mapping_t", rng.choice(m.records).index, 20
        if kind == 2:
            return "struct table", rng.randrange(1, len(m.tables)), 32
        return "space_t", rng.choice([1, 2, 3]), 34  # then the name


class DocumentTests(unittest.TestCase):
    """docs/invariants.md and the rules don't drift apart."""

    def test_sections(self) -> None:
        """Every rule has its section with its text, an example of its own and its plant."""
        path = Path(__file__).resolve().parents[3] / "docs/invariants.md"
        parts = path.read_text(encoding="utf-8").split("\n## ")[1:]
        sections = {p.split(":")[0]: p for p in parts if p.split(":")[0] in RULES}
        self.assertEqual(list(sections), list(RULES))
        for name, rule in RULES.items():
            body = sections[name]
            self.assertEqual(body.splitlines()[0], f"{name}: {rule.text}")
            self.assertRegex(body, rf"(?m)^    {name}: ")
            self.assertIn(f"`plant={name}`", body)

    def test_plants(self) -> None:
        """Every rule has its plant in the guest, and a run of check_plants.py of it alone."""
        root = Path(__file__).resolve().parents[3]
        source = (root / "tests/guest/plant.c").read_text(encoding="utf-8")
        self.assertEqual(re.findall(r'(?m)^    \{"(\w+)", "', source), list(RULES))
        script = (root / "tests/gdb/guest/check_plants.py").read_text(encoding="utf-8")
        self.assertEqual(re.findall(r'(?m)^# guest:.*cmdline="plant=(\w+)"', script), list(RULES))

    def test_no_rule_is_left_out(self) -> None:
        """Each that a module has is in the table."""
        self.assertEqual(sorted(r.name for m in rules._MODULES for r in m.RULES), sorted(RULES))

    def test_help(self) -> None:
        """The command's help speaks of all its options."""
        for option in CheckCommand.options:
            self.assertIn(option.name, CheckCommand.__doc__ or "")


if __name__ == "__main__":
    unittest.main()
