# SPDX-License-Identifier: BSD-2-Clause
# Where the guest's physical memory is read: one class for each way, all with the same two calls.
"""Readers of physical memory.

    reader.read(pa, n) -> bytes                       Unreadable where it is no memory
    reader.read_pages(mfns) -> (u64[n, 512], ok[n])   never raises; zeros where not ok

Nothing outside the RAM ranges is ever asked for: on a live guest that could be a device register,
and reading it would change the guest. Arrays that come back must not be written to.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import Callable, Iterable, Sequence

import numpy as np

from .errors import KtfError, Unreadable

PAGE = 4096
WORDS = 512


@dataclass(frozen=True)
class RamRange:
    """Physical memory [start, end), whole pages, read without side effects."""

    start: int
    end: int
    name: str = ""


class RamMap:
    """The ranges of physical memory, sorted; looks up many frame numbers at once."""

    def __init__(self, ranges: Iterable[RamRange]) -> None:
        whole = []
        for r in ranges:
            start, end = -(-r.start // PAGE) * PAGE, r.end // PAGE * PAGE
            if start < end:
                whole.append(RamRange(start, end, r.name))
        self.ranges = sorted(whole, key=lambda r: r.start)
        self.first = np.array([r.start // PAGE for r in self.ranges], np.uint64)
        self.last = np.array([r.end // PAGE for r in self.ranges], np.uint64)

    def find(self, mfns: np.ndarray) -> np.ndarray:
        """Number of the range that holds each page, -1 where none does."""
        mfns = np.asarray(mfns, np.uint64)
        if not self.ranges:
            return np.full(len(mfns), -1, np.int64)
        at = np.searchsorted(self.first, mfns, side="right").astype(np.int64) - 1
        inside = (at >= 0) & (mfns < self.last[np.maximum(at, 0)])
        return np.where(inside, at, -1)

    def holds(self, mfns: np.ndarray) -> np.ndarray:
        """True for each page that is memory."""
        return self.find(mfns) >= 0

    def bytes(self) -> int:
        """Size of all ranges together."""
        return sum(r.end - r.start for r in self.ranges)


class Reader(ABC):
    """Physical memory of a stopped guest. name and detail are what `ktf-maps -v` shows."""

    name = "?"

    def __init__(self, ram: RamMap, detail: str = "") -> None:
        self.ram = ram
        self.detail = detail

    @abstractmethod
    def _read(self, index: int, offset: int, size: int) -> bytes:
        """size bytes from offset on of range number index; Unreadable if that fails."""

    def begin(self) -> None:
        """The guest may have run since the last call: forget what was kept of its memory."""

    def read(self, pa: int, size: int) -> bytes:
        """size bytes at physical address pa. Unreadable, naming the place, if any is no memory."""
        parts = []
        while size > 0:
            index = self._range_of(pa)
            ram = self.ram.ranges[index]
            part = min(size, ram.end - pa)
            parts.append(self._read(index, pa - ram.start, part))
            pa, size = pa + part, size - part
        return b"".join(parts)

    def _range_of(self, pa: int) -> int:
        if not 0 <= pa < 1 << 64:
            raise Unreadable(f"{pa:#x} is no physical address", pa=pa)
        index = int(self.ram.find(np.array([pa // PAGE], np.uint64))[0])
        if index < 0:
            raise Unreadable(f"physical address {pa:#x} is outside the guest's RAM", pa)
        return index

    def read_pages(self, mfns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pages with these numbers, as 512 words each, and which of them could be read."""
        mfns = np.asarray(mfns, np.uint64)
        out = np.zeros((len(mfns), WORDS), np.uint64)
        where = self.ram.find(mfns)
        ok = where >= 0
        for start, end in _runs(mfns, where):
            index = int(where[start])
            if index < 0:
                continue
            offset = int(mfns[start]) * PAGE - self.ram.ranges[index].start
            try:
                data = self._read(index, offset, (end - start) * PAGE)
            except Unreadable:
                ok[start:end] = False
                continue
            out[start:end] = np.frombuffer(data, np.uint64).reshape(-1, WORDS)
        return out, ok


def _runs(mfns: np.ndarray, where: np.ndarray) -> Iterable[tuple[int, int]]:
    """[start, end) of each stretch of consecutive pages of one range."""
    if not len(mfns):
        return []
    breaks = (np.diff(mfns) != 1) | (np.diff(where) != 0)
    edges = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(mfns)]
    return zip(edges[:-1], edges[1:])


