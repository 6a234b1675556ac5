#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's folders are floors: a file includes and calls only what is in its own folder or below it.

Reads the #include lines of the sources and the symbols of the built objects (`nm`). It fails on an arrow that goes up,
on a folder of sources that FLOORS does not name, and on an entry of UPWARDS that nothing needs.
"""

from __future__ import annotations

import re
import subprocess
import unittest
from collections.abc import Iterable, Mapping
from pathlib import Path

from qemu import BUILD, ROOT

# From the ground up, with what each may use: folders, or single headers that hold data alone. So there is no circle.
FLOORS: dict[str, tuple[str, ...]] = {
    "lib": (),
    "arch/x86": ("lib",),
    "boot": ("lib", "arch/x86"),
    "mm": ("lib", "arch/x86", "boot/bootinfo.h"),
    "mm/kmalloc": ("lib", "arch/x86", "mm"),
    "mm/check": ("lib", "arch/x86", "mm", "mm/kmalloc"),
    "acpi": ("lib", "arch/x86", "mm", "mm/kmalloc"),
    "kernel": ("lib", "arch/x86", "boot", "mm", "mm/kmalloc", "mm/check", "acpi"),
    "tests/guest": (
        *("lib", "arch/x86", "boot", "mm", "mm/kmalloc", "mm/check", "acpi", "kernel"),
    ),
}
# The one call upwards: the boot code hands over to the kernel.
UPWARDS = {("boot/boot.S", "kernel_main")}
OTHERS = (".", "build/", "tests/host/", "tests/fuzz/", "tests/gdb/")  # sources of other programs
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


def folder(name: str) -> str:
    """The floor that a file stands on: its folder, but for the headers that stand for ACPICA's own."""
    return "acpi" if name.startswith("acpi/include/") else name.rpartition("/")[0]


def may_use(user: str, used: str) -> bool:
    """Whether one file may use another."""
    floor = folder(user)
    return folder(used) in (floor, *FLOORS.get(floor, ())) or used in FLOORS.get(floor, ())


def homeless(names: Iterable[str]) -> list[str]:
    """Files in folders that are no floor."""
    return [
        f"{name}: {folder(name)} is not in FLOORS" for name in names if folder(name) not in FLOORS
    ]


def includes_up(texts: Mapping[str, str]) -> list[str]:
    """The #include lines, of sources by their names, that lead up or nowhere."""
    found = []
    for name, text in sorted(texts.items()):
        for header in INCLUDE.findall(text):
            if header not in texts:
                found.append(f"{name} includes {header}, which is not there")
            elif not may_use(name, header):
                found.append(f"{name} includes {header}")
    return found


def calls_up(symbols: Mapping[str, str]) -> tuple[list[str], set[tuple[str, str]]]:
    """What leads up, of the output of `nm -P` by source; and the calls upwards that are meant."""
    defined: dict[str, list[str]] = {}
    wanted: list[tuple[str, str]] = []
    for name, text in sorted(symbols.items()):
        for line in text.splitlines():
            symbol, kind = line.split()[:2]
            if kind in ("U", "w", "v"):
                wanted.append((name, symbol))
            elif kind.isupper():
                defined.setdefault(symbol, []).append(name)
    up = {(a, s, b) for a, s in wanted for b in defined.get(s, ()) if not may_use(a, b)}
    meant = {(a, s) for a, s, _ in up} & UPWARDS
    return [f"{a} uses {s} of {b}" for a, s, b in sorted(up) if (a, s) not in meant], meant


def sources() -> dict[str, str]:
    """The kernel's sources by name, with their texts."""
    found = {}
    tops = [path for path in ROOT.iterdir() if path != BUILD and path.is_dir()]
    for path in sorted(p for top in tops for p in top.rglob("*.[chS]")):
        name = str(path.relative_to(ROOT))
        if not name.startswith(OTHERS):
            found[name] = path.read_text()
    return found


def objects(names: Iterable[str]) -> dict[str, Path]:
    """Of the sources with these names, those that are built, with their objects."""
    paths = {name: BUILD / "obj" / f"{name}.o" for name in names if not name.endswith(".h")}
    return {name: path for name, path in paths.items() if path.exists()}


