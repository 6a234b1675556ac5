# SPDX-License-Identifier: BSD-2-Clause
# The packages of gdb/ktf: which may import which.
"""Tests of the arrows between the modules of gdb/ktf, as their import lines say."""

from __future__ import annotations

import ast
import unittest
from pathlib import Path

KTF = Path(__file__).resolve().parents[3] / "gdb/ktf"

# From the bottom up; a package imports itself and those of the lines above it. Those of one line know nothing of each other.
FLOORS = (
    ("errors", "findings"),
    ("memory",),
    ("x86",),
    ("kernel",),
    ("rules", "show", "cores"),
    ("acpi", "postmortem"),
    ("commands",),
    ("debugger",),
)
GDB = "debugger"  # the one package that talks to gdb


def imports(source: str) -> set[str]:
    """What a module imports of ours, with gdb: "ktf.x86.paging", "gdb"; at its top and in its functions, for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if node.level:
                name = "relative"
            deeper = name == "ktf" or name.count(".") == 1 and name.startswith("ktf.")
            found |= {f"{name}.{alias.name}" for alias in node.names} if deeper else {name}
    return {name for name in found if name.split(".")[0] in ("ktf", "gdb", "relative")}


def modules() -> dict[str, set[str]]:
    """Every module, "ktf.x86.paging", with what it imports: modules that there are, and gdb."""
    known = {}
    for path in sorted(KTF.rglob("*.py")):
        name = ".".join(("ktf", *path.relative_to(KTF).with_suffix("").parts))
        known[name.removesuffix(".__init__")] = imports(path.read_text())
    for name, found in known.items():
        # `from ktf.errors import KtfError` names a module's content.
        known[name] = {n if n in known or n == "gdb" else n.rpartition(".")[0] for n in found}
    return known


def complaints(known: dict[str, set[str]]) -> list[str]:
    """Arrows that run up or across, gdb where it may not be, relative imports, modules of no package."""
    floor = {package: i for i, row in enumerate(FLOORS) for package in row}
    bad = []
    for name, found in known.items():
        package = name.split(".")[1] if "." in name else ""
        if package and package not in floor:
            bad.append(f"{name} is in no package of FLOORS")
            continue
        for other in sorted(found):
            target = other.split(".")[1] if other.startswith("ktf.") else ""
            if other == "gdb":
                bad += [f"{name} imports gdb"] if package != GDB else []
            elif other.startswith("relative") or not target:
                bad.append(f"{name} imports {other}: name the module from ktf on")
            elif package and package != target and floor.get(target, 99) >= floor[package]:
                bad.append(f"{name} imports {other}, which does not stand below it")
    return bad


def circles(known: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules each of which leads to all others of its set."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for other in known.get(todo.pop(), set()) - seen:
                seen.add(other)
                todo.append(other)
        return seen

    far = {name: reach(name) for name in known}
    found: list[set[str]] = []
    for name in known:
        ring = {other for other in far[name] if name in far.get(other, set())}
        if ring and ring not in found:
            found.append(ring)
    return found


class Packages(unittest.TestCase):
    """Of the real tree, and of made-up ones that break it."""

    def test_tree(self) -> None:
        """No arrow runs up or across, there is no circle, and only the debugger's package imports gdb."""
        known = modules()
        self.assertGreater(len(known), 80)
        self.assertEqual(complaints(known), [])
        self.assertEqual(circles(known), [])

    def test_broken(self) -> None:
        """Each kind of mistake is seen."""
        for source, name, said in (
            ("from ktf.rules.table import RULES", "ktf.kernel.pools", "does not stand below"),
            ("def f():\n    from ktf.show import maps", "ktf.rules.tables", "does not stand below"),
            ("import gdb", "ktf.commands.maps", "imports gdb"),
            ("from . import walk", "ktf.x86.paging", "from ktf on"),
            ("import ktf", "ktf.x86.paging", "from ktf on"),
            ("import os", "ktf.lost", "in no package"),
        ):
            with self.subTest(source):
                known = {**modules(), name: imports(source)}
                self.assertIn(said, " ".join(complaints(known)))
        known = {**modules(), "ktf.x86.paging": {"ktf.x86.walk"}}
        self.assertIn({"ktf.x86.paging", "ktf.x86.walk"}, circles(known))


if __name__ == "__main__":
    unittest.main()
