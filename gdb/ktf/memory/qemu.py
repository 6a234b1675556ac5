# SPDX-License-Identifier: BSD-2-Clause
# Finds the memory of a live QEMU guest: its RAM ranges, the process behind GDB's connection, the RAM file.
"""open_reader(link, wanted) -> Reader for a live guest, and why the better ways were not taken.

RAM ranges come from the monitor (`info mtree -f`), the place of each in QEMU's own memory from
`gpa2hva`, the process from the socket at the other end of GDB's connection, and from its memory map
whether that place is a file that we can map as well.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ktf.errors import KtfError, NoGuest, Unreadable
from ktf.memory.readers import (
    PAGE,
    OpenFile,
    ProcMemReader,
    RamFileReader,
    RamMap,
    RamRange,
    Reader,
    StubReader,
)

READERS = ("auto", "ramfile", "procmem", "gdbstub", "core")
FORCED = "`set ktf reader auto` takes what works"
START_RAMFILE = (
    "start QEMU with -object memory-backend-file,id=ram,size=SIZE,mem-path=FILE,share=on "
    "-machine memory-backend=ram (`make debug` does)"
)
SAME_USER = "run GDB on QEMU's machine, in its PID namespace, as its user or root"


class Link(Protocol):
    """GDB's connection to QEMU. details is what stands behind `target remote`."""

    details: str

    def monitor(self, command: str) -> str:
        """Answer of QEMU's monitor; KtfError if the stub has none."""

    def read_physical(self, blocks: list[tuple[int, int]]) -> list[bytes]:
        """Blocks (pa, size) of physical memory through the stub; Unreadable if it refuses."""


@dataclass
class Opened:
    """A reader, and a line for each better one that could not be used."""

    reader: Reader
    refused: list[str]

    def story(self, wanted: str) -> list[str]:
        """What is used, why, and why not the others."""
        why = "chosen by itself, the first of ramfile, procmem, gdbstub that works"
        if wanted != "auto":
            why = "as `set ktf reader` says"
        head = f"read by {self.reader.name}: {self.reader.detail}; {why}"
        return [head, *(f"not by {line}" for line in self.refused)]


def ram_map(mtree: str) -> RamMap:
    """The RAM and ROM of the address space "memory" in the text of `info mtree -f`."""
    ranges, wanted = [], False
    for line in mtree.splitlines():
        if line.startswith("FlatView"):
            wanted = False
        elif re.match(r'\s+AS "memory"', line):
            wanted = True
        found = re.match(r"\s+([0-9a-f]+)-([0-9a-f]+) \(prio -?\d+, (ram|rom)\): (.*)", line)
        if wanted and found:
            start, last = int(found[1], 16), int(found[2], 16)
            ranges.append(RamRange(start, last + 1, found[4].split(" @")[0].strip()))
    return RamMap(ranges)


def open_reader(link: Link, wanted: str, mtree: str, probe: list[int]) -> Opened:
    """The first reader that works, or the wanted one; KtfError if that can't be had.

    probe: frame numbers whose pages must be the same through the stub, besides one of each range.
    """
    ram = ram_map(mtree)
    if not ram.ranges:
        raise NoGuest("the stub does not tell its RAM (`monitor info mtree -f`): it is not QEMU's")
    if wanted == "core":
        raise KtfError(f"can't read by core: the guest is live, no core file is open; {FORCED}")
    stub = StubReader(ram, link.read_physical, f"physical reads at {link.details}")
    refused: list[str] = []
    makers = {"ramfile": _ram_file, "procmem": _proc_mem}
    for name, make in makers.items():
        if wanted not in ("auto", name):
            continue
        try:
            reader = make(link, ram, stub)
            _compare(reader, stub, probe)
            return Opened(reader, refused)
        except KtfError as e:
            refused.append(f"{name}: {e}")
    if wanted in makers:
        raise KtfError(f"can't read by {refused[0]}; {FORCED}")
    return Opened(stub, refused)