class MappedReader(Reader):
    """Ranges that lie in files mapped into this process; others go to a second reader, if there is one.

    places: for each range of ram its bytes as a read-only uint8 array, or None.
    """

    name = "ramfile"

    def __init__(
        self,
        ram: RamMap,
        places: Sequence[np.ndarray | None],
        detail: str = "",
        rest: Reader | None = None,
    ) -> None:
        super().__init__(ram, detail)
        self.rest = rest
        self.places = places
        self.pages = [None if p is None else p.view(np.uint64).reshape(-1, WORDS) for p in places]

    def begin(self) -> None:
        if self.rest is not None:
            self.rest.begin()

    def _read(self, index: int, offset: int, size: int) -> bytes:
        place = self.places[index]
        ram = self.ram.ranges[index]
        if place is not None:
            return place[offset : offset + size].tobytes()
        if self.rest is not None:
            return self.rest.read(ram.start + offset, size)
        raise Unreadable(f"{ram.name} is not in the RAM file", ram.start + offset)

    def read_pages(self, mfns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mfns = np.asarray(mfns, np.uint64)
        where = self.ram.find(mfns)
        present = np.unique(where)
        if len(present) == 1 and present[0] >= 0:
            pages = self.pages[int(present[0])]
            if pages is not None:
                at = (mfns - self.ram.first[int(present[0])]).astype(np.int64)
                return _gather(pages, at), np.ones(len(mfns), bool)
        out = np.zeros((len(mfns), WORDS), np.uint64)
        ok = where >= 0
        for index in present[present >= 0].tolist():
            chosen = where == index
            pages = self.pages[index]
            if pages is None:
                out[chosen], ok[chosen] = super().read_pages(mfns[chosen])
            else:
                at = (mfns[chosen] - self.ram.first[index]).astype(np.int64)
                out[chosen] = _gather(pages, at)
        return out, ok


def _gather(pages: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows of pages; without a copy if they are consecutive."""
    if len(at) and int(at[-1]) - int(at[0]) == len(at) - 1 and (np.diff(at) == 1).all():
        return pages[int(at[0]) : int(at[-1]) + 1]
    return pages[at]


class ProcMemReader(Reader):
    """/proc/PID/mem of a local QEMU; hosts: the address in that process of each range, or None."""

    name = "procmem"

    def __init__(
        self,
        ram: RamMap,
        path: str,
        hosts: Sequence[int | None],
        detail: str = "",
        rest: Reader | None = None,
    ) -> None:
        super().__init__(ram, detail)
        self.hosts = hosts
        self.rest = rest
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as e:
            raise KtfError(
                f"{path}: {e.strerror}: run GDB as root or QEMU's user (and look at /proc/sys/kernel/yama/ptrace_scope)"
            ) from e

    def close(self) -> None:
        """Gives back the file descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            self.close()

    def begin(self) -> None:
        if self.rest is not None:
            self.rest.begin()

    def _read(self, index: int, offset: int, size: int) -> bytes:
        host = self.hosts[index]
        pa = self.ram.ranges[index].start + offset
        if host is None:
            if self.rest is not None:
                return self.rest.read(pa, size)
            raise Unreadable(f"{self.ram.ranges[index].name} has no host address", pa)
        try:
            data = os.pread(self.fd, size, host + offset)
        except OSError as e:
            raise Unreadable(f"{pa:#x}: QEMU's memory: {e.strerror}", pa) from e
        if len(data) != size:
            raise Unreadable(f"{pa:#x}: QEMU's memory ends early (did it exit?)", pa)
        return data


class StubReader(Reader):
    """Physical reads through the gdbstub; what was read is kept until begin().

    fetch([(pa, size), ...]) reads blocks of physical memory; Unreadable if the stub refuses.
    """

    name = "gdbstub"
    KEEP = 32768  # pages; 128 MiB

    def __init__(
        self,
        ram: RamMap,
        fetch: Callable[[list[tuple[int, int]]], list[bytes]],
        detail: str = "",
    ) -> None:
        super().__init__(ram, detail)
        self.fetch = fetch
        self.kept: dict[int, bytes] = {}

    def begin(self) -> None:
        self.kept.clear()

    def _read(self, index: int, offset: int, size: int) -> bytes:
        pa = self.ram.ranges[index].start + offset
        pages = range(pa // PAGE, (pa + size - 1) // PAGE + 1)
        self._keep(list(pages))
        data = b"".join(self.kept[m] for m in pages)
        skip = pa % PAGE
        return data[skip : skip + size]

    def read_pages(self, mfns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mfns = np.asarray(mfns, np.uint64)
        ok = self.ram.holds(mfns)
        with suppress(Unreadable):  # then page by page below, to know which
            self._keep(np.unique(mfns[ok]).tolist())
        return super().read_pages(mfns)

    def _keep(self, mfns: list[int]) -> None:
        """Reads what is not there yet of these pages (sorted), in one batch."""
        missing = [m for m in mfns if m not in self.kept]
        if len(self.kept) + len(missing) > self.KEEP:
            self.kept.clear()
            missing = mfns
        runs: list[list[int]] = []
        for mfn in missing:
            if runs and runs[-1][-1] + 1 == mfn:
                runs[-1].append(mfn)
            else:
                runs.append([mfn])
        blocks = self.fetch([(r[0] * PAGE, len(r) * PAGE) for r in runs]) if runs else []
        for run, data in zip(runs, blocks):
            for i, mfn in enumerate(run):
                self.kept[mfn] = data[i * PAGE : (i + 1) * PAGE]


class CoreReader(MappedReader):
    """An ELF core, by the physical addresses of its segments."""

    name = "core"
