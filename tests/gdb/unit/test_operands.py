# SPDX-License-Identifier: BSD-2-Clause
# What an instruction touches, by the text that GDB shows of it: every form of address, sizes, reads and writes.
"""Tests of ktf.operands."""

from __future__ import annotations

import unittest
from typing import Any

from ktf.x86.operands import Access, accesses, software_vector, width

REGISTERS = {
    "rax": 0x1000,
    "rbx": 0x20000,
    "rcx": 0x300,
    "rsi": 0x5000,
    "rdi": 0x6000,
    "rbp": 0x7000,
    "rsp": 0x8000,
    "r9": 0xFFFFFFFFFFFFFFF0,
    "eax": 0xFFFFFFF8,
    "fs_base": 0x100000000,
    "gs_base": 0xFFFFFFFF80000000,
}
NEXT = 0xFFFFFFFF80200010
READ, WRITE = False, True

# text; what it reads and writes
CASES: tuple[tuple[str, list[tuple[Any, ...]]], ...] = (
    # Each part of an address, alone and with the others.
    ("mov    (%rax),%rdx", [(0x1000, 8, READ)]),
    ("mov    0x10(%rax),%rdx", [(0x1010, 8, READ)]),
    ("mov    -0x600(%rbp),%rdx", [(0x6A00, 8, READ)]),
    ("mov    (%rax,%rcx,1),%rdx", [(0x1300, 8, READ)]),
    ("mov    (%rax,%rcx,8),%rdx", [(0x2800, 8, READ)]),
    ("mov    0x10(%rax,%rcx,4),%rdx", [(0x1C10, 8, READ)]),
    ("mov    0x10(,%rcx,2),%rdx", [(0x610, 8, READ)]),
    ("mov    0x10(%rax,%riz,1),%rdx", [(0x1010, 8, READ)]),
    ("mov    0xffffffff80245230,%rdx", [(0xFFFFFFFF80245230, 8, READ)]),
    ("movabs 0xffffc06000000000,%rax", [(0xFFFFC06000000000, 8, READ)]),
    ("mov    0x20(%rip),%rdx        # 0xffffffff80200030 <mm+8>", [(NEXT + 0x20, 8, READ)]),
    ("mov    -0x10(%rip),%rdx        # 0xffffffff80200000 <mm>", [(NEXT - 0x10, 8, READ)]),
    ("mov    %gs:0x8,%rdx", [(0xFFFFFFFF80000008, 8, READ)]),
    ("mov    %gs:(%rax),%rdx", [(0xFFFFFFFF80001000, 8, READ)]),
    ("mov    %fs:0x10(%rax,%rcx,8),%rdx", [(0x100002810, 8, READ)]),
    ("mov    %ds:(%rax),%rdx", [(0x1000, 8, READ)]),
    ("mov    0x20(%r9),%rdx", [(0x10, 8, READ)]),  # wraps at 64 bits
    ("mov    0x10(%eax),%edx", [(0x8, 4, READ)]),  # wraps at 32 bits
    ("mov    %gs:0x10(%eax),%edx", [(0xFFFFFFFF80000008, 4, READ)]),
    # Sizes.
    ("movb   $0x1,(%rax)", [(0x1000, 1, WRITE)]),
    ("movw   $0x1,(%rax)", [(0x1000, 2, WRITE)]),
    ("movl   $0x1,(%rax)", [(0x1000, 4, WRITE)]),
    ("movq   $0x1,(%rax)", [(0x1000, 8, WRITE)]),
    ("mov    %dl,(%rax)", [(0x1000, 1, WRITE)]),
    ("mov    %cl,(%rax)", [(0x1000, 1, WRITE)]),
    ("mov    %r9w,(%rax)", [(0x1000, 2, WRITE)]),
    ("mov    %r9d,(%rax)", [(0x1000, 4, WRITE)]),
    ("movups %xmm0,(%rax)", [(0x1000, 16, WRITE)]),
    ("movzbl (%rax),%edx", [(0x1000, 1, READ)]),
    ("movzwl (%rax),%edx", [(0x1000, 2, READ)]),
    ("movslq (%rax),%rdx", [(0x1000, 4, READ)]),
    ("sete   (%rax)", [(0x1000, 1, WRITE)]),
    ("shlq   %cl,(%rax)", [(0x1000, 8, WRITE)]),
    ("cmpxchg16b (%rax)", [(0x1000, 16, WRITE)]),
    # Reads and writes.
    ("add    %rdx,(%rax)", [(0x1000, 8, WRITE)]),
    ("add    (%rax),%rdx", [(0x1000, 8, READ)]),
    ("incl   (%rax)", [(0x1000, 4, WRITE)]),
    ("cmp    %rdx,(%rax)", [(0x1000, 8, READ)]),
    ("cmpl   $0x1,(%rax)", [(0x1000, 4, READ)]),
    ("test   %rdx,(%rax)", [(0x1000, 8, READ)]),
    ("lock cmpxchg %rdx,(%rax)", [(0x1000, 8, WRITE)]),
    ("xchg   (%rax),%rdx", [(0x1000, 8, WRITE)]),
    ("lock xadd %rdx,(%rax)", [(0x1000, 8, WRITE)]),
    ("btl    $0x1,(%rax)", [(0x1000, 4, READ)]),
    ("lock btsl $0x1,(%rax)", [(0x1000, 4, WRITE)]),
    ("divq   (%rax)", [(0x1000, 8, READ)]),
    ("notl   (%rax)", [(0x1000, 4, WRITE)]),
    ("lidt   (%rax)", [(0x1000, 8, READ)]),
    ("movsq  %ds:(%rsi),%es:(%rdi)", [(0x5000, 8, READ), (0x6000, 8, WRITE)]),
    ("rep stos %rax,%es:(%rdi)", [(0x6000, 8, WRITE)]),
    ("rep stos %al,%es:(%rdi)", [(0x6000, 1, WRITE)]),
    # What touches nothing.
    ("lea    0x10(%rax),%rdx", []),
    ("nopw   0x0(%rax,%rax,1)", []),
    ("invlpg (%rax)", []),
    ("prefetcht0 (%rax)", []),
    ("mov    $0x10,%rdx", []),
    ("mov    %rax,%rdx", []),
    ("out    %al,(%dx)", []),
    ("in     (%dx),%al", []),
    ("jmp    0xffffffff80200000 <f+16>", []),
    ("hlt", []),
    ("", []),
    # The stack.
    ("push   %rax", [(0x7FF8, 8, WRITE, True)]),
    ("push   (%rax)", [(0x1000, 8, READ), (0x7FF8, 8, WRITE, True)]),
    ("call   0xffffffff80200000 <f>", [(0x7FF8, 8, WRITE, True)]),
    ("call   *0x10(%rax)", [(0x1010, 8, READ), (0x7FF8, 8, WRITE, True)]),
    ("call   *%rax", [(0x7FF8, 8, WRITE, True)]),
    ("jmp    *(%rax,%rcx,8)", [(0x2800, 8, READ)]),
    ("pop    %rax", [(0x8000, 8, READ, True)]),
    ("pop    (%rax)", [(0x8000, 8, READ, True), (0x1000, 8, WRITE)]),
    ("ret", [(0x8000, 8, READ, True)]),
    ("leave", [(0x7000, 8, READ, True)]),
    ("iretq", [(0x8000, 40, READ, True)]),
)