def _ram_file(link: Link, ram: RamMap, stub: StubReader) -> Reader:
    pid = find_process(link.details)
    maps = list(read_maps(pid))
    files: dict[int, OpenFile] = {}
    places: list[tuple[int, int] | None] = []
    paths: set[str] = set()
    for r, host in zip(ram.ranges, host_addresses(link, ram)):
        found = _file_of(maps, host, r.end - r.start)
        if found is None:
            places.append(None)
            continue
        area, offset = found
        if area.inode not in files:
            files[area.inode] = _open_file(pid, area)
        descriptor = files[area.inode].descriptor
        if offset + r.end - r.start > os.fstat(descriptor).st_size:
            raise KtfError(f"{area.path} is shorter than the guest's RAM")
        places.append((descriptor, offset))
        paths.add(area.path)
    if not paths:
        raise KtfError(f"QEMU's RAM is no shared file: {START_RAMFILE}")
    detail = f"{', '.join(sorted(paths))} of process {pid}"
    rest: Reader = stub
    if any(p is None for p in places):  # the video memory, ROMs
        with suppress(KtfError):
            rest = _proc_mem(link, ram, stub)
    return RamFileReader(ram, places, detail, rest, list(files.values()))


def _proc_mem(link: Link, ram: RamMap, stub: StubReader) -> Reader:
    pid = find_process(link.details)
    hosts = host_addresses(link, ram)
    if not any(hosts):
        raise KtfError("the monitor does not tell where QEMU keeps the RAM (gpa2hva)")
    path = f"/proc/{pid}/mem"
    try:
        memory = OpenFile(path)
    except OSError as e:
        raise KtfError(
            f"{path}: {e.strerror}: run GDB as root or QEMU's user (and look at /proc/sys/kernel/yama/ptrace_scope)"
        ) from e
    places = [None if host is None else (memory.descriptor, host) for host in hosts]
    return ProcMemReader(ram, places, path, stub, [memory])


