# SPDX-License-Identifier: BSD-2-Clause
# ELF cores of a guest: physical memory by p_paddr, and the CPUs' control registers from QEMU's notes.
"""open_core(path) -> Core: memory, CPUs with all their registers, and what else it tells."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ktf.errors import Corrupt, KtfError
from ktf.memory.readers import PAGE, CoreReader, OpenFile, RamMap, RamRange
from ktf.x86.cpu import Cpu
from ktf.x86.registers import NOTE, Registers, from_note

# Our own note, beside QEMU's: version, CPUs, physical bits (0: unknown); then for each CPU its EFER. From version 2
# on the texts of Ended follow, each behind its length; in version 3 one more, a character for each CPU: 1 in HLT, 0 not.
OWN_NAME, OWN_VERSION = b"KTF\0", 3
OWN_HEAD, OWN_TEXT = struct.Struct("<IIQ"), struct.Struct("<I")
NO_EFER = (1 << 64) - 1

PT_LOAD, PT_NOTE = 1, 4
PN_XNUM = 0xFFFF  # as e_phnum: section header 0 counts them, in its sh_info
SHDR = struct.Struct("<IIQQQQIIQQ")  # of it all is 0 but sh_info, the eighth
HEADS_MOST = 1 << 22  # program headers that are read
NOTES_MOST = 1 << 24  # bytes of notes that are read
PHDR = np.dtype(
    {
        "names": ["kind", "offset", "pa", "filesz"],
        "formats": ["<u4", "<u8", "<u8", "<u8"],
        "offsets": [0, 8, 24, 32],
        "itemsize": 56,
    }
)


@dataclass(frozen=True)
class Ended:
    """What was known of the guest's stop when the core was written, "" each where nobody knew.

    status: QEMU's word for the machine; stop: see Context.stop_kind(); log: see intlog.excerpt().
    """

    status: str = ""
    stop: str = ""
    log: str = ""

    def pack(self) -> bytes:
        """For the note."""
        return b"".join(map(_packed, (self.status, self.stop, self.log)))


def _packed(text: str) -> bytes:
    """Behind its length."""
    data = text.encode()
    return OWN_TEXT.pack(len(data)) + data


@dataclass(frozen=True)
class Core:
    """A core file. cut: what is missing of it, in words; "" if it is whole."""

    reader: CoreReader
    registers: list[Registers]
    phys_bits: int | None = None
    ended: Ended = Ended()
    cut: str = ""

    @property
    def cpus(self) -> list[Cpu]:
        """What decides how the CPUs read page tables."""
        return [cpu_of(r) for r in self.registers]


def cpu_of(r: Registers) -> Cpu:
    """The part of all registers that a Session needs."""
    cr0, cr2, cr3, cr4 = (r[f"cr{i}"] for i in (0, 2, 3, 4))
    return Cpu(r.number, cr0, cr2, cr3, cr4, r.efer, r["rip"], r["rsp"])


def own_note(registers: list[Registers], phys_bits: int | None, ended: Ended = Ended()) -> bytes:
    """The contents of a note named KTF."""
    efer = [NO_EFER if r.efer is None else r.efer for r in registers]
    head = OWN_HEAD.pack(OWN_VERSION, len(efer), phys_bits or 0)
    halted = "".join("?" if r.halted is None else str(int(r.halted)) for r in registers)
    return head + struct.pack(f"<{len(efer)}Q", *efer) + ended.pack() + _packed(halted)


def open_core(path: str) -> Core:
    """A core's memory and CPUs; KtfError if it is none."""
    try:
        file = OpenFile(path)
        reader = _reader(path, file)
        notes, cut = list(_notes(file.descriptor)), _cut(file)
        efer, phys_bits, ended, known = _own([n for name, n in notes if name == OWN_NAME])
        qemu = [n for name, n in notes if name == b"QEMU\0" and len(n) >= NOTE.size]
        halted = {i: c == "1" for i, c in enumerate(known) if c in "01"}
        registers = [
            replace(from_note(i, n, efer.get(i)), halted=halted.get(i)) for i, n in enumerate(qemu)
        ]
    except OSError as e:
        raise KtfError(f"{path}: {e.strerror}") from e
    except (Corrupt, struct.error, OverflowError) as e:
        raise KtfError(f"{path}: {e}") from e
    if not registers:
        raise KtfError(f"{path} has no notes of QEMU with the CPUs' control registers")
    return Core(reader, registers, phys_bits, ended, cut)


