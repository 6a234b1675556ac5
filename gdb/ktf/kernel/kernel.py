# SPDX-License-Identifier: BSD-2-Clause
# The kernel's own objects: struct mm, its arenas, found through the symbols and read by virtual address.
"""Kernel: from the symbol `mm` to arrays of its objects.

    kernel.mm                                # Records of one struct mm
    kernel.arena("ARENA_FRAMES")             # where its objects are
    data, ok = kernel.window(arena)          # the mapped bytes of it, and which pages could be read
    kernel.layout("frame_t").records(data)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ktf.errors import Corrupt, KtfError, NotYet, Unreadable
from ktf.kernel.layout import Layout, Records, Types
from ktf.memory.readers import PAGE, Reader
from ktf.x86.paging import Rules
from ktf.x86.trace import translate

MAGIC = b"\0KTF-MM1"  # MM_MAGIC of mm/mm.h


@dataclass(frozen=True)
class Segment:
    """A loadable segment of an ELF file: size bytes at va belong at pa (and stand at offset in the file)."""

    va: int
    pa: int
    size: int
    offset: int = 0
    filesz: int = 0


def elf_segments(head: bytes) -> list[Segment]:
    """The PT_LOAD segments, from the start of an ELF64 file; Corrupt if it is none."""
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        raise Corrupt("not an ELF64 file")
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    segments = []
    for at in range(offset, offset + size * count, size or 1):
        if at + 56 > len(head):
            raise Corrupt("the ELF file's program headers lie outside of it")
        kind, _, off, va, pa, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", head, at)
        if kind == 1 and memsz:
            segments.append(Segment(va, pa, memsz, off, filesz))
    return segments


class VirtualMemory:
    """Memory as one address space sees it, through its page tables."""

    def __init__(self, reader: Reader, root: int, rules: Rules) -> None:
        self.reader = reader
        self.root = root
        self.rules = rules

    def pages(self, va: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """count pages from va on as a (count, 4096) uint8 array; False where unmapped or no RAM."""
        vas = np.uint64(va) + np.arange(count, dtype=np.uint64) * np.uint64(PAGE)
        pas, mapped = translate(self.reader, self.root, self.rules, vas)
        words, ok = self.reader.read_pages(pas >> np.uint64(12))
        ok = ok & mapped
        if not mapped.all():
            words = words.copy()
            words[~mapped] = 0
        return words.view(np.uint8), ok

    def read(self, va: int, size: int) -> bytes:
        """size bytes at va; Unreadable, naming the address, if any is not there."""
        first = va // PAGE * PAGE
        data, ok = self.pages(first, (va + size - first + PAGE - 1) // PAGE)
        if not ok.all():
            bad = max(va, first + int(np.flatnonzero(~ok)[0]) * PAGE)
            raise Unreadable(f"{bad:#x} is not mapped, or not to the guest's RAM", va=bad)
        return data.reshape(-1)[va - first : va - first + size].tobytes()


@dataclass(frozen=True)
class Arena:
    """A window of the kernel's memory that holds objects of one kind: see mm/arena.h."""

    name: str
    base: int
    limit: int
    unit: int
    size: int
    pages: int

    def va(self, index: int) -> int:
        """Address of the object with that index."""
        return self.base + index * self.unit


class Kernel:
    """The kernel whose symbols GDB has loaded.

    memory sees the kernel's half; image says where the file's segments lie in physical memory, so
    that struct mm is found even when page tables are broken.
    """

    def __init__(self, types: Types, image: list[Segment], memory: VirtualMemory) -> None:
        self.types = types
        self.image = image
        self.memory = memory
        self._layouts: dict[str, Layout] = {}

    def layout(self, name: str) -> Layout:
        """Of a struct or typedef."""
        if name not in self._layouts:
            self._layouts[name] = Layout(self.types.struct(name))
        return self._layouts[name]

    def image_pa(self, va: int) -> int | None:
        """Physical address of an address in the kernel's image, None outside of it."""
        for s in self.image:
            if s.va <= va < s.va + s.size:
                return va - s.va + s.pa
        return None

    def read(self, va: int, size: int) -> bytes:
        """Bytes of the kernel: of its image at its physical place, of the rest through page tables."""
        pa = self.image_pa(va)
        if pa is not None and self.image_pa(va + size - 1) == pa + size - 1:
            return self.memory.reader.read(pa, size)
        return self.memory.read(va, size)

    def variable(self, name: str, layout: str) -> Records:
        """A global variable of a struct type."""
        symbol = self.types.symbol(name)
        if symbol is None:
            raise KtfError(f"the symbols have no {name}")
        form = self.layout(layout)
        return form.records(self.read(symbol.va, form.size))

    def variable_bytes(self, name: str) -> bytes | None:
        """A global variable as it stands in memory, None if the symbols have none of that name."""
        symbol = self.types.symbol(name)
        return None if symbol is None else self.read(symbol.va, symbol.size)

    @cached_property
    def mm(self) -> Records:
        """struct mm, as Records of one. NoGuest if the kernel has not built it yet."""
        symbol = self.types.symbol("mm")
        assert symbol is not None
        magic = self.read(symbol.va, 8)
        if magic == bytes(8) and not self._was_up():
            raise NotYet("the kernel has no frames yet: mm_init() has not run")
        if magic != MAGIC:
            raise Corrupt(
                f"mm at {symbol.va:#x} holds {magic.hex()}, not its magic number: "
                "the symbols are of another kernel, or it was overwritten"
            )
        return self.variable("mm", "struct mm")

    def _was_up(self) -> bool:
        """Whether mm_init() has once loaded the kernel's page tables."""
        return any(self.variable_bytes("kernel_cr3") or b"")

    def arena(self, name: str) -> Arena:
        """By its enumerator, e.g. "ARENA_FRAMES"; Corrupt if its numbers make no sense."""
        row = self.mm[0]["arena"][self.types.constant(name)]
        base, limit, unit, size, pages = (
            row.value(f) for f in ("base", "limit", "unit", "size", "pages")
        )
        arena = Arena(name, base, limit, unit, size, pages)
        whole = base % PAGE == 0 and base + limit <= 1 << 64 and size > 0 and unit > 0
        if not whole or pages * PAGE > limit:
            raise Corrupt(f"{name} makes no sense: {arena}")
        return arena

    def window(self, arena: Arena) -> tuple[np.ndarray, np.ndarray]:
        """The bytes of an arena's mapped pages, flat, and which of the pages could be read."""
        data, ok = self.memory.pages(arena.base, arena.pages)
        return data.reshape(-1), ok