def _compare(reader: Reader, stub: StubReader, probe: list[int]) -> None:
    """Some pages must be the same by both ways: what we found is this guest's memory."""
    mfns = {m for m in probe if m >= 0} | {r.start // PAGE for r in reader.ram.ranges[:8]}
    pages = np.array(sorted(mfns), np.uint64)
    ours, ok = reader.read_pages(pages)
    theirs, theirs_ok = stub.read_pages(pages)
    if not np.array_equal(ok, theirs_ok) or not np.array_equal(ours, theirs):
        raise KtfError(f"{reader.detail} is not this guest's memory")


def host_addresses(link: Link, ram: RamMap) -> list[int | None]:
    """Where in QEMU's memory each range starts, None where the monitor does not say."""
    hosts: list[int | None] = []
    for r in ram.ranges:
        answer = link.monitor(f"gpa2hva {r.start:#x}")
        found = re.search(r" is (?:0x)?([0-9a-f]+)\s*$", answer.strip())
        hosts.append(int(found[1], 16) if found else None)
    return hosts


# The process ---------------------------------------------------------------------------------------


def find_process(details: str) -> int:
    """PID of the process at the other end of a connection; KtfError if it is none of this machine."""
    if details.startswith("|"):
        raise KtfError("the connection is a pipe, whose other end is not known: use a socket")
    tcp = re.fullmatch(r"(?:(?:tcp[46]?):)?(?:\[.*\]|[^/:]*):(\d+)", details)
    if tcp:
        sockets = _tcp_peers(int(tcp[1]))
    else:
        sockets = _unix_sockets(re.sub(r"^unix:", "", details))
    pid = _owner(sockets)
    if pid is None:
        raise KtfError(f"no process that we may look into stands behind {details}: {SAME_USER}")
    return pid


def _tcp_rows() -> Iterator[tuple[str, str, str, int]]:
    """(local, remote, state, inode) of each TCP socket; addresses as hexadecimal ADDR:PORT."""
    for path in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        try:
            with open(path, encoding="ascii") as f:
                rows = f.read().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            words = row.split()
            yield words[1], words[2], words[3], int(words[9])


def _tcp_peers(port: int) -> set[int]:
    """Inodes of the sockets that this process's connections to that port end at."""
    mine = {inode for _, inode in _socket_inodes("self")}
    rows = [(a.split(":"), b.split(":"), s, i) for a, b, s, i in _tcp_rows()]
    ends = {a[1] for a, b, _, i in rows if i in mine and int(b[1], 16) == port}
    return {i for a, b, _, i in rows if int(a[1], 16) == port and b[1] in ends and i}


def _unix_sockets(path: str) -> set[int]:
    """Inodes of the sockets bound to that path, however it was written."""
    found: set[int] = set()
    name = os.path.basename(path)
    try:
        with open("/proc/self/net/unix", encoding="utf-8", errors="replace") as f:
            rows = f.read().splitlines()[1:]
    except OSError:
        return found
    for row in rows:
        words = row.split(None, 7)
        if len(words) == 8 and os.path.basename(words[7]) == name:
            if not os.path.isabs(words[7]) or _same_path(words[7], path):
                found.add(int(words[6]))
    return found


def _same_path(a: str, b: str) -> bool:
    return os.path.realpath(a) == os.path.realpath(os.path.expanduser(b))


def _socket_inodes(pid: str) -> Iterator[tuple[str, int]]:
    """(descriptor, inode) of each socket that a process has open."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield name, int(target[8:-1])


def _owner(sockets: set[int]) -> int | None:
    """A process other than this one that has one of these sockets; QEMUs are asked first."""
    if not sockets:
        return None
    pids = [p for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()]
    pids.sort(key=lambda p: (not _comm(p).startswith("qemu"), int(p)))
    for pid in pids:
        if any(inode in sockets for _, inode in _socket_inodes(pid)):
            return int(pid)
    return None


def _comm(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


# Its memory map ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Area:
    """A line of /proc/PID/maps."""

    start: int
    end: int
    shared: bool
    offset: int
    inode: int
    path: str


def read_maps(pid: int) -> Iterator[Area]:
    """The memory map of a process; KtfError if it may not be read."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as f:
            lines = f.read().splitlines()
    except OSError as e:
        raise KtfError(f"/proc/{pid}/maps: {e.strerror}: {SAME_USER}") from e
    for line in lines:
        words = line.split(None, 5)
        start, end = (int(x, 16) for x in words[0].split("-"))
        path = words[5] if len(words) == 6 else ""
        shared = words[1][3] == "s"
        yield Area(start, end, shared, int(words[2], 16), int(words[4]), path)


def _file_of(maps: list[Area], host: int | None, size: int) -> tuple[Area, int] | None:
    """The one shared file that holds all of [host, host + size), and the offset there."""
    if host is None:
        return None
    first: tuple[Area, int] | None = None
    at, end = host, host + size
    while at < end:
        area = next((a for a in maps if a.start <= at < a.end), None)
        if area is None or not area.shared or not area.inode:
            return None
        offset = area.offset + at - area.start
        if first is None:
            first = area, offset
        elif area.inode != first[0].inode or offset != first[1] + at - host:
            return None
        at = area.end
    return first


def _open_file(pid: int, area: Area) -> OpenFile:
    """The file of an area."""
    for path in _names(pid, area):
        try:
            found = os.stat(path)
            if found.st_ino != area.inode or not stat.S_ISREG(found.st_mode):
                continue
            opened = OpenFile(path)
        except OSError:
            continue
        # Pages of it that nobody has written are holes: reading ahead would only fill memory with zeros.
        os.posix_fadvise(opened.descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return opened
    raise KtfError(f"{area.path} can't be opened")


def _names(pid: int, area: Area) -> Iterator[str]:
    """Under what names the file of an area may be opened: its own, or QEMU's descriptor of it."""
    yield area.path
    folder = f"/proc/{pid}/fd"
    try:
        yield from (f"{folder}/{n}" for n in os.listdir(folder))
    except OSError:
        return


def physical_bits(link: Link) -> int | None:
    """MAXPHYADDR of the first CPU, None if the monitor does not tell."""
    try:
        cpus = link.monitor("info hotpluggable-cpus")
        for path in sorted(re.findall(r'qom_path: "(.*?)"', cpus)):
            answer = link.monitor(f"qom-get {path} phys-bits").strip()
            if answer.isdigit() and 32 <= int(answer) <= 52:
                return int(answer)
    except (KtfError, Unreadable):
        return None
    return None


# Its log -------------------------------------------------------------------------------------------


def log_tail(details: str, size: int) -> str:
    """The end of what the QEMU behind a connection wrote to -D FILE; "" if it has none that we may read."""
    try:
        pid = find_process(details)
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read().decode("utf-8", "replace").split("\0")
        at = words.index("-D") if "-D" in words else words.index("--D")
        path = os.path.join(f"/proc/{pid}/cwd", words[at + 1])
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ""
        with open(path, "rb") as f:
            f.seek(max(os.fstat(f.fileno()).st_size - size, 0))
            return f.read(size).decode("ascii", "replace")
    except (KtfError, OSError, ValueError, IndexError):
        return ""
