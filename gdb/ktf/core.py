# SPDX-License-Identifier: BSD-2-Clause
# ELF cores of a guest: physical memory by p_paddr, and the CPUs' control registers from QEMU's notes.
"""open_core(path) -> Core: memory, CPUs with all their registers, and what else it tells."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .errors import Corrupt, KtfError
from .kernel import elf_segments
from .readers import PAGE, CoreReader, RamMap, RamRange
from .registers import NOTE, Registers, from_note
from .session import Cpu

# Our own note, beside QEMU's: version, then for each CPU its EFER; what QEMU said of the CPU's physical addresses.
OWN_NAME, OWN_VERSION = b"KTF\0", 1
OWN_HEAD = struct.Struct(
    "<IIQ"
)  # version, CPUs, physical bits (0: unknown); CPUs words of EFER follow
NO_EFER = (1 << 64) - 1


@dataclass(frozen=True)
class Core:
    """A core file."""

    reader: CoreReader
    registers: list[Registers]
    phys_bits: int | None = None

    @property
    def cpus(self) -> list[Cpu]:
        """What decides how the CPUs read page tables."""
        return [cpu_of(r) for r in self.registers]


def cpu_of(r: Registers) -> Cpu:
    """The part of all registers that a Session needs."""
    cr0, cr2, cr3, cr4 = (r[f"cr{i}"] for i in (0, 2, 3, 4))
    return Cpu(r.number, cr0, cr2, cr3, cr4, r.efer, r["rip"], r["rsp"])


def own_note(registers: list[Registers], phys_bits: int | None) -> bytes:
    """The contents of a note named KTF."""
    efer = [NO_EFER if r.efer is None else r.efer for r in registers]
    return OWN_HEAD.pack(OWN_VERSION, len(efer), phys_bits or 0) + struct.pack(
        f"<{len(efer)}Q", *efer
    )


def open_core(path: str) -> Core:
    """A core's memory and CPUs; KtfError if it is none."""
    try:
        with open(path, "rb") as f:
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as e:
        raise KtfError(f"{path}: {e}") from e
    try:
        whole = np.frombuffer(data, np.uint8)
        reader = _reader(path, whole, data)
        notes = list(_notes(data))
        efer, phys_bits = _own([n for name, n in notes if name == OWN_NAME])
        qemu = [n for name, n in notes if name == b"QEMU\0" and len(n) >= NOTE.size]
        registers = [from_note(i, n, efer.get(i)) for i, n in enumerate(qemu)]
    except (Corrupt, struct.error) as e:
        raise KtfError(f"{path}: {e}") from e
    if not registers:
        raise KtfError(f"{path} has no notes of QEMU with the CPUs' control registers")
    return Core(reader, registers, phys_bits)


def _own(notes: list[bytes]) -> tuple[dict[int, int], int | None]:
    """EFER of the CPUs, and the size of physical addresses, where the core is one of ours."""
    if not notes:
        return {}, None
    version, count, bits = OWN_HEAD.unpack_from(notes[0])
    if version != OWN_VERSION:
        raise Corrupt(f"its note named KTF has version {version}, not {OWN_VERSION}")
    efer = struct.unpack_from(f"<{count}Q", notes[0], OWN_HEAD.size)
    known = {i: value for i, value in enumerate(efer) if value != NO_EFER}
    return known, bits if 32 <= bits <= 52 else None


def _reader(path: str, whole: np.ndarray, data: mmap.mmap) -> CoreReader:
    """Each physical page once, although several segments may name it."""
    ranges, places, done = [], [], 0
    for s in sorted(elf_segments(data[: _heads(data)]), key=lambda s: (s.pa, -s.filesz)):
        size = min(s.filesz, max(len(whole) - s.offset, 0))
        start = max(-(-s.pa // PAGE) * PAGE, done)
        end = (s.pa + size) // PAGE * PAGE
        if start >= end:
            continue
        ranges.append(RamRange(start, end, "core"))
        at = s.offset + start - s.pa
        part = whole[at : at + end - start]
        places.append(part if at % 8 == 0 else part.copy())
        done = end
    return CoreReader(RamMap(ranges), places, path)


def _heads(data: mmap.mmap) -> int:
    """Where the program headers end."""
    if len(data) < 64:
        return 0
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return min(offset + size * count, len(data))


def _notes(data: mmap.mmap) -> Iterator[tuple[bytes, bytes]]:
    """Name and contents of each note."""
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for i in range(count):
        head = struct.unpack_from("<IIQQQQ", data, offset + i * size)
        if head[0] != 4:  # PT_NOTE
            continue
        at, end = head[2], min(head[2] + head[5], len(data))
        while at + 12 <= end:
            names, descs, _ = struct.unpack_from("<III", data, at)
            desc = at + 12 + (names + 3) // 4 * 4
            yield data[at + 12 : at + 12 + names], data[desc : desc + descs]
            at = desc + (descs + 3) // 4 * 4
