# SPDX-License-Identifier: BSD-2-Clause
# Writes a core that plain GDB opens: memory once, a segment for each mapped range, the CPUs in notes.
"""write_core(session, path, ended) -> Written; pure.

The file: ELF header, program headers, notes, then each range of physical memory, sparse where it is zero. A PT_LOAD for
each of these ranges comes first, of which p_paddr is what counts: its p_vaddr lies where no address is canonical, so
that GDB takes no physical address for a virtual one, and shows memory at PHYSICAL + pa. Then one for each stretch of
mapped addresses, onto the same bytes of the file: of the kernel's space, and of the lower half of the one in the
selected CPU's CR3.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ktf.cores.read import HEADS_MOST, OWN_NAME, PN_XNUM, SHDR, Ended, own_note
from ktf.errors import KtfError
from ktf.kernel.session import Session
from ktf.kernel.spaces import Space
from ktf.memory.readers import PAGE, RamRange, Reader
from ktf.x86.paging import Leaves, W, X
from ktf.x86.registers import Registers

PHYSICAL = 1 << 56  # physical address 0 is shown there
CHUNK = 1024  # pages that are looked at together
EHDR, PHDR = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
ET_CORE, EM_X86_64, PT_LOAD, PT_NOTE = 4, 62, 1, 4
NT_PRSTATUS = 1
PF_X, PF_W, PF_R = 1, 2, 4


@dataclass(frozen=True)
class Written:
    """A core as it was written."""

    path: str
    memory: int  # bytes of physical memory
    stored: int  # bytes of them that are not zero pages
    cpus: int
    ranges: int  # of mapped addresses


@dataclass
class Stretches:
    """Mapped addresses that are contiguous, virtually and in the file."""

    va: np.ndarray
    pa: np.ndarray
    size: np.ndarray
    flags: np.ndarray

    def __len__(self) -> int:
        return len(self.va)


# --- what is mapped ----------------------------------------------------------------------------------


def stretches(session: Session) -> Stretches:
    """The kernel's space, and the lower half of the selected CPU's: what of it is RAM, merged, by address."""
    parts = [_pieces(leaves, session.reader.ram.ranges) for leaves in _leaves(session)]
    va, pa, size, flags = (np.concatenate(c) for c in zip(*parts))
    order = np.argsort(va, kind="stable")
    va, pa, size, flags = va[order], pa[order], size[order], flags[order]
    if not len(va):
        return Stretches(va, pa, size, flags)
    new = (va[1:] - va[:-1] != size[:-1]) | (pa[1:] - pa[:-1] != size[:-1])
    start = np.concatenate([[0], np.flatnonzero(new | (flags[1:] != flags[:-1])) + 1])
    last = np.append(start[1:], len(va)) - 1
    total = va[last] - va[start] + size[last]
    return Stretches(va[start], pa[start], total, flags[start])


def _leaves(session: Session) -> list[Leaves]:
    """Without page tables there are none."""
    if session.cpu.paging_problem():
        return []
    kernel = session.spaces().spaces[0]
    if kernel.root == session.cpu.root or kernel.index is None:
        return [session.walk(session.cr3_space()).leaves]
    half = 1 << (session.rules.va_bits - 1)
    own = session.walk(Space("cr3", session.cpu.root, session.cpu.levels), 0, half).leaves
    return [session.walk(kernel, half).leaves, own]


def _pieces(leaves: Leaves, ranges: list[RamRange]) -> tuple[np.ndarray, ...]:
    """va, pa, size and flags of the parts of leaves that lie in RAM."""
    found = [(np.zeros(0, np.uint64),) * 3 + (np.zeros(0, np.uint32),)]
    first, last = leaves.pa, leaves.pa + leaves.size
    flags = np.full(len(leaves), PF_R, np.uint32)
    flags[(leaves.perm & W) != 0] |= PF_W
    flags[(leaves.perm & X) != 0] |= PF_X
    for r in ranges:
        low, high = np.maximum(first, np.uint64(r.start)), np.minimum(last, np.uint64(r.end))
        some = low < high
        va = leaves.va[some] + (low - first)[some]
        found.append((va, low[some], (high - low)[some], flags[some]))
    return tuple(np.concatenate(c) for c in zip(*found))


# --- the file ----------------------------------------------------------------------------------------


def write_core(session: Session, path: str, ended: Ended = Ended()) -> Written:
    """Writes it, for this user alone. KtfError, and no new file, if anything fails.

    A file that is a core already is replaced, when the new one is whole; anything else is kept.
    """
    target = os.path.realpath(os.path.expanduser(path))
    _refuse(path, target)
    registers = session.registers
    mapped = stretches(session) if not session.cpu.paging_problem() else None
    head, places = _head(session, registers, mapped, ended)
    try:
        handle, part = tempfile.mkstemp(prefix=".ktf-core-", dir=os.path.dirname(target))
    except OSError as e:
        raise KtfError(f"{path}: {e.strerror}") from e
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            _pwrite(file.fileno(), head, 0)
            ranges = session.reader.ram.ranges
            stored = sum(
                _copy(session.reader, r, file.fileno(), at) for r, at in zip(ranges, places)
            )
            file.truncate(places[-1] + ranges[-1].end - ranges[-1].start)
        os.replace(part, target)
    except OSError as e:
        raise KtfError(f"{path}: {os.strerror(e.errno or errno.EIO)}; nothing is left of it") from e
    finally:
        with suppress(FileNotFoundError):  # it has its name now
            os.unlink(part)
    count = 0 if mapped is None else len(mapped)
    memory = session.reader.ram.bytes()
    return Written(target, memory, stored, len(registers), count)


def _refuse(path: str, target: str) -> None:
    """KtfError for what would be lost, or can't be written."""
    try:
        with open(target, "rb") as f:
            head = f.read(18)
    except FileNotFoundError:
        return
    except OSError as e:
        raise KtfError(f"{path}: {e.strerror}") from e
    if not os.path.isfile(target):
        raise KtfError(f"{path} is no regular file; give another name")
    core = head[:4] == b"\x7fELF" and head[16:18] == struct.pack("<H", ET_CORE)
    if head and not core:
        raise KtfError(f"{path} exists and is no core: it is kept; give another name")