def nm(built: Mapping[str, Path]) -> dict[str, str]:
    """The symbols of objects, by the names of their sources."""
    command = ["nm", "-P", "-A", *map(str, built.values())]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = {f"{path}:": name for name, path in built.items()}
    found = dict.fromkeys(built, "")
    for line in out.splitlines():
        path, symbol = line.split(" ", 1)
        found[names[path]] += symbol + "\n"
    return found


class Judgement(unittest.TestCase):
    """Made-up sources and objects: each kind of fault is found, and what is right is not."""

    def test_include_up(self) -> None:
        texts = {"mm/a.c": '#include "kernel/b.h"\n', "kernel/b.h": "", "lib/c.h": ""}
        self.assertEqual(includes_up(texts), ["mm/a.c includes kernel/b.h"])
        self.assertEqual(includes_up({**texts, "mm/a.c": '# include "lib/c.h"\n'}), [])

    def test_include_nowhere(self) -> None:
        self.assertEqual(
            includes_up({"mm/a.c": '#include "mm/b.h"\n'}),
            ["mm/a.c includes mm/b.h, which is not there"],
        )

    def test_single_header(self) -> None:
        texts = {"boot/bootinfo.h": "", "boot/cmdline.h": ""}
        data = {**texts, "mm/a.c": '#include "boot/bootinfo.h"\n'}
        code = {**texts, "mm/a.c": '#include "boot/cmdline.h"\n'}
        self.assertEqual(includes_up(data), [])
        self.assertEqual(includes_up(code), ["mm/a.c includes boot/cmdline.h"])

    def test_call_up(self) -> None:
        symbols = {"mm/a.c": "f U\ng U\n", "kernel/b.c": "f T 0 8\n", "lib/c.c": "g T 0 8\n"}
        self.assertEqual(calls_up(symbols), (["mm/a.c uses f of kernel/b.c"], set()))

    def test_weak_call_up(self) -> None:
        symbols = {"mm/a.c": "f w\n", "kernel/b.c": "f W 0 8\n"}
        self.assertEqual(calls_up(symbols)[0], ["mm/a.c uses f of kernel/b.c"])

    def test_data_up(self) -> None:
        symbols = {"lib/a.c": "d U\n", "arch/x86/b.c": "d B 0 8\n"}
        self.assertEqual(calls_up(symbols)[0], ["lib/a.c uses d of arch/x86/b.c"])

    def test_local_names(self) -> None:
        """A static function of the same name is another one."""
        symbols = {"mm/a.c": "f U\n", "kernel/b.c": "f t 0 8\n", "lib/c.c": "f T 0 8\n"}
        self.assertEqual(calls_up(symbols), ([], set()))

    def test_meant(self) -> None:
        symbols = {"boot/boot.S": "kernel_main U\n", "kernel/main.c": "kernel_main T 0 8\n"}
        self.assertEqual(calls_up(symbols), ([], UPWARDS))

    def test_new_folder(self) -> None:
        names = ["mm/a.c", "net/b.c", "mm/deep/c.h"]
        self.assertEqual(len(homeless(names)), 2)

    def test_order(self) -> None:
        """Each floor uses only floors that stand before it in the table."""
        before: list[str] = []
        for floor, uses in FLOORS.items():
            for used in uses:
                self.assertIn(folder(used) if used.endswith(".h") else used, before, floor)
            before.append(floor)


class Tree(unittest.TestCase):
    """The sources and objects as they are."""

    def test_folders(self) -> None:
        self.assertEqual(homeless(sources()), [])

    def test_includes(self) -> None:
        self.assertEqual(includes_up(sources()), [])

    def test_calls(self) -> None:
        built = objects(sources())
        floors = {folder(name) for name in sources()}
        self.assertEqual({folder(name) for name in built}, floors, "built objects")
        wrong, meant = calls_up(nm(built))
        self.assertEqual(wrong, [])
        self.assertEqual(meant, UPWARDS, "calls upwards that are there")


if __name__ == "__main__":
    unittest.main()
