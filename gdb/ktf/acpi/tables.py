# SPDX-License-Identifier: BSD-2-Clause
# The ACPI tables of a stopped guest, from the root pointer on; nothing of them is trusted, nothing but RAM is read.
"""read_root(reader, pa) -> Root, and Tables(reader, root): all tables that hang on it; pure.

Offsets and sizes are those of the ACPI specification, chapter 5.2: a guest has tables with and without our symbols.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from ktf.errors import Corrupt, Unreadable
from ktf.memory.readers import Reader

RSDP_SIGNATURE = b"RSD PTR "
RSDP_OLD, RSDP_NEW = 20, 36  # bytes of a root pointer of revision 0, and of 2
HEADER = struct.Struct("<4sIBB6s8sI4sI")
FACS_LENGTH = 64
NO_CHECKSUM = ("FACS",)
OTHER_HEAD = ("FACS", "RSDP")  # those that don't begin with HEADER

TABLE_MAX = 16 << 20  # bytes: no table is longer
TOTAL_MAX = 64 << 20  # bytes that are read of all of them
ENTRIES_MAX = 1024  # of a root table that are followed

# Where the FADT names others: their signature, offset of the 32-bit and of the 64-bit address.
FADT_LINKS = (("FACS", 36, 132), ("DSDT", 40, 140))


def checksum(data: bytes) -> int:
    """The sum of all bytes, modulo 256; 0 is good."""
    return int(np.frombuffer(data, np.uint8).sum(dtype=np.uint64)) & 0xFF


def printable(data: bytes) -> str:
    """Bytes as text, unprintable ones as '.'; without blanks and zeros at the end."""
    text = data.rstrip(b"\0 ")
    return "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in text)


def number(data: bytes, offset: int, size: int) -> int:
    """A little-endian number, 0 where the data ends before."""
    part = data[offset : offset + size]
    return int.from_bytes(part, "little") if len(part) == size else 0


@dataclass(frozen=True)
class Root:
    """A root pointer (RSDP): where it is, how it was found, and its bytes."""

    pa: int
    data: bytes
    where: str = ""
    problem: str = ""

    @property
    def revision(self) -> int:
        """0 for ACPI 1.0, else 2."""
        return self.data[15]

    @property
    def oem(self) -> str:
        """Who made the firmware."""
        return printable(self.data[9:15])

    @property
    def rsdt(self) -> int:
        """Physical address of the table of 32-bit addresses."""
        return number(self.data, 16, 4)

    @property
    def xsdt(self) -> int:
        """Of the one of 64-bit addresses; 0 if there is none."""
        return number(self.data, 24, 8) if self.revision >= 2 else 0


def read_root(reader: Reader, pa: int, where: str = "") -> Root:
    """The root pointer there. Unreadable or Corrupt if there is none; a wrong checksum is its problem."""
    data = reader.read(pa, RSDP_OLD)
    if not data.startswith(RSDP_SIGNATURE):
        raise Corrupt(f"no RSDP at {pa:#x}: it begins with {data[:8].hex(' ')}")
    if checksum(data):
        return Root(pa, data, where, f"checksum wrong: the sum is {checksum(data):#x}")
    if data[15] < 2:
        return Root(pa, data, where)
    try:
        data = reader.read(pa, RSDP_NEW)
        length = number(data, 20, 4)
        if not RSDP_NEW <= length <= 4096:
            return Root(pa, data, where, f"length {length}, should be {RSDP_NEW}")
        data = reader.read(pa, length)
    except Unreadable as e:
        return Root(pa, data, where, f"cut: {e}")
    bad = checksum(data)
    return Root(pa, data, where, f"extended checksum wrong: the sum is {bad:#x}" if bad else "")


@dataclass
class Table:
    """A table. data: all its bytes, or its head alone where its length can't be right. ordinal: 0 if it is the only
    one with its signature, else 1, 2, ..."""

    signature: str
    pa: int
    length: int
    data: bytes
    via: str
    problem: str = ""
    ordinal: int = 0
    sum_wrong: bool = False
    whole: bool = False  # data is all of it

    @property
    def name(self) -> str:
        """FACP, SSDT:2."""
        return f"{self.signature}:{self.ordinal}" if self.ordinal else self.signature

    @property
    def named(self) -> bool:
        """Whether it begins with a signature."""
        return all(0x20 < b < 0x7F for b in self.data[:4])

    @property
    def checksum(self) -> str:
        """good, wrong, none (it has no checksum), ? (not all of it can be read)."""
        if not self.whole:
            return "?"
        if self.signature in NO_CHECKSUM:
            return "none"
        return "wrong" if self.sum_wrong else "good"

    @property
    def fields(self) -> tuple[int, str, str, int, str, int] | None:
        """Revision, OEM, OEM's table, its revision, creator, its revision; None where the head is another or is cut."""
        if self.signature in OTHER_HEAD or len(self.data) < HEADER.size:
            return None
        _, _, revision, _, oem, table, oem_revision, creator, creator_revision = HEADER.unpack_from(
            self.data
        )
        return (
            revision,
            printable(oem),
            printable(table),
            oem_revision,
            printable(creator),
            creator_revision,
        )

    @property
    def revision(self) -> int | None:
        """None where the head can't be read."""
        place = {"FACS": 32, "RSDP": 15}.get(self.signature)
        if place is not None:
            return self.data[place] if len(self.data) > place else None
        return self.fields[0] if self.fields else None