class Operands(unittest.TestCase):
    """Texts as GDB 13 prints them."""

    def test_cases(self) -> None:
        """Addresses, sizes, in the order in which they fault."""
        for text, wanted in CASES:
            with self.subTest(text=text):
                found = accesses(text, REGISTERS.__getitem__, NEXT)
                self.assertEqual(found, [Access(*one) for one in wanted])

    def test_unknown(self) -> None:
        """An address made of a register that nobody tells is not guessed."""
        with self.assertRaises(KeyError):
            accesses("mov (%r15),%rax", REGISTERS.__getitem__, NEXT)

    def test_width(self) -> None:
        """Of every kind of register."""
        for names, size in (
            ("al ah bl spl bpl sil dil r8b r15b", 1),
            ("ax si bp r8w r15w cs gs", 2),
            ("eax esi ebp r8d r15d", 4),
            ("rax rsi rbp rsp r8 r15 rip", 8),
            ("xmm0 xmm15", 16),
            ("ymm3", 32),
            ("zmm31", 64),
        ):
            for name in names.split():
                self.assertEqual(width(name), size, name)

    def test_software(self) -> None:
        """What asks for an exception, and what does not."""
        for text, vector in (
            ("int3", 3),
            ("int1", 1),
            ("ud2", 6),
            ("int    $0x80", 0x80),
            ("(bad)", 6),
            ("mov    $0x80,%eax", None),
            ("", None),
        ):
            self.assertEqual(software_vector(text), vector, text)


if __name__ == "__main__":
    unittest.main()