def _own(notes: list[bytes]) -> tuple[dict[int, int], int | None, Ended, str]:
    """EFER of the CPUs, the size of physical addresses, the stop, which CPUs halt, where the core is one of ours."""
    if not notes:
        return {}, None, Ended(), ""
    version, count, bits = OWN_HEAD.unpack_from(notes[0])
    if not 1 <= version <= OWN_VERSION:
        raise Corrupt(f"its note named KTF has version {version}, we know 1 to {OWN_VERSION}")
    efer = struct.unpack_from(f"<{count}Q", notes[0], OWN_HEAD.size)
    known = {i: value for i, value in enumerate(efer) if value != NO_EFER}
    number = {1: 0, 2: 3}.get(version, 4)
    texts = _texts(notes[0], OWN_HEAD.size + 8 * count, number) + [""] * (4 - number)
    return known, bits if 32 <= bits <= 52 else None, Ended(*texts[:3]), texts[3]


def _texts(note: bytes, at: int, count: int) -> list[str]:
    """So many texts, from there on."""
    texts = []
    for _ in range(count):
        if at + OWN_TEXT.size > len(note):
            raise Corrupt("its note named KTF ends before a text")
        (size,) = OWN_TEXT.unpack_from(note, at)
        at += OWN_TEXT.size + size
        if at > len(note):
            raise Corrupt("its note named KTF ends in a text")
        texts.append(note[at - size : at].decode("utf-8", "replace"))
    return texts


def _cut(file: OpenFile) -> str:
    """How much of the file is missing, by what its headers say."""
    rows = np.frombuffer(_heads(file.descriptor), PHDR)
    rows = rows[(rows["kind"] == PT_LOAD) & (rows["filesz"] > 0)]
    length = os.fstat(file.descriptor).st_size
    whole = max(map(sum, zip(rows["offset"].tolist(), rows["filesz"].tolist())), default=0)
    if length >= whole:
        return ""
    return f"the core file is cut: {length:,} of {whole:,} bytes are there"


def _reader(path: str, file: OpenFile) -> CoreReader:
    """Each physical page once, although several segments may name it."""
    heads = _heads(file.descriptor)
    rows = np.frombuffer(heads, PHDR)
    rows = rows[(rows["kind"] == PT_LOAD) & (rows["filesz"] > 0)]
    length = os.fstat(file.descriptor).st_size
    ranges: list[RamRange] = []
    places: list[tuple[int, int]] = []
    done = 0
    # The largest of those that start together comes first: what it covers is not looked at again.
    for i in np.lexsort((~rows["filesz"], rows["pa"])).tolist():
        _, offset, pa, filesz = rows[i].tolist()
        size = min(filesz, max(length - offset, 0))
        start, end = max(-(-pa // PAGE) * PAGE, done), (pa + size) // PAGE * PAGE
        if start >= end:
            continue
        ranges.append(RamRange(start, end, "core"))
        places.append((file.descriptor, offset + start - pa))
        done = end
    return CoreReader(RamMap(ranges), places, path, files=[file])


def _heads(descriptor: int) -> bytes:
    """The program headers; Corrupt if it is no ELF64 file."""
    head = os.pread(descriptor, 64, 0)
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        raise Corrupt("not an ELF64 file")
    offset, sections = struct.unpack_from("<QQ", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    if count and size != PHDR.itemsize:
        raise Corrupt(f"its program headers have {size} bytes, not {PHDR.itemsize}")
    length = os.fstat(descriptor).st_size
    if count == PN_XNUM:
        count = _counted(descriptor, sections, length)
    if size * count > length - offset:
        raise Corrupt(f"the ELF file's {count:,} program headers lie outside of it")
    heads = os.pread(descriptor, size * count, offset)
    if len(heads) != size * count:
        raise Corrupt(f"only {len(heads):,} bytes of its program headers can be read")
    return heads


def _counted(descriptor: int, sections: int, length: int) -> int:
    """How many program headers there are, by section header 0, where e_phnum is too small for it."""
    if not sections:
        raise Corrupt("its program headers are counted by section header 0, which it does not have")
    if SHDR.size > length - sections:
        raise Corrupt("section header 0, which counts its program headers, lies outside of it")
    count = int(SHDR.unpack(os.pread(descriptor, SHDR.size, sections))[7])
    if not PN_XNUM <= count <= HEADS_MOST:
        raise Corrupt(
            f"section header 0 counts {count:,} program headers: "
            f"it should be {PN_XNUM:,} to {HEADS_MOST:,}"
        )
    return count


def _notes(descriptor: int) -> Iterator[tuple[bytes, bytes]]:
    """Name and contents of each note."""
    rows = np.frombuffer(_heads(descriptor), PHDR)
    for row in rows[rows["kind"] == PT_NOTE]:
        data = os.pread(descriptor, min(int(row["filesz"]), NOTES_MOST), int(row["offset"]))
        at = 0
        while at + 12 <= len(data):
            names, descs, _ = struct.unpack_from("<III", data, at)
            desc = at + 12 + (names + 3) // 4 * 4
            yield data[at + 12 : at + 12 + names], data[desc : desc + descs]
            at = desc + (descs + 3) // 4 * 4