def _head(
    session: Session, registers: list[Registers], mapped: Stretches | None, ended: Ended
) -> tuple[bytes, list[int]]:
    """Headers and notes, and where each range of memory comes to stand."""
    ranges = session.reader.ram.ranges
    count = 1 + len(ranges) + (0 if mapped is None else len(mapped))
    if count > HEADS_MOST:
        raise KtfError(f"{count:,} program headers would be needed; {HEADS_MOST:,} are read")
    notes = _notes(registers, session.phys_bits, ended)
    sections = EHDR.size + count * PHDR.size
    counted = _section(count)
    at = sections + len(counted)
    body = -(-(at + len(notes)) // PAGE) * PAGE
    places = []
    for r in ranges:
        places.append(body)
        body += r.end - r.start
    ident = b"\x7fELF\x02\x01\x01"
    numbers = (SHDR.size, 1, 0) if counted else (0, 0, 0)
    elf = (EHDR.size, sections if counted else 0, 0, EHDR.size, PHDR.size, min(count, PN_XNUM))
    head = [EHDR.pack(ident, ET_CORE, EM_X86_64, 1, 0, *elf, *numbers)]
    head.append(PHDR.pack(PT_NOTE, 0, at, 0, 0, len(notes), len(notes), 4))
    # Without paging the CPU's addresses are physical ones.
    shift = 0 if mapped is None and not session.cpu.cr0 >> 31 else PHYSICAL
    for r, place in zip(ranges, places):
        size = r.end - r.start
        head.append(PHDR.pack(PT_LOAD, PF_R, place, r.start + shift, r.start, size, size, PAGE))
    if mapped is not None:
        head.append(_segments(mapped, ranges, places))
    return b"".join([*head, counted, notes]), places


def _section(count: int) -> bytes:
    """Section header 0 that counts the program headers, where e_phnum has no room for it."""
    return SHDR.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0) if count >= PN_XNUM else b""


def _segments(mapped: Stretches, ranges: list[RamRange], places: list[int]) -> bytes:
    """A program header for each stretch."""
    starts = np.array([r.start for r in ranges], np.uint64)
    shift = np.array(places, np.uint64) - starts
    rows = np.zeros(len(mapped), np.dtype("<u4,<u4,<u8,<u8,<u8,<u8,<u8,<u8"))
    pa, size = mapped.pa, mapped.size
    offset = pa + shift[np.searchsorted(starts, pa, side="right") - 1]
    columns = (PT_LOAD, mapped.flags, offset, mapped.va, pa, size, size, PAGE)
    for name, column in zip(rows.dtype.names or (), columns):
        rows[name] = column
    return rows.tobytes()


def _notes(registers: list[Registers], phys_bits: int | None, ended: Ended) -> bytes:
    notes = [_note(b"CORE\0", NT_PRSTATUS, r.status()) for r in registers]
    notes += [_note(b"QEMU\0", 0, r.note()) for r in registers]
    return b"".join([*notes, _note(OWN_NAME, 1, own_note(registers, phys_bits, ended))])


def _note(name: bytes, kind: int, data: bytes) -> bytes:
    parts = (name, data)
    padded = [part + bytes(-len(part) % 4) for part in parts]
    return struct.pack("<III", len(name), len(data), kind) + b"".join(padded)


def _copy(reader: Reader, ram: RamRange, fd: int, at: int) -> int:
    """Writes what is not zero of one range; how many bytes that were."""
    first, end, stored = ram.start // PAGE, ram.end // PAGE, 0
    for mfn in range(first, end, CHUNK):
        count = min(CHUNK, end - mfn)
        pages, ok = reader.read_pages(np.arange(mfn, mfn + count, dtype=np.uint64))
        if not ok.all():
            bad = mfn + int(np.flatnonzero(~ok)[0])
            raise KtfError(f"physical address {bad * PAGE:#x} ({ram.name}) can't be read")
        used = np.flatnonzero(np.bitwise_or.reduce(pages, axis=1))
        if not len(used):
            continue
        cuts = np.flatnonzero(np.diff(used) != 1) + 1
        for run in np.split(used, cuts):
            low, high = int(run[0]), int(run[-1]) + 1
            _pwrite(fd, pages[low:high].tobytes(), at + (mfn - first + low) * PAGE)
            stored += (high - low) * PAGE
    return stored


def _pwrite(fd: int, data: bytes, at: int) -> None:
    """All of it."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, at)
        view, at = view[done:], at + done
