# SPDX-License-Identifier: BSD-2-Clause
# The symbol table of an ELF file: how large functions are, which GDB does not say to Python.
"""functions(file).find(name, address): where that function is, and its bytes; pure.

GDB's blocks do not tell it. The innermost one at a function's first instruction may be that of a function inlined
there. The outermost one reaches to the end of the last part where the compiler has moved a part elsewhere, with other
functions between them.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator

import numpy as np

from ktf.errors import Corrupt

SYMTAB = 2  # SHT_SYMTAB
FUNC = 2  # STT_FUNC
SECTION = struct.Struct(
    "<IIQQQQIIQQ"
)  # name, type, flags, addr, offset, size, link, info, addralign, entsize
SYMBOL = np.dtype(
    [
        ("name", "<u4"),
        ("info", "u1"),
        ("other", "u1"),
        ("shndx", "<u2"),
        ("va", "<u8"),
        ("size", "<u8"),
    ]
)


class Functions:
    """The functions of a file that have a size."""

    def __init__(self, rows: Iterable[tuple[str, int, int]]) -> None:
        self._size: dict[tuple[str, int], int] = {}
        self._places: dict[str, list[int]] = {}
        self._names: dict[int, list[str]] = {}
        for name, va, size in rows:
            self._size[name, va] = size
            self._places.setdefault(name, []).append(va)
            self._names.setdefault(va, []).append(name)

    def find(self, name: str, va: int) -> tuple[int, int] | None:
        """Address and size of the function that GDB has there; None if the file has no such function.

        GDB may have a part of it, which the compiler has made a function of its own and called name.part.0, or a weak
        definition that the linker has replaced, where the file has no function.
        """
        places = self._places.get(name, [])
        if va not in places:
            others = self._names.get(va, [])
            if len(places) != 1 or not all(n.startswith(f"{name}.") for n in others):
                return None
            (va,) = places
        return va, self._size[name, va]


def functions(file: bytes | mmap.mmap) -> Functions:
    """Of an ELF64 file; Corrupt if it is none. A stripped one has no functions."""
    if len(file) < 64 or file[:6] != b"\x7fELF\x02\x01":
        raise Corrupt("not an ELF64 file")
    (start,) = struct.unpack_from("<Q", file, 40)
    size, count = struct.unpack_from("<HH", file, 58)
    if count and (size < SECTION.size or start + size * count > len(file)):
        raise Corrupt("the ELF file's section headers lie outside of it")
    sections = [SECTION.unpack_from(file, start + size * i) for i in range(count)]
    rows: list[tuple[str, int, int]] = []
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind == SYMTAB and link < count:
            names = _contents(file, *sections[link][4:6])
            symbols = _contents(file, offset, length // SYMBOL.itemsize * SYMBOL.itemsize)
            rows += _rows(np.frombuffer(symbols, SYMBOL), names)
    return Functions(rows)


def _contents(file: bytes | mmap.mmap, offset: int, size: int) -> bytes:
    if offset + size > len(file):
        raise Corrupt("a section of the ELF file lies outside of it")
    return file[offset : offset + size]


def _rows(symbols: np.ndarray, names: bytes) -> Iterator[tuple[str, int, int]]:
    wanted = (symbols["info"] & 15 == FUNC) & (symbols["size"] != 0)
    for at, _, _, _, va, size in symbols[wanted].tolist():
        end = names.find(b"\0", at)
        yield names[at : max(end, at)].decode(errors="replace"), va, size