class Tables:
    """All tables that a root pointer leads to. problems: a line each, with the place."""

    def __init__(self, reader: Reader, root: Root | None) -> None:
        self.reader = reader
        self.root = root
        self.tables: list[Table] = []
        self.problems: list[str] = []
        self._read = 0
        self._seen: dict[int, str] = {}
        if root is not None:
            if root.problem:
                self.problems.append(f"RSDP at {root.pa:#x}: {root.problem}")
            self._follow_root(root)
            self._number()

    # --- one table ---------------------------------------------------------------------------------

    def load(self, pa: int, via: str, expected: str = "") -> Table:
        """The table at pa, as far as it can be read; what is wrong with it is its problem."""
        try:
            head = self.reader.read(pa, 8)
        except Unreadable as e:
            return Table(expected or "?", pa, 0, b"", via, str(e))
        signature, length = printable(head[:4]), number(head, 4, 4)
        table = Table(signature or "?", pa, length, head, via)
        table.problem = self._fill(table)
        if not table.named:
            table.problem = f"it begins with {head[:4].hex(' ')}, which is no signature"
        elif expected and signature != expected:
            table.problem = f"{signature} stands there, not {expected}"
        return table

    def _fill(self, table: Table) -> str:
        """Reads it; says what is wrong."""
        least = FACS_LENGTH if table.signature == "FACS" else HEADER.size
        size = table.length
        why = ""
        if not least <= size <= TABLE_MAX:
            why = f"its length is {size}: tables have {least} to {TABLE_MAX} bytes"
            size = least
        elif self._read + size > TOTAL_MAX:
            why = f"not read: the tables before it have {self._read} bytes together"
            size = least
        try:
            data = self.reader.read(table.pa, size)
        except Unreadable as e:
            why = why or f"its length is {size}: {e}"
            table.data = self._some(table.pa, least) or table.data
            return why
        table.data = data
        self._read += size
        if why:
            return why
        table.whole = True
        if table.signature not in NO_CHECKSUM and checksum(data):
            table.sum_wrong = True
            return f"checksum wrong: the sum is {checksum(data):#x}"
        return ""

    def _some(self, pa: int, size: int) -> bytes:
        """The head alone, b"" if that can't be read either."""
        try:
            return self.reader.read(pa, size)
        except Unreadable:
            return b""

    # --- all of them -------------------------------------------------------------------------------

    def _add(self, pa: int, via: str, expected: str = "") -> Table | None:
        """Loads a table that is not there yet."""
        if pa in self._seen:
            self.problems.append(f"{via} leads to {pa:#x}, as {self._seen[pa]} does")
            return None
        self._seen[pa] = via
        table = self.load(pa, via, expected)
        if table.problem:
            self.problems.append(f"{table.signature} at {pa:#x} ({via}): {table.problem}")
        if table.data:
            self.tables.append(table)
        return table

    def _follow_root(self, root: Root) -> None:
        """The XSDT, else the RSDT."""
        xsdt = self._add(root.xsdt, "the RSDP", "XSDT") if root.xsdt else None
        rsdt = self._add(root.rsdt, "the RSDP", "RSDT") if root.rsdt else None
        for table, width in ((xsdt, 8), (rsdt, 4)):
            if table is not None and table.whole and table.signature in ("XSDT", "RSDT"):
                self._follow(table, width)
                return
        if not root.xsdt and not root.rsdt:
            self.problems.append(f"RSDP at {root.pa:#x}: it names neither RSDT nor XSDT")

    def _follow(self, table: Table, width: int) -> None:
        """The tables that a root table names."""
        body = table.data[HEADER.size :]
        count = len(body) // width
        if len(body) % width:
            rest = len(body) % width
            self.problems.append(f"{table.name} at {table.pa:#x}: {rest} bytes behind its entries")
        if count > ENTRIES_MAX:
            text = f"{count} entries, only {ENTRIES_MAX} are followed"
            self.problems.append(f"{table.name} at {table.pa:#x}: {text}")
        fadt = None
        for i in range(min(count, ENTRIES_MAX)):
            pa, via = number(body, i * width, width), f"{table.name} entry {i}"
            if not pa:
                self.problems.append(f"{via} is 0")
                continue
            found = self._add(pa, via)
            if found is not None and found.signature == "FACP" and found.whole and fadt is None:
                fadt = found
                self._follow_fadt(found)
        if fadt is None:
            self.problems.append(f"{table.name} at {table.pa:#x}: no FACP, so no DSDT")

    def _follow_fadt(self, fadt: Table) -> None:
        """The tables that only the FADT (signature FACP) names."""
        for signature, old, new in FADT_LINKS:
            low, high = number(fadt.data, old, 4), number(fadt.data, new, 8)
            if low and high and low != high:
                text = f"it has two addresses of the {signature}, {low:#x} and {high:#x}"
                self.problems.append(f"FACP at {fadt.pa:#x}: {text}")
            if low or high:
                self._add(high or low, "FACP", signature)
            elif signature == "DSDT":
                self.problems.append(f"FACP at {fadt.pa:#x}: it names no DSDT")

    def _number(self) -> None:
        """Tables of one signature are counted from 1, in their order."""
        names = [t.signature for t in self.tables]
        for i, table in enumerate(self.tables):
            if names.count(table.signature) > 1:
                table.ordinal = names[: i + 1].count(table.signature)

    def name_at(self, pa: int) -> str:
        """The name of the table that begins there, "" if none does."""
        return next((t.name for t in self.tables if t.pa == pa), "")

    def at(self, pa: int) -> Table | None:
        """The table that holds that address."""
        return next((t for t in self.tables if t.pa <= pa < t.pa + max(len(t.data), 1)), None)
