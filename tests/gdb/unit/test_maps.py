# SPDX-License-Identifier: BSD-2-Clause
# ktf-maps on made-up memory: merging, filters, text, JSON; the command line; text made from arrays.
"""Tests of ktf.maps, ktf.commands, ktf.command and ktf.text."""

from __future__ import annotations

import json
import unittest
from typing import Any
from unittest import mock

import numpy as np

from fake_guest import Memory, Plain
from synthetic import Machine

from ktf.kernel.database import database_of
from ktf.show import maps
from ktf.show import text
from ktf.commands.command import Args, Command, Option, split
from ktf.kernel.context import Context
from ktf.commands.maps import MapsCommand
from ktf.errors import KtfError, UsageError
from ktf.x86.memtype import COMMON_PAT, NAMES, MemoryTypes, Mtrr
from ktf.x86.paging import (
    ACCESSED,
    GLOBAL,
    LEAF_ADDRESS,
    LEVEL_SHIFT,
    NX,
    PAT_LARGE,
    PCD,
    PS,
    PWT,
    RW,
    US,
    Leaves,
    P,
    Walk,
)
from ktf.kernel.spaces import Space
from ktf.x86.walk import walk

HIGH = 0xFFFF_8000_0000_0000
KINDS = {0: "none", 1: "text", 2: "data"}


def example() -> Memory:
    """A few ranges of all sorts."""
    m = Memory(64)
    for i in range(4):
        m.map(0x1000 + i * 4096, 0x5000 + i * 4096, P | RW | NX)
    m.map(0x5000, 0x20000, P | RW | NX)  # not contiguous physically
    m.map(0x6000, 0x21000, P | NX)  # read-only
    m.map(0x8000, 0x22000, P | NX | US)  # a hole before it
    m.map(0x9000, 0x23000, P | US | PCD | PWT)  # executable, uncached
    m.map(0x200000, 0x200000, P | RW | NX, level=2)
    m.map(0x400000, 0x800000, P | RW | NX | 1 << 12, level=2)  # PAT bit: PAT 4
    m.map(HIGH, 0x40000000, P | RW | NX | GLOBAL, level=3)
    m.map((1 << 64) - 4096, 0x6000, P | RW | NX)
    return m


def said(m: Memory, line: str = "") -> str:
    """What the command prints."""
    context = Plain(m.session())
    MapsCommand().invoke(context, line)
    return context.text


def answer(m: Memory, line: str = "") -> dict[str, Any]:
    """Its JSON."""
    printed = said(m, line + " --json")
    assert printed.count("\n") == 1, printed
    found: dict[str, Any] = json.loads(printed)
    return found


