# SPDX-License-Identifier: BSD-2-Clause
# GDB's disassembler on bytes that we have read: GDB itself can't read them on QEMU's own core, or with a wrong CR3.
"""with bytes_at(va, code): what GDB disassembles there is code. Needs GDB 13; an older one reads by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gdb

from ktf.debugger.expressions import U64

try:
    from gdb.disassembler import (
        Disassembler,
        DisassembleInfo,
        builtin_disassemble,
        register_disassembler,
    )
except ImportError:
    Disassembler = None


@contextmanager
def bytes_at(va: int, code: bytes) -> Iterator[None]:
    """For the time of the block."""
    if not code or Disassembler is None:
        yield
        return

    class Info(DisassembleInfo):
        """Reads what we have."""

        def read_memory(self, length: int, offset: int = 0) -> bytes:
            """Of the instruction at va."""
            if offset + length > len(code):
                raise gdb.MemoryError(f"cannot access memory at {self.address + offset:#x}")
            return code[offset : offset + length]

    class FromBytes(Disassembler):
        """For this one address."""

        def __call__(self, info: DisassembleInfo) -> object:
            return builtin_disassemble(Info(info)) if info.address & U64 == va else None

    before = register_disassembler(FromBytes("ktf"))
    try:
        yield
    finally:
        register_disassembler(before)
