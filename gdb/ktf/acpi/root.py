# SPDX-License-Identifier: BSD-2-Clause
# Where a stopped guest has its ACPI root pointer: by our kernel's variable, in the BIOS's memory, or searched for.
"""find_root(session) -> (Root, notes); pure.

The ways, in this order: boot_info.rsdp of our kernel; the first KiB of the EBDA, and 0xe0000 to 0xfffff, where a BIOS
leaves it; the configuration table of EFI, which names it beside a GUID; and where memory has a root pointer that looks
right. The last two are looked for from 4 GiB downwards, as that is where firmware has its tables.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ktf.acpi.tables import RSDP_SIGNATURE, Root, Tables, number, read_root
from ktf.errors import KtfError, Unreadable
from ktf.kernel.kernel import Kernel, VirtualMemory
from ktf.kernel.session import Session
from ktf.memory.readers import PAGE, Reader

BIOS = (0xE0000, 0x100000)
EBDA_POINTER, EBDA_SIZE = 0x40E, 1024  # its segment stands there
GIB4 = 1 << 32
CHUNK = 256  # pages that are looked at together
SEARCH_MAX = 256 << 20  # bytes that are searched
CANDIDATES_MAX = 16
NOTES_MAX = 4
RSDP_WORD = int.from_bytes(RSDP_SIGNATURE, "little")
# EFI's GUID of ACPI 2.0, as two words; the address follows it.
GUID = (0x11D3E4F18868E871, 0x81883CC7800022BC)


def find_root(session: Session) -> tuple[Root, list[str]]:
    """The root pointer, and lines on what was tried before; KtfError that says where it was looked for."""
    notes: list[str] = []
    reader = session.reader
    pa = _by_symbol(session, notes)
    candidates = [(pa, "boot_info.rsdp")] if pa else []
    for at, where in [*candidates, *_low(reader)]:
        try:
            root = read_root(reader, at, where)
        except KtfError as e:
            notes.append(f"{where}: {e}")
            continue
        if not root.problem:
            return root, notes[:NOTES_MAX]
        notes.append(f"RSDP at {at:#x} ({where}): {root.problem}: left aside")
    if len(notes) > NOTES_MAX:
        notes[NOTES_MAX:] = [f"and {len(notes) - NOTES_MAX} more that are none"]
    found = _search(reader)
    if found is not None:
        return found, notes
    tried = f"; {'; '.join(notes)}" if notes else ""
    raise KtfError(
        f"no RSDP with a good checksum: not in the EBDA, not in {BIOS[0]:#x} to {BIOS[1] - 1:#x}, and not in the "
        f"{SEARCH_MAX >> 20} MiB of memory below 4 GiB{tried} (has the firmware run? --rsdp ADDRESS names one)"
    )


def _by_symbol(session: Session, notes: list[str]) -> int:
    """What the boot loader passed to our kernel; 0 if that is not known."""
    if session.types is None or session.types.symbol("boot_info") is None:
        return 0
    memory = VirtualMemory(session.reader, session.cpu.root, session.rules)
    kernel = session.kernel or Kernel(session.types, session.image, memory)
    try:
        pa = int(kernel.variable("boot_info", "struct boot_info")["rsdp"].value("v", 0))
    except KtfError as e:
        notes.append(f"boot_info.rsdp: {e}")
        return 0
    if not pa:
        notes.append("boot_info.rsdp is 0: the boot loader told none, or has not run")
    return pa


def _pages(reader: Reader, first: int, count: int) -> np.ndarray:
    """Words of these pages, zeros where there is no RAM."""
    return reader.read_pages(np.arange(first, first + count, dtype=np.uint64))[0].reshape(-1)


def _signatures(words: np.ndarray, base: int) -> list[int]:
    """Addresses of "RSD PTR " on a border of 16 bytes."""
    return [base + 16 * int(i) for i in np.flatnonzero(words[::2] == np.uint64(RSDP_WORD))]


def _anywhere(words: np.ndarray, base: int) -> list[int]:
    """The same on a border of 4 bytes: EFI leaves it anywhere."""
    halves = words.view(np.uint32)
    low, high = np.uint32(RSDP_WORD & 0xFFFFFFFF), np.uint32(RSDP_WORD >> 32)
    at = np.flatnonzero(halves == low)
    after = np.append(halves, high)[
        at + 1
    ]  # what follows the last one is not here: the reader judges
    return [base + 4 * int(i) for i in at[after == high]]


def _low(reader: Reader) -> Iterator[tuple[int, str]]:
    """Where a BIOS leaves it: address and what place that is."""
    try:
        ebda = number(reader.read(EBDA_POINTER, 2), 0, 2) << 4
    except Unreadable:
        ebda = 0
    if 0x400 <= ebda < 0xA0000:
        base = ebda // PAGE * PAGE
        for pa in _signatures(_pages(reader, ebda // PAGE, 2), base):
            if ebda <= pa < ebda + EBDA_SIZE:
                yield pa, "the EBDA"
    words = _pages(reader, BIOS[0] // PAGE, (BIOS[1] - BIOS[0]) // PAGE)
    for pa in _signatures(words, BIOS[0]):
        yield pa, "the BIOS's memory"


def _chunks(reader: Reader) -> Iterator[tuple[int, np.ndarray]]:
    """Address and words of stretches of RAM below 4 GiB, the highest first, SEARCH_MAX bytes at most."""
    left = SEARCH_MAX // PAGE
    for ram in sorted(reader.ram.ranges, key=lambda r: -r.start):
        first, last = ram.start // PAGE, min(ram.end, GIB4) // PAGE
        while last > first and left > 0:
            count = min(CHUNK, last - first, left)
            last, left = last - count, left - count
            yield last * PAGE, _pages(reader, last, count)


def _search(reader: Reader) -> Root | None:
    """By EFI's configuration table, else the root pointer that leads to a good table."""
    good: list[Root] = []
    for base, words in _chunks(reader):
        root = _by_efi(reader, base, words)
        if root is not None:
            return root
        for pa in _anywhere(words, base):
            root = _sound(reader, pa, "memory, searched")
            if root is not None and len(good) < CANDIDATES_MAX:
                good.append(root)
    leads = [root for root in good if _leads(reader, root)]
    return next(iter(leads or good), None)


def _by_efi(reader: Reader, base: int, words: np.ndarray) -> Root | None:
    """What stands beside the GUID, if that begins in these words."""
    for i in np.flatnonzero(words == np.uint64(GUID[0])).tolist():
        at = base + 8 * i
        if _word(reader, at + 8) == GUID[1]:
            root = _sound(reader, _word(reader, at + 16), "EFI's configuration table")
            if root is not None:
                return root
    return None


def _word(reader: Reader, pa: int) -> int:
    try:
        return number(reader.read(pa, 8), 0, 8)
    except Unreadable:
        return 0


def _sound(reader: Reader, pa: int, where: str) -> Root | None:
    """The root pointer there, if there is one without a fault."""
    try:
        root = read_root(reader, pa, where)
    except KtfError:
        return None
    return None if root.problem else root


def _leads(reader: Reader, root: Root) -> bool:
    """Whether a good root table hangs on it: what firmware left of an older copy has none."""
    tables = Tables(reader, None)
    found = tables.load(root.xsdt or root.rsdt, "the RSDP", "XSDT" if root.xsdt else "RSDT")
    return not found.problem