def some_leaves(rng: np.random.Generator) -> tuple[Leaves, np.ndarray]:
    """Sorted leaves in stretches that are broken here and there, by one thing each; kinds of their frames."""
    count = 1200
    level = np.repeat(rng.choice([1, 1, 1, 1, 2, 3], 12), count // 12).astype(np.uint8)
    places, at = [], 0x1000
    for size in (np.uint64(1) << LEVEL_SHIFT[level]).tolist():
        at = (at + size - 1 & -size) + (size if rng.random() < 0.01 else 0)
        places.append(at)
        at += size
    va = np.array(places, np.uint64)
    step = np.uint64(1) << rng.choice([12, 13, 20, 21, 30], count).astype(np.uint64)
    step *= rng.random(count) < 0.01
    step += np.uint64(1) << LEVEL_SHIFT[level]
    pa = np.cumsum(step, dtype=np.uint64) & np.uint64((1 << 40) - 1)
    entry = pa & LEAF_ADDRESS[level] | np.uint64(P)
    for bit in (PWT, PCD, PS, PAT_LARGE, GLOBAL, ACCESSED, 1 << 9, NX):
        flips = np.cumsum(rng.random(count) < 0.005) & 1
        entry[(flips == 1) & ((level > 1) | (bit != PAT_LARGE))] ^= np.uint64(bit)
    perm = (np.cumsum(rng.random(count) < 0.005) % 8).astype(np.uint8)
    kind = (np.cumsum(rng.random(count) < 0.005) % 5).astype(np.uint8)
    return Leaves(va, entry, level, np.zeros(count, np.int32), perm), kind


def some_mtrr(rng: np.random.Generator) -> Mtrr:
    """A few ranges of any size from a page on, and the fixed ones."""
    size = [1 << int(n) for n in rng.integers(12, 36, 4)]
    base = [int(rng.integers(0, 1 << 36)) & -s | int(rng.choice([0, 1, 4, 5, 6])) for s in size]
    mask = [-s & (1 << 40) - 4096 for s in size]
    fixed = rng.choice([0, 6], 88).astype(np.uint8)
    return Mtrr(True, 6, fixed, np.array(base, np.uint64), np.array(mask, np.uint64), 1 << 40)


def one_by_one(leaves: Leaves, kind: np.ndarray, types: MemoryTypes) -> list[tuple[int, ...]]:
    """Ranges (va, size, pa, perm, type, level, kind) by a plain loop over sorted leaves."""
    memtype = types.of(leaves.entry, leaves.level, leaves.pa)
    columns = (leaves.va, leaves.size, leaves.pa, leaves.perm, memtype, leaves.level, kind)
    ranges: list[tuple[int, ...]] = []
    for row in zip(*(c.tolist() for c in columns)):
        if ranges:
            va, size, pa, *same = ranges[-1]
            if [*row[3:]] == same and (va + size, pa + size) == (row[0], row[2]):
                ranges[-1] = (va, size + row[1], pa, *same)
                continue
        ranges.append(row)
    return ranges


class Ranges(unittest.TestCase):
    """Merged as long as all is alike."""

    def test_merge(self) -> None:
        """The example's nine ranges."""
        found = answer(example())
        self.assertEqual((found["schema"], found["command"], found["ok"]), (1, "ktf-maps", True))
        rows = [
            (r["va"], r["size"], r["pa"], r["perm"], r["type"], r["page"]) for r in found["ranges"]
        ]
        self.assertEqual(
            rows,
            [
                ("0x1000", 0x4000, "0x5000", "rw--", "WB", "4K"),
                ("0x5000", 0x1000, "0x20000", "rw--", "WB", "4K"),
                ("0x6000", 0x1000, "0x21000", "r---", "WB", "4K"),
                ("0x8000", 0x1000, "0x22000", "r--u", "WB", "4K"),
                ("0x9000", 0x1000, "0x23000", "r-xu", "UC", "4K"),
                ("0x200000", 0x200000, "0x200000", "rw--", "WB", "2M"),
                ("0x400000", 0x200000, "0x800000", "rw--", "WB", "2M"),  # PAT 4 is WB everywhere
                (f"{HIGH:#x}", 1 << 30, "0x40000000", "rw--", "WB", "1G"),
                ("0xfffffffffffff000", 4096, "0x6000", "rw--", "WB", "4K"),
            ],
        )
        self.assertEqual({r["space"] for r in found["ranges"]}, {"cr3"})
        self.assertEqual({r["kind"] for r in found["ranges"]}, {None})

    def test_kinds_split(self) -> None:
        """Frames of another kind begin another range."""
        m = example()
        leaves = walk(m.reader, m.root, m.rules()).leaves
        kind = np.zeros(len(leaves), np.uint8)
        kind[2:4] = 1
        types = MemoryTypes(COMMON_PAT, None)
        ranges = maps.merge("k", [maps.pieces(leaves, kind)], types)
        self.assertEqual(ranges.size[:2].tolist(), [0x2000, 0x2000])
        self.assertEqual(ranges.kind[:3].tolist(), [0, 1, 0])
        lines = "".join(maps.ranges_text(ranges, KINDS)).splitlines()
        self.assertIn("text", lines[1])
        objects = json.loads("[" + "".join(maps.ranges_json(ranges, KINDS))[:-1] + "]")
        self.assertEqual([o["kind"] for o in objects[:3]], ["none", "text", "none"])

    def test_merged_as_one_by_one(self) -> None:
        """Leaves in any order and in any number of parts, alike and not: the ranges of a plain loop over them."""
        for seed in range(24):
            rng = np.random.default_rng(seed)
            leaves, kind = some_leaves(rng)
            types = MemoryTypes(COMMON_PAT, some_mtrr(rng) if seed % 3 else None)
            parts = np.array_split(np.arange(len(leaves)), int(rng.integers(1, 9)))
            rng.shuffle(parts)
            merged = maps.merge("k", [maps.pieces(leaves.take(p), kind[p]) for p in parts], types)
            found = zip(
                *(getattr(merged, f).tolist() for f in "va size pa perm type level kind".split())
            )
            self.assertEqual(list(found), one_by_one(leaves, kind, types), f"seed {seed}")

    def test_sizes_split(self) -> None:
        """Behind a 2M page, whose entry has low address bits that it may not have, a 4K page that would be its next step."""
        va, level = np.array([2, 4], np.uint64) << np.uint64(20), np.array([2, 1], np.uint8)
        same = np.zeros(2, np.uint8)
        leaves = Leaves(va, va | np.uint64(0x1000 | P | PS), level, same.astype(np.int32), same)
        types = MemoryTypes(COMMON_PAT, None)
        found = maps.merge("k", [maps.pieces(leaves, same)], types)
        self.assertEqual(found.size.tolist(), [2 << 20, 4096])
        self.assertEqual(found.pa.tolist(), [2 << 20, (4 << 20) + 0x1000])

    def test_types_split(self) -> None:
        """Within equal entries another range begins where the MTRRs begin to say something else."""
        for first, size in ((5 << 21, 1 << 21), ((5 << 21) + 0x3000, 4096)):
            base, mask = np.array([first], np.uint64), np.array([-size & (1 << 40) - 1], np.uint64)
            types = MemoryTypes(COMMON_PAT, Mtrr(True, 6, None, base, mask))  # base with type 0, UC
            pa = np.arange(0x1000, 10 << 21, 4096, np.uint64)
            small = np.ones(len(pa), np.uint8)
            leaves = Leaves(pa, pa | np.uint64(P), small, small.astype(np.int32), small)
            found = maps.merge("k", [maps.pieces(leaves, small)], types)
            self.assertEqual(found.va.tolist(), [0x1000, first, first + size])
            self.assertEqual([NAMES[t] for t in found.type.tolist()], ["WB", "UC", "WB"])
            self.assertEqual(int(found.size.sum()), len(pa) << 12)

    def test_kinds_before_the_walk(self) -> None:
        """The seconds that a walk may take are not spent on reading the frames."""
        session = Machine().session()
        passed, walked = session.walk_past, []

        def checked(space: Space, *rest: Any) -> Walk:
            self.assertIn("kinds_alone", vars(database_of(session)))
            walked.append(space.name)
            return passed(space, *rest)

        context = Plain(session)
        with mock.patch.object(session, "walk_past", checked):
            MapsCommand().invoke(context, "")
        self.assertEqual(walked, [s.name for s in session.spaces().spaces])
        self.assertIn(" text\n", context.text)

    def test_nothing(self) -> None:
        """An empty table is no error."""
        self.assertEqual(answer(Memory(8))["ranges"], [])
        self.assertEqual(answer(Memory(8), "--leaves")["leaves"], [])
        self.assertIn("0 ranges, 0 pages, 0", said(Memory(8)))

    def test_range(self) -> None:
        """Either end in the gap, at the ends, in large pages."""
        cases = [
            ("0x2000 0x4000", ["0x2000"]),
            ("0x2000 +0x1000", ["0x2000"]),
            ("0x300000 0x300001", ["0x200000"]),
            (f"0x7fff00000000 {HIGH + 1:#x}", [f"{HIGH:#x}"]),
            (f"0x800000000000 {HIGH + 1:#x}", [f"{HIGH:#x}"]),
            ("0x400000 0x800000000000", ["0x400000"]),
            (f"{HIGH:#x} -1", [f"{HIGH:#x}", "0xfffffffffffff000"]),
        ]
        for line, expected in cases:
            found = answer(example(), f"--range {line}")
            self.assertEqual([r["va"] for r in found["ranges"]], expected, line)

    def test_filters(self) -> None:
        """Each word, negated ones, several."""
        cases = [
            ("x", ["0x9000"]),
            ("u", ["0x8000", "0x9000"]),
            ("u,!x", ["0x8000"]),
            ("!w", ["0x6000", "0x8000", "0x9000"]),
            ("uncached", ["0x9000"]),
            ("uc", ["0x9000"]),
            ("wb,1g", [f"{HIGH:#x}"]),
            ("global", [f"{HIGH:#x}"]),
            ("2M", ["0x200000", "0x400000"]),
            ("pat1", []),
        ]
        for words, expected in cases:
            found = answer(example(), f"--filter {words}")
            self.assertEqual([r["va"] for r in found["ranges"]], expected, words)

    def test_leaves(self) -> None:
        """A line each, first as QEMU prints it."""
        lines = said(example(), "--leaves").splitlines()
        self.assertEqual(len([x for x in lines if ": " in x[:18]]), 12)
        self.assertEqual(
            lines[0], "0000000000001000: 0000000000005000 X-------W 4K 8000000000005003 cr3"
        )
        self.assertEqual(lines[7][:44], "0000000000009000: 0000000000023000 -----CTU-")
        self.assertEqual(lines[10], f"{HIGH:x}: 0000000040000000 XGP-----W 1G 8000000040000183 cr3")
        typed = Memory(8)
        typed.map(0x1000, 0x2000, P | RW | NX | PS | PWT)  # of a 4K page bit 7 is no PS
        self.assertEqual(said(typed, "--leaves").splitlines()[0][34:44], " X-----T-W")
        found = answer(example(), "--leaves")["leaves"]
        self.assertEqual(
            found[8],
            {
                "space": "cr3",
                "va": "0x200000",
                "pa": "0x200000",
                "size": 2 << 20,
                "entry": "0x8000000000200083",
            },
        )

    def test_findings_are_told(self) -> None:
        """What is broken stands behind the ranges, in JSON as notes."""
        m = example()
        m.entries(m.root)[5:15] = 0xFEE00000 | P
        printed = said(m)
        self.assertEqual(printed.count("is not in the guest's RAM"), 5)
        self.assertIn("and 5 more", printed)
        self.assertTrue(any("0xfee00" in n for n in answer(m)["notes"]))


class Lookup(unittest.TestCase):
    """ktf-maps VA."""

    def test_mapped(self) -> None:
        """Levels, rights and what limits them."""
        found = answer(example(), "0x9123")
        self.assertEqual((found["mapped"], found["pa"], found["perm"]), (True, "0x23123", "r-xu"))
        self.assertEqual((found["type"], found["page"]), ("UC", "4K"))
        self.assertEqual(found["limits"], {"w": [1], "x": [], "u": []})
        self.assertEqual([s["level"] for s in found["walk"]], [4, 3, 2, 1])
        printed = said(example(), "0x9123")
        self.assertIn("physical address 0x23123, r-xu, UC, 4K page", printed)
        self.assertIn("can't be written: level 1", printed)

    def test_not_mapped(self) -> None:
        """At which level it ends, and why."""
        for va, level, why in (
            ("0x7000", 1, "not present"),
            ("0x800000", 2, "not present"),
            ("0x8000000000", 4, "not present"),
        ):
            self.assertIn(f"ends at level {level}", said(example(), va))
            found = answer(example(), va)
            self.assertEqual((found["mapped"], found["pa"], found["problem"]), (False, None, why))
        self.assertIn("not a canonical address", said(example(), "0x800000000000"))

    def test_modes(self) -> None:
        """No 64-bit paging: an error that says what there is."""
        m = example()
        for registers, expected in (
            ({"cr0": 0x11}, "protected mode"),
            ({"cr0": 0x10}, "real mode"),
            ({"efer": 0}, "32-bit paging"),
            ({"cr4": 0}, "32-bit paging"),
        ):
            context = Plain(m.session(**registers))
            with self.assertRaisesRegex(KtfError, expected):
                MapsCommand().invoke(context, "")
            MapsCommand().invoke(context, "--json")
            found = json.loads(context.text)
            self.assertFalse(found["ok"])
            self.assertIn(expected, found["error"])


class Failing(Command):
    """Help."""

    name = "ktf-test"
    options = (
        Option("--json"),
        Option("--pair", 2, many=True),
        Option("--kind", 1, ("alpha", "beta")),
    )

    def run(self, context: Context, args: Args) -> None:
        """Breaks in a way that nobody thought of."""
        context.write(str(args.options))
        [][int(args.rest[0])]


class CommandLine(unittest.TestCase):
    """What all commands share."""

    def test_split(self) -> None:
        """Blanks inside brackets and quotes stay."""
        for line, words in (
            ("", []),
            ("  a  b ", ["a", "b"]),
            ("f(1, 2) 'a b' [x y]", ["f(1, 2)", "'a b'", "[x y]"]),
            ("--range (a + b) $rip+4", ["--range", "(a + b)", "$rip+4"]),
        ):
            self.assertEqual(split(line), words)
        for line in ("(", "'", '"a', "[)("):
            with self.assertRaises(UsageError):
                split(line)

    def test_parse(self) -> None:
        """Options anywhere, values behind them."""
        args = Failing().parse("x --pair 1 2 y --pair 3 4 --json")
        self.assertEqual((args.rest, args.options["--pair"]), (["x", "y"], ["1", "2", "3", "4"]))
        self.assertTrue(args.has("--json"))
        for line in (
            "--pair 1",
            "--kind alpha --kind beta",
            "--pair 1 --json",
            "--kind",
            "--other",
            "--kind --json",
        ):
            with self.assertRaises(UsageError):
                Failing().parse(line)

    def test_unexpected_errors(self) -> None:
        """A mistake of ours is one line with its place, no traceback."""
        context = Plain(None)
        with self.assertRaisesRegex(
            KtfError, r"internal error: IndexError: .*\(test_maps.py:\d+\)"
        ):
            Failing().invoke(context, "7")
        context = Plain(None)
        Failing().invoke(context, "x --json")
        self.assertIn('"ok":false', context.text)
        self.assertIn("internal error: ValueError", context.text)

    def test_complete(self) -> None:
        """Options by their start, values behind their option."""
        command, context = Failing(), Plain(None)
        self.assertEqual(command.complete(context, "--p", "--p"), ["--pair"])
        self.assertEqual(command.complete(context, "--p", "p"), ["pair"])
        self.assertEqual(command.complete(context, "--", ""), ["json", "pair", "kind"])
        self.assertEqual(command.complete(context, "--kind x,!al", "al"), ["alpha"])
        self.assertEqual(command.complete(context, "--kind ", ""), ["alpha", "beta"])
        self.assertEqual(command.complete(context, "--kind b", "b"), ["beta"])
        self.assertEqual(len(command.complete(context, "", "")), 3)


class Text(unittest.TestCase):
    """Lines from arrays."""

    def test_hexadecimal(self) -> None:
        """As Python prints it."""
        values = [0, 1, 15, 16, 0xFEE00000, (1 << 64) - 1, 0x8000000000000000]
        column = np.array(values, np.uint64)
        for width in (1, 4, 16):
            made = text.lines(len(values), [text.hexadecimal(column, width), b"\n"]).splitlines()
            self.assertEqual(made, [f"{v:0{width}x}" for v in values])

    def test_columns(self) -> None:
        """Names, constants, numbers; none at all."""
        index = np.array([2, 0, 1])
        made = text.lines(
            3,
            [
                b"<",
                text.pick(index, ["a", "bbb", ""]),
                b">",
                text.pick(index, ["x", "yy", "z"], True),
            ],
        )
        self.assertEqual(made, "<>z <a>x <bbb>yy")
        sizes = np.array([4096, 1, 4096], np.uint64)
        self.assertEqual(text.lines(3, [text.each(sizes, str, ">"), b";"]), "4096;   1;4096;")
        self.assertEqual(text.lines(0, [b"x"]), "")
        self.assertEqual(
            [text.size_text(s) for s in (0, 512, 4096, 3 << 20, 1 << 30)],
            ["0", "512", "4K", "3M", "1G"],
        )


if __name__ == "__main__":
    unittest.main()
