# SPDX-License-Identifier: BSD-2-Clause
# ELF cores of a guest: physical memory by p_paddr, and the CPUs' control registers from QEMU's notes.
"""open_core(path) -> (Reader, [Cpu])."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

import numpy as np

from .errors import Corrupt, KtfError
from .kernel import elf_segments
from .readers import PAGE, CoreReader, RamMap, RamRange
from .session import Cpu

NOTE_BYTES = 440  # of QEMU's note of one CPU (target/i386/arch_dump.c)
AT_RSP, AT_RIP, AT_CR = 8 + 7 * 8, 8 + 16 * 8, 8 + 18 * 8 + 10 * 24


def open_core(path: str) -> tuple[CoreReader, list[Cpu]]:
    """A core's memory and CPUs; KtfError if it is none."""
    try:
        with open(path, "rb") as f:
            data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as e:
        raise KtfError(f"{path}: {e}") from e
    try:
        whole = np.frombuffer(data, np.uint8)
        reader = _reader(path, whole, data)
        cpus = [_cpu(i, n) for i, n in enumerate(_notes(data))]
    except (Corrupt, struct.error) as e:
        raise KtfError(f"{path}: {e}") from e
    if not cpus:
        raise KtfError(f"{path} has no notes of QEMU with the CPUs' control registers")
    return reader, cpus


def _reader(path: str, whole: np.ndarray, data: mmap.mmap) -> CoreReader:
    """Each physical page once, although several segments may name it."""
    ranges, places, done = [], [], 0
    for s in sorted(elf_segments(data[: 1 << 20]), key=lambda s: (s.pa, -s.filesz)):
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


def _notes(data: mmap.mmap) -> Iterator[bytes]:
    """The contents of each note named QEMU."""
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
            if data[at + 12 : at + 12 + names] == b"QEMU\0" and descs >= NOTE_BYTES:
                yield data[desc : desc + descs]
            at = desc + (descs + 3) // 4 * 4


def _cpu(number: int, note: bytes) -> Cpu:
    (rsp,) = struct.unpack_from("<Q", note, AT_RSP)
    (rip,) = struct.unpack_from("<Q", note, AT_RIP)
    cr0, _, cr2, cr3, cr4 = struct.unpack_from("<5Q", note, AT_CR)
    return Cpu(number, cr0, cr2, cr3, cr4, None, rip, rsp)
