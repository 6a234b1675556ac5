# SPDX-License-Identifier: BSD-2-Clause
# An ELF file's symbol table, whole and cut short.
"""Tests of ktf.symtab; tests/gdb/guest/symbols.py holds it against nm."""

from __future__ import annotations

import struct
import unittest

from ktf.errors import Corrupt
from ktf.kernel.symtab import SECTION, SYMBOL, functions

NAMES = b"\0first\0first.part.0\0second\0object\0"


def symbol(name: bytes, info: int, va: int, size: int) -> bytes:
    """A row of the symbol table."""
    return struct.pack("<IBBHQQ", NAMES.index(b"\0" + name + b"\0") + 1, info, 0, 1, va, size)


def elf(symbols: bytes, link: int = 2, count: int = 3) -> bytes:
    """A file with these symbols: its sections are none, the symbols, the names."""
    at = 64 + SECTION.size * 3
    head = b"\x7fELF\x02\x01".ljust(40, b"\0") + struct.pack("<Q10xHHH", 64, SECTION.size, count, 0)
    sections = SECTION.pack(*[0] * 10)
    sections += SECTION.pack(0, 2, 0, 0, at, len(symbols), link, 0, 8, SYMBOL.itemsize)
    sections += SECTION.pack(0, 3, 0, 0, at + len(symbols), len(NAMES), 0, 0, 1, 0)
    return head + sections + symbols + NAMES


ROWS = (
    symbol(b"first", 0x12, 0x1000, 40)
    + symbol(b"first.part.0", 0x02, 0x1800, 5)
    + symbol(b"second", 0x02, 0x2000, 7)
    + symbol(b"second", 0x02, 0x3000, 9)
    + symbol(b"object", 0x11, 0x4000, 8)
    + symbol(b"object", 0x12, 0x5000, 0)
)


class Sizes(unittest.TestCase):
    """Functions alone."""

    def test_functions(self) -> None:
        """Local ones of one name apart, objects and those without a size left out."""
        found = functions(elf(ROWS))
        self.assertEqual(found.find("first", 0x1000), (0x1000, 40))
        self.assertEqual(found.find("second", 0x2000), (0x2000, 7))
        self.assertEqual(found.find("second", 0x3000), (0x3000, 9))
        for name, va in (("first", 0x2000), ("first", 0x3000), ("object", 0x4000), ("no", 0x1000)):
            self.assertEqual(found.find(name, va), None, name)

    def test_part(self) -> None:
        """GDB takes a part of the function, or one that is no longer there, for the whole: the whole is meant, unless there are two."""
        self.assertEqual(functions(elf(ROWS)).find("first", 0x1800), (0x1000, 40))
        self.assertEqual(functions(elf(ROWS)).find("first", 0x9000), (0x1000, 40))
        twice = ROWS + symbol(b"first", 0x02, 0x6000, 3)
        self.assertEqual(functions(elf(twice)).find("first", 0x1800), None)

    def test_stripped(self) -> None:
        """No symbols, or none that have names."""
        for file in (elf(b""), elf(ROWS, link=9), elf(ROWS, count=0)):
            self.assertEqual(functions(file).find("first", 0x1000), None)

    def test_damage(self) -> None:
        """Cut short anywhere, or with any byte of its heads changed: an answer, or Corrupt."""
        whole = elf(ROWS)
        heads = 64 + SECTION.size * 3
        for end in range(len(whole)):
            with self.assertRaises(Corrupt):
                functions(whole[:end])
        for at in range(heads + SYMBOL.itemsize):
            for bits in (0x01, 0x80, 0xFF):
                changed = bytearray(whole)
                changed[at] ^= bits
                try:
                    functions(bytes(changed))
                except Corrupt:
                    continue


if __name__ == "__main__":
    unittest.main()
