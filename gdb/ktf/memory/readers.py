# SPDX-License-Identifier: BSD-2-Clause
# Where the guest's physical memory is read: one class for each way, all with the same two calls.
"""Readers of physical memory.

    reader.read(pa, n) -> bytes                       Unreadable where it is no memory
    reader.read_pages(mfns) -> (u64[n, 512], ok[n])   never raises; zeros where not ok

Nothing outside the RAM ranges is ever asked for: on a live guest that could be a device register,
and reading it would change the guest. Arrays that come back are the caller's own.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import Callable, Iterable, Sequence

import numpy as np

from ktf.errors import Unreadable

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

    def expect(self, mfns: np.ndarray) -> None:
        """These pages will be read soon, a few at a time: what costs less when asked for together is asked for now."""

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
        out = np.empty((len(mfns), WORDS), np.uint64)
        data = out.reshape(-1).view(np.uint8).data
        where = self.ram.find(mfns)
        ok = where >= 0
        for start, end, index, offset in self._runs(mfns, where):
            if index < 0:
                out[start:end] = 0
                continue
            try:
                self._fill(index, offset, data[start * PAGE : end * PAGE])
            except Unreadable:
                ok[start:end] = self._one_by_one(index, offset, data[start * PAGE : end * PAGE])
        return out, ok

    def _runs(self, mfns: np.ndarray, where: np.ndarray) -> Iterable[tuple[int, int, int, int]]:
        """(start, end, range, offset in it) of each stretch of consecutive pages of one range; range -1: of none."""
        if not len(mfns):
            return []
        breaks = (mfns[1:] - mfns[:-1] != 1) | (where[1:] != where[:-1])
        start = np.concatenate([[0], np.flatnonzero(breaks) + 1])
        end = np.append(start[1:], len(mfns))
        index = where[start]
        offset = (mfns[start] - np.append(self.ram.first, np.uint64(0))[index]) * np.uint64(PAGE)
        return zip(start.tolist(), end.tolist(), index.tolist(), offset.tolist())

    def _one_by_one(self, index: int, offset: int, out: memoryview) -> list[bool]:
        """Which of consecutive pages can be read, where not all of them can."""
        good = []
        for at in range(0, len(out), PAGE):
            page = out[at : at + PAGE]
            try:
                self._fill(index, offset + at, page)
                good.append(True)
            except Unreadable:
                page[:] = bytes(PAGE)
                good.append(False)
        return good

    def _fill(self, index: int, offset: int, out: memoryview) -> None:
        """As many bytes as out has, from offset on of range number index; Unreadable if that fails."""
        out[:] = self._read(index, offset, len(out))


class FileReader(Reader):
    """Ranges that lie in files, read at their places; others go to a second reader, if there is one.

    files: what is to be read, open as long as this reader is; places: for each range of ram the descriptor and the
    offset of its first byte, or None. Nothing is mapped: what a mapping touches would count as GDB's memory.
    """

    def __init__(
        self,
        ram: RamMap,
        places: Sequence[tuple[int, int] | None],
        detail: str = "",
        rest: Reader | None = None,
        files: Sequence[OpenFile] = (),
    ) -> None:
        super().__init__(ram, detail)
        self.places = places
        self.rest = rest
        self.files = files

    def begin(self) -> None:
        if self.rest is not None:
            self.rest.begin()

    def _read(self, index: int, offset: int, size: int) -> bytes:
        out = bytearray(size)
        self._fill(index, offset, memoryview(out))
        return bytes(out)

    def _fill(self, index: int, offset: int, out: memoryview) -> None:
        place = self.places[index]
        if place is None:
            self._fill_from_rest(index, offset, out)
            return
        descriptor, first = place
        while out:
            try:
                done = os.preadv(descriptor, [out], first + offset)
            except (OSError, OverflowError) as e:
                text = e.strerror if isinstance(e, OSError) else str(e)
                pa = self.ram.ranges[index].start + offset
                raise Unreadable(f"{pa:#x}: {self.detail}: {text}", pa) from e
            if not done:
                pa = self.ram.ranges[index].start + offset
                raise Unreadable(f"{pa:#x}: {self.detail} ends early (did QEMU exit?)", pa)
            out, offset = out[done:], offset + done

    def _fill_from_rest(self, index: int, offset: int, out: memoryview) -> None:
        ram = self.ram.ranges[index]
        pa = ram.start + offset
        if self.rest is None:
            raise Unreadable(f"{ram.name} is not in {self.detail}", pa)
        out[:] = self.rest.read(pa, len(out))


class OpenFile:
    """A file that is open for reading until nobody needs it any more."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class RamFileReader(FileReader):
    """The files in which QEMU keeps the guest's RAM."""

    name = "ramfile"


class ProcMemReader(FileReader):
    """/proc/PID/mem of a local QEMU; places are addresses in that process."""

    name = "procmem"


class CoreReader(FileReader):
    """An ELF core, by the physical addresses of its segments."""

    name = "core"


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
        try:
            self._keep(list(pages))
        except Unreadable:  # of an answer with many pages: which one it is
            for mfn in pages:
                self._keep([mfn])
        data = b"".join(self.kept[m] for m in pages)
        skip = pa % PAGE
        return data[skip : skip + size]

    def expect(self, mfns: np.ndarray) -> None:
        mfns = np.asarray(mfns, np.uint64)
        if len(mfns) <= self.KEEP:
            with suppress(Unreadable):  # then page by page in read_pages(), to know which
                self._keep(np.unique(mfns[self.ram.holds(mfns)]).tolist())

    def read_pages(self, mfns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.expect(mfns)
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
