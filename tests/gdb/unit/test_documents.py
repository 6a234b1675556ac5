# SPDX-License-Identifier: BSD-2-Clause
# The documents without a guest: which sessions there must be, which don't count, and what passes for the same output.
"""Tests of documents, transcript, and of docs/gdb.md against what gdb/ktf registers."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

from documents import DOCS, GDB, Document, help_document
from transcript import FREELY, Comparison, Mismatch

from ktf.commands import registry
from ktf.debugger.functions import FUNCTIONS

KTF = Path(registry.__file__).parents[1]
LEAST = {"README.md": 4, GDB: 100, "docs/clients.md": 2, "docs/postmortem.md": 14}  # commands


class Complete(unittest.TestCase):
    """Everything has a session in docs/gdb.md."""

    def setUp(self) -> None:
        self.told = [c.text for c in Document(GDB).commands()]

    def need(self, pattern: str, what: str) -> None:
        """Some command matches."""
        with self.subTest(what):
            self.assertTrue(any(re.search(pattern, t) for t in self.told), f"{GDB} shows none")

    def test_options(self) -> None:
        """Each command with each of its options."""
        for command in registry.commands():
            start = rf"^(?:pipe )?{command.name}(?![\w-])"
            self.need(rf"{start}(?!.* --?[a-z])", command.name)
            for option in command.options:
                self.need(rf"{start}[^|]* {option.name}(?![\w-])", f"{command.name} {option.name}")

    def test_functions(self) -> None:
        """Each function and variable, in an expression."""
        names = {function.name for function in FUNCTIONS}
        for source in KTF.glob("*/*.py"):
            names |= set(re.findall(r'set_variable\("(\w+)"', source.read_text()))
        self.assertIn("ktf_violations", names)
        for name in names:
            self.need(rf"\${name}\b", f"${name}")

    def test_settings(self) -> None:
        """Each setting, set and shown."""
        names = re.findall(
            r'super\(\).__init__\("(ktf \w+)"', (KTF / "debugger/register.py").read_text()
        )
        self.assertEqual(names, ["ktf reader"])
        for verb in ("set", "show"):
            for name in names:
                self.need(rf"^{verb} {name}\b", f"{verb} {name}")

    def test_printers(self) -> None:
        """Each type that is printed in our way is named."""
        text = Path(KTF / "debugger/printers.py").read_text()
        names = re.findall(r'Kind\("(\w+)"', text)
        self.assertIn("frame_t", names)
        for name in names:
            self.assertRegex(Path(KTF.parents[1] / GDB).read_text(), rf"`{name}`")


class Parsing(unittest.TestCase):
    """What stands in a document is run, or is a problem."""

    def problems(self, *lines: str) -> list[str]:
        """Of a document of these lines."""
        return Document("d", lines).problems

    def test_documents(self) -> None:
        """All are in order, and no session has got lost."""
        for name in DOCS:
            document = Document(name)
            self.assertEqual(document.problems, [])
            self.assertGreaterEqual(len(list(document.commands())), LEAST.get(name, 0), name)
        self.assertEqual(help_document().problems, [])

    def test_good(self) -> None:
        """What is in order."""
        session = ("<!-- session: smp=2 -->", "```", "(gdb) a", "b 5", "```")
        self.assertEqual(self.problems(*session), [])
        self.assertEqual(self.problems(r"<!-- varies: b (\d) -->", *session), [])
        self.assertEqual(self.problems("<!-- About", "(gdb) a", "-->", "```sh", "a", "```"), [])

    def test_bad(self) -> None:
        """What would not be run, or not be compared as was meant."""
        session = ("<!-- session: smp=2 -->", "```", "(gdb) a", "b 5", "```")
        for lines, word in (
            (("    (gdb) a",), "would not be run"),
            ((" ```", "(gdb) a", " ```"), "would not be run"),
            (("<!-- session: -->", "  ```", "  (gdb) a", "  ```"), "indented"),
            (("<!-- session: -->", "```", "  (gdb) a", "```"), "would not be run"),
            (("<!-- session: -->", "```sh", "(gdb) a", "```"), "would not be run"),
            (("<!-- session: -->", "## x", "```", "(gdb) a", "```"), "would not be run"),
            (("<!-- session: -->", "text"), "without a command"),
            (("<!-- session: smp -->", *session[1:]), "no KEY=VALUE"),
            (("<!-- sesion: smp=2 -->", *session), "what is `sesion:`"),
            ((*session, "```"), "has no end"),
            ((*session[:4], "```sh", "```"), "begins in another"),
            ((*session, "<!-- x", "more"), "has no end"),
            ((r"<!-- varies: b \d -->", *session), "no group"),
            ((r"<!-- varies: c (\d) -->", *session), "nothing is printed to which"),
        ):
            found = self.problems(*lines)
            self.assertTrue(any(word in problem for problem in found), f"{lines}: {found}")

    def test_sections(self) -> None:
        """A pattern holds in its section, one in the head everywhere."""
        document = Document(
            "d",
            [
                r"<!-- varies: a (\d) -->",
                "## one",
                r"<!-- varies freely: b (\d) -->",
                "<!-- session: -->",
                "## two",
                "<!-- session: -->",
            ],
        )
        one, two = (s.varies for s in document.sessions)
        self.assertEqual((one, two), ([r"a (\d)", r"b (\d)" + FREELY], [r"a (\d)"]))


class Comparing(unittest.TestCase):
    """What may differ, and what may not."""

    def compare(self, expected: str, printed: str, *varies: str) -> str:
        """Why they differ, "" if they do not."""
        try:
            Comparison(varies).compare(expected.splitlines(), printed.splitlines())
        except Mismatch as e:
            return str(e)
        return ""

    def test_same(self) -> None:
        """Other numbers of the same shape."""
        for expected, printed in (
            ("mfn 0x114, pa 0x114000", "mfn 0x117,  pa 0x117000"),
            ("at 0xffffffff802271a0", "at 0xffffffff8022b000"),  # a function may begin a page
            (
                "f (a=<optimized out>, b=<optimized out>)",
                "f (b=<optimized out>, a=<optimized out>)",
            ),
            (
                "f at a/b.c:35\n5 entries, 6 frames, 7 mappings",
                "f at a/b.c:4\n9 entries, 3 frames, 7 mappings",
            ),
            ("f at a.c:1\ng at b.c:2", "f at a.c:7\ng at b.c:7"),
            ("2 ranges, 88 pages, 352K", "2 ranges, 90 pages, 360K"),
            ("0.123 seconds\n0.123 seconds", "2.000 seconds\n0.123 seconds"),
            ("a\n...\nz 1", "a\nb\nc\nz 1"),
            ("a\n...\nc\n...\nz", "a\nb\nc\nd\nz"),
            ("a\n...\nc\nd 2\n...\nz", "a\nc\nd 3\nc\nd 2\nz"),
            ("a\n...", "a"),
            # Of lines that look alike those that the document has; a descriptor is aligned by chance.
            ("...\nx 1\ny 2\n...\nz", "x 1\nw\nx 1\ny 2\nz"),
            (
                "descriptor  0xffffff8000007700 (index 0x3b8), ring 0x1 < > 0x530",
                "descriptor  0xffffff8000005000 (index 0x280), ring 0x454 < > 0x298",
            ),
        ):
            self.assertEqual(self.compare(expected, printed), "")
        self.assertEqual(self.compare("x 5 y", "x 6 y", r"x (\d+)"), "")
        self.assertEqual(self.compare("x 1,000", "x 1,024", r"x ([\d,]+)"), "")
        self.assertEqual(self.compare("x 0 y", "x 60 y", r"x (\d+)" + FREELY), "")
        revisions = r"(?P<any>\d+)(?= BXPC)" + FREELY
        self.assertEqual(self.compare("1 BXPC\n1 BXPC", "3 BXPC\n1 BXPC", revisions), "")

    def test_different(self) -> None:
        """What counts as a difference: words, lines, counts, zeros, numbers that were one and are two."""
        for expected, printed in (
            ("a b", "a c"),
            ("a", "a\nb"),
            ("a\nb", "a"),
            ("refcount 1", "refcount 2"),
            ("5 entries, 6 frames, 7 mappings", "5 entries, 0 frames, 7 mappings"),
            ("5 entries, 6 frames, 7 mappings", "11 entries, 6 frames, 7 mappings"),
            ("5 entries, 6 frames, 7 mappings", "6 entries, 6 frames, 7 mappings"),
            ("1 range, 8 pages, 32K", "1 range, 8 pages, 32M"),
            ("mfn 0x114 of 0x114", "mfn 0x117 of 0x118"),
            ("mfn 0x114 of 0x115", "mfn 0x117 of 0x117"),
            ("slot 0x0", "slot 0x1"),
            ("error 0x2", "error 0x3"),
            ("va 0xffffc07000001000", "va 0x7000001000"),
            ("pa 0x1000", "pa 0x1001"),
            ("entry 0x8000000000113003", "entry 0x8000000000114001"),
            ("f at a.c:1\ng at a.c:2", "f at a.c:7\ng at a.c:7"),
            ("f at a.c:1\ng at a.c:1", "f at a.c:7\ng at a.c:8"),
            ("a\n...\nc\n...\nz", "a\nb\nd\nz"),
            ("a\n...\nc\nd 2\n...\nz", "a\nc\nd 3\nd 2\nz"),
            ("...\nx 1\ny 2\n...\nz", "x 1\nw\nx 1\ny 3\nz"),
            ("a\n...\nz 1", "a\nz 2"),
        ):
            self.assertNotEqual(self.compare(expected, printed), "", f"{expected!r} {printed!r}")

    def test_contradictions(self) -> None:
        """Numbers that vary still say what they said of each other."""
        counts = r"free is (\d+), but (\d+) are counted" + FREELY
        one = "free is 1, but 0 are counted"
        self.assertEqual(self.compare(one, "free is 0, but 3 are counted", counts), "")
        self.assertNotEqual(self.compare(one, "free is 5, but 5 are counted", counts), "")
        other = "free is 1, but 2 are counted"
        for printed, same in (
            ("free is 4, but 0 are counted\nfree is 4, but 2 are counted", True),
            ("free is 4, but 0 are counted\nfree is 5, but 2 are counted", False),
            ("free is 4, but 0 are counted\nfree is 4, but 0 are counted", False),
        ):
            why = self.compare(f"{one}\n{other}", printed, counts)
            self.assertEqual(not why, same, f"{printed}: {why}")

    def test_translate(self) -> None:
        """A command takes up the number that was printed."""
        comparison = Comparison()
        comparison.compare(["mfn 0x114"], ["mfn 0x119"])
        self.assertEqual(comparison.translate("x 0x114 0x115"), "x 0x119 0x115")


if __name__ == "__main__":
    unittest.main()
