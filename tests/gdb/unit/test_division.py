# SPDX-License-Identifier: BSD-2-Clause
# Which divisions the processor refuses (SDM vol. 2, DIV and IDIV): zero, and quotients that have no room.
"""Tests of ktf.division."""

from __future__ import annotations

import unittest

from ktf.x86.division import fails, register

TOP = 1 << 63
BYTES = {0x1000: b"\0\0\0\0\0\0\0\x01", 0x2010: b"\xff" * 8}

# text, rax, rdx, rcx; whether it fails
CASES = (
    ("div %rcx", 5, 0, 0, True),
    ("div %rcx", 5, 0, 2, False),
    ("div %rcx", 0, 2, 2, True),  # the quotient is 2^64
    ("div %rcx", (1 << 64) - 1, 1, 2, False),  # and here one less
    ("div %ecx", 5, 0, 1 << 32, True),  # only the low half counts
    ("div %ecx", 5, 1 << 32, 1, False),
    ("divl %ecx", 0, 1, 1, True),
    ("div %cx", 0, 1, 1, True),
    ("div %cx", 1 << 16, 1 << 16, 1, False),
    ("div %cl", 0x100, 0, 1, True),  # the dividend is AX
    ("div %cl", 0xFF, 1, 1, False),
    ("div %cl", 0xFF, 0, 0x100, True),
    ("div %ch", 0xFF, 0, 1, True),
    ("div %ch", 0xFF, 0, 0x100, False),
    ("idiv %rcx", TOP, (1 << 64) - 1, (1 << 64) - 1, True),  # -2^63 by -1
    ("idiv %rcx", TOP, (1 << 64) - 1, 1, False),
    ("idiv %rcx", TOP, 0, 1, True),  # 2^63
    ("idiv %rcx", TOP - 1, 0, 1, False),
    ("idiv %rcx", TOP, 0, (1 << 64) - 1, False),  # -2^63
    ("idiv %ecx", 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF, True),
    ("idiv %ecx", 5, 0, 0, True),
    ("idiv %ecx", 0xFFFFFFF9, 0xFFFFFFFF, 2, False),
    ("idiv %cl", 0x7F, 0, 1, False),
    ("idiv %cl", 0x80, 0, 1, True),
    ("idiv %cl", 0xFF80, 0, 1, False),
    ("idivb 0x10(%rcx)", 0x80, 0, 0x2000, False),  # by -1
    ("divl (%rcx)", 5, 0, 0x1000, True),
    ("divq (%rcx)", 5, 0, 0x1000, False),
    ("lock div %rcx # 0x1", 5, 0, 0, True),
    ("divps %xmm0,%xmm1", 5, 0, 0, False),
    ("fdiv %st(1),%st", 5, 0, 0, False),
    ("mul %rcx", 5, 0, 0, False),
    ("", 5, 0, 0, False),
)


class Division(unittest.TestCase):
    """fails() and register()."""

    def test_cases(self) -> None:
        """Each width, signed and not, one below and at the border."""
        for text, rax, rdx, rcx, wanted in CASES:
            with self.subTest(text=text, rax=hex(rax), rdx=hex(rdx), rcx=hex(rcx)):
                values = {"rax": rax, "rdx": rdx, "rcx": rcx}
                said = fails(text, values.__getitem__, lambda va, n: BYTES[va][:n], 0)
                self.assertEqual(said, wanted)

    def test_registers(self) -> None:
        """By each name that a part of one has."""
        values = {"rbx": 0x1122334455667788, "rsi": 0x99AABBCC, "r9": 0x123456789A, "rbp": 0xFEDC}
        for name, wanted in (
            ("rbx", 0x1122334455667788),
            ("ebx", 0x55667788),
            ("bx", 0x7788),
            ("bl", 0x88),
            ("bh", 0x77),
            ("esi", 0x99AABBCC),
            ("si", 0xBBCC),
            ("sil", 0xCC),
            ("bpl", 0xDC),
            ("r9", 0x123456789A),
            ("r9d", 0x3456789A),
            ("r9w", 0x789A),
            ("r9b", 0x9A),
        ):
            self.assertEqual(register(name, values.__getitem__), wanted, name)
        with self.assertRaises(KeyError):
            register("xmm0", values.__getitem__)


if __name__ == "__main__":
    unittest.main()
