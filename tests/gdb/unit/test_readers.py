# SPDX-License-Identifier: BSD-2-Clause
# The readers of physical memory: same answers by every way, and nothing outside RAM is ever asked for.
"""Tests of ktf.readers and of the parts of ktf.qemu and ktf.core that need no guest."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

import numpy as np

from ktf.cores.read import open_core
from ktf.errors import KtfError, Unreadable
from ktf.memory.qemu import find_process, open_reader, ram_map, read_maps
from ktf.memory.readers import (
    FileReader,
    OpenFile,
    ProcMemReader,
    RamMap,
    RamRange,
    Reader,
    StubReader,
)

PAGE = 4096

MTREE = """FlatView #0
 AS "I/O", root: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #1
 AS "cpu-smm-0", root: memory
  00000000000a0000-00000000000bffff (prio 0, ram): mem
FlatView #2
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): mem
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000cafff (prio 0, rom): mem @00000000000c0000
  0000000000100000-0000000007ffffff (prio 0, ram): my ram @0000000000100000 KVM
  00000000fd000000-00000000fd000fff (prio 1, ramd): a device's
  00000000fec00000-00000000fec00fff (prio 0, i/o): ioapic
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios

"""


class Stub:
    """A stub with memory behind it, that refuses what no reader may ask for."""

    def __init__(self, ram: RamMap, content: np.ndarray) -> None:
        self.ram = ram
        self.content = content
        self.blocks: list[tuple[int, int]] = []
        self.broken: set[int] = set()
        self.details = "here"

    def read_physical(self, blocks: list[tuple[int, int]]) -> list[bytes]:
        """As qemu.Link."""
        answers = []
        for pa, size in blocks:
            self.blocks.append((pa, size))
            pages = np.arange(pa // PAGE, (pa + size - 1) // PAGE + 1, dtype=np.uint64)
            if not self.ram.holds(pages).all():
                raise AssertionError(f"{pa:#x} is no RAM")
            if any(int(p) in self.broken for p in pages):
                raise Unreadable("broken", pa)
            answers.append(self.content.reshape(-1)[pa : pa + size].tobytes())
        return answers

    def monitor(self, command: str) -> str:
        """As qemu.Link; knows nothing."""
        return "unknown command\r\n"


class Readers(unittest.TestCase):
    """All readers over the same memory of two ranges with a hole."""

    def setUp(self) -> None:
        """64 pages, of which 4 to 7 and from 60 on are no RAM."""
        self.content = np.random.default_rng(1).integers(0, 256, (64, PAGE), np.uint8)
        self.ram = RamMap([RamRange(8 * PAGE, 60 * PAGE, "b"), RamRange(0, 4 * PAGE, "a")])
        self.stub = Stub(self.ram, self.content)
        handle, path = tempfile.mkstemp()
        self.addCleanup(os.unlink, path)
        with os.fdopen(handle, "wb") as f:
            f.write(b"head" + self.content.tobytes())
        file, memory = OpenFile(path), OpenFile(f"/proc/{os.getpid()}/mem")
        first, second = (file.descriptor, 4), (file.descriptor, 4 + 8 * PAGE)
        base = self.content.ctypes.data
        hosts = [(memory.descriptor, base), (memory.descriptor, base + 8 * PAGE)]
        stub = StubReader(self.ram, self.stub.read_physical)
        self.readers: list[Reader] = [
            FileReader(self.ram, [first, second], files=[file]),
            FileReader(self.ram, [None, second], rest=stub, files=[file]),
            stub,
            ProcMemReader(self.ram, hosts, files=[memory]),
            ProcMemReader(self.ram, [None, hosts[1]], rest=stub, files=[memory]),
        ]

    def test_pages(self) -> None:
        """The same pages, and the same ones refused, in any order and number."""
        rng = np.random.default_rng(2)
        asked = [
            np.arange(64, dtype=np.uint64),
            np.array([9, 10, 11], np.uint64),
            np.array([], np.uint64),
            np.array([60, 61], np.uint64),
            np.array([1 << 40, (1 << 64) - 1, 1 << 63, 5], np.uint64),
            rng.integers(0, 70, 500).astype(np.uint64),
        ]
        for mfns in asked:
            good = [m < 4 or 8 <= m < 60 for m in mfns.tolist()]
            for reader in self.readers:
                pages, ok = reader.read_pages(mfns)
                self.assertEqual(ok.tolist(), good, reader.name)
                self.assertEqual(pages.shape, (len(mfns), 512))
                for mfn, page, fine in zip(mfns.tolist(), pages, ok):
                    expected = self.content[mfn].tobytes() if fine else bytes(PAGE)
                    self.assertEqual(page.tobytes(), expected, reader.name)

    def test_bytes(self) -> None:
        """Any start and length inside a range; an error that names the place outside."""
        for reader in self.readers:
            for pa, size in ((0, 1), (4095, 2), (8 * PAGE + 7, 3 * PAGE), (60 * PAGE - 1, 1)):
                expected = self.content.reshape(-1)[pa : pa + size].tobytes()
                self.assertEqual(reader.read(pa, size), expected)
            for pa, size, at in (
                (4 * PAGE - 1, 2, 4 * PAGE),
                (5 * PAGE, 1, 5 * PAGE),
                (60 * PAGE, 1, 60 * PAGE),
                (1 << 70, 1, 1 << 70),
                (-1, 1, -1),
            ):
                with self.assertRaises(Unreadable) as caught:
                    reader.read(pa, size)
                self.assertEqual(caught.exception.pa, at)
                self.assertIn(f"{at:#x}", str(caught.exception))

    def test_refused_in_a_batch(self) -> None:
        """The error of a large read names the page that is refused, not the first of the batch."""
        self.stub.broken = {14}
        reader = StubReader(self.ram, self.stub.read_physical)
        with self.assertRaises(Unreadable) as caught:
            reader.read(9 * PAGE, 10 * PAGE)
        self.assertEqual(caught.exception.pa, 14 * PAGE)
        self.assertEqual(reader.read(9 * PAGE, 5 * PAGE), self.content[9:14].tobytes())

    def test_stub_keeps_and_forgets(self) -> None:
        """A page is asked for once a stop; consecutive ones together."""
        reader = StubReader(self.ram, self.stub.read_physical)
        for _ in range(3):
            reader.read_pages(np.array([8, 9, 10, 20, 0], np.uint64))
        self.assertEqual(self.stub.blocks, [(0, PAGE), (8 * PAGE, 3 * PAGE), (20 * PAGE, PAGE)])
        reader.begin()
        reader.read(8 * PAGE, 8)
        self.assertEqual(self.stub.blocks[-1], (8 * PAGE, PAGE))

    def test_stub_expects(self) -> None:
        """What will be read a few at a time is asked for at once; pages outside RAM, or too many, are not."""
        reader = StubReader(self.ram, self.stub.read_physical)
        reader.expect(np.array([9, 8, 4, 1 << 60, 30], np.uint64))
        self.assertEqual(self.stub.blocks, [(8 * PAGE, 2 * PAGE), (30 * PAGE, PAGE)])
        for mfn in (30, 8, 9):
            self.assertTrue(reader.read_pages(np.array([mfn], np.uint64))[1][0])
        self.assertEqual(len(self.stub.blocks), 2)
        reader.KEEP = 3
        reader.expect(np.array([10, 11, 12, 13], np.uint64))
        self.assertEqual(len(self.stub.blocks), 2)

    def test_stub_fails(self) -> None:
        """A page that the stub refuses does not take the others with it."""
        self.stub.broken = {9}
        reader = StubReader(self.ram, self.stub.read_physical)
        _, ok = reader.read_pages(np.array([8, 20, 9, 9, 30], np.uint64))
        self.assertEqual(ok.tolist(), [True, True, False, False, True])

    def test_file_fails(self) -> None:
        """What a file has not, because it ends early or its descriptor is of no use, does not take the rest with it."""
        handle, path = tempfile.mkstemp()
        self.addCleanup(os.unlink, path)
        with os.fdopen(handle, "wb") as f:
            f.write(self.content[:3].tobytes() + b"x")
        file = OpenFile(path)
        reader = FileReader(self.ram, [(file.descriptor, 0), (-1, 0)], path, files=[file])
        pages, ok = reader.read_pages(np.array([0, 9, 2, 3, 1], np.uint64))
        self.assertEqual(ok.tolist(), [True, False, True, False, True])
        self.assertEqual(pages[[1, 3]].any(), False)
        self.assertEqual(pages[4].tobytes(), self.content[1].tobytes())
        with self.assertRaisesRegex(Unreadable, "ends early"):
            reader.read(3 * PAGE, 2)
        with self.assertRaisesRegex(Unreadable, "0x9000: .*: Bad file"):
            reader.read(9 * PAGE, 2)

    def test_no_ram(self) -> None:
        """A guest without any RAM."""
        empty = StubReader(RamMap([]), self.stub.read_physical)
        self.assertEqual(empty.read_pages(np.array([0], np.uint64))[1].tolist(), [False])


class Qemu(unittest.TestCase):
    """What QEMU's monitor and the system say."""

    def test_ram_map(self) -> None:
        """RAM and ROM of the system's memory alone."""
        ram = ram_map(MTREE)
        self.assertEqual(
            [(r.start, r.end, r.name) for r in ram.ranges],
            [
                (0, 0xA0000, "mem"),
                (0xC0000, 0xCB000, "mem"),
                (0x100000, 0x8000000, "my ram"),
                (0xFFFC0000, 1 << 32, "pc.bios"),
            ],
        )
        self.assertFalse(ram.holds(np.array([0xFEC00, 0xA0, 0xFD000], np.uint64)).any())
        self.assertEqual(ram_map("nonsense\n").ranges, [])

    def test_wrong_choice(self) -> None:
        """What was asked for and can't be is an error; by itself the stub is taken."""
        content = np.zeros((0x8000, PAGE), np.uint8)
        mtree = 'FlatView #0\n AS "memory", root: x\n  0000-7ffffff (prio 0, ram): a\n'
        stub = Stub(ram_map(mtree), content)
        opened = open_reader(stub, "auto", mtree, [3])
        self.assertEqual(opened.reader.name, "gdbstub")
        self.assertEqual([r.split(":")[0] for r in opened.refused], ["ramfile", "procmem"])
        for wanted in ("ramfile", "procmem"):
            with self.assertRaisesRegex(KtfError, f"can't read by {wanted}"):
                open_reader(stub, wanted, mtree, [])
        with self.assertRaisesRegex(KtfError, "not QEMU's"):
            open_reader(stub, "auto", "", [])

    def test_find_process(self) -> None:
        """The process at the other end of a TCP connection and of a unix socket; nobody's for others."""
        program = (
            "import socket, sys\n"
            "s = socket.socket(getattr(socket, sys.argv[1]))\n"
            "s.bind(sys.argv[2] if sys.argv[1] == 'AF_UNIX' else ('127.0.0.1', 0))\n"
            "s.listen()\n"
            "print(s.getsockname()[1] if sys.argv[1] == 'AF_INET' else 0, flush=True)\n"
            "c = s.accept()\n"
            "print('accepted', flush=True)\n"
            "sys.stdin.read()\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            for family in ("AF_INET", "AF_UNIX"):
                path = f"{folder}/socket"
                with subprocess.Popen(
                    [sys.executable, "-c", program, family, path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                ) as child:
                    assert child.stdout is not None and child.stdin is not None
                    port = int(child.stdout.readline())
                    with socket.socket(getattr(socket, family)) as s:
                        s.connect(("127.0.0.1", port) if family == "AF_INET" else path)
                        self.assertEqual(child.stdout.readline(), "accepted\n")
                        forms = [f":{port}", f"localhost:{port}", f"tcp:127.0.0.1:{port}"]
                        if family == "AF_UNIX":
                            forms = [path, f"unix:{path}"]
                        for form in forms:
                            self.assertEqual(find_process(form), child.pid, form)
                    child.stdin.close()
        for form in ("| qemu", "/no/such/socket", "localhost:1", "", "::::"):
            with self.assertRaises(KtfError):
                find_process(form)

    def test_maps(self) -> None:
        """Our own memory map can be read; nobody's can't."""
        self.assertTrue(
            any(a.path.endswith(".so") or ".so." in a.path for a in read_maps(os.getpid()))
        )
        with self.assertRaises(KtfError):
            list(read_maps(1 << 30))


class Core(unittest.TestCase):
    """ELF cores."""

    def core(self, segments: list[tuple[int, int, bytes]], notes: bytes) -> str:
        """A file with PT_LOADs (va, pa, bytes) and a PT_NOTE."""
        count = len(segments) + 1
        at = 64 + 56 * count
        head = b"\x7fELF\x02\x01\x01" + bytes(9)
        head += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
        table = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(notes), 0, 0)
        body = notes
        for va, pa, data in segments:
            offset = at + len(body)
            table += struct.pack("<IIQQQQQQ", 1, 0, offset, va, pa, len(data), len(data), 0)
            body += data
        handle, path = tempfile.mkstemp()
        self.addCleanup(os.unlink, path)
        with os.fdopen(handle, "wb") as f:
            f.write(head + table + body)
        return path

    def note(self) -> bytes:
        """QEMU's note of one CPU."""
        desc = bytearray(440)
        struct.pack_into("<Q", desc, 8 + 6 * 8, 0x7000)
        struct.pack_into("<Q", desc, 8 + 16 * 8, 0x1234)
        struct.pack_into("<5Q", desc, 8 + 18 * 8 + 240, 0x80010011, 0, 0xDEAD, 0x5000, 0x20)
        return struct.pack("<III", 5, 440, 0) + b"QEMU\0\0\0\0" + bytes(desc)

    def test_core(self) -> None:
        """Memory by physical address, each page once; registers of each CPU."""
        page = [bytes([i]) * PAGE for i in range(4)]
        high = 0xFFFF_8000_0000_0000
        path = self.core(
            [(high, 0, page[0] + page[1]), (0, 0, page[0]), (5, 1 << 32, page[3] + b"x")],
            self.note() + self.note(),
        )
        core = open_core(path)
        reader, cpus = core.reader, core.cpus
        self.assertEqual([c.cr3 for c in cpus], [0x5000, 0x5000])
        self.assertEqual((cpus[1].number, cpus[1].rip, cpus[1].cr2), (1, 0x1234, 0xDEAD))
        self.assertEqual((cpus[1].rsp, cpus[1].efer), (0x7000, None))
        self.assertTrue(cpus[0].long_mode)
        self.assertEqual(reader.read(PAGE - 1, 2), b"\0\1")
        self.assertEqual(reader.read(1 << 32, 1), b"\3")
        _, ok = reader.read_pages(np.array([0, 1, 2, 1 << 20, (1 << 20) + 1], np.uint64))
        self.assertEqual(ok.tolist(), [True, True, False, True, False])

    def test_garbage(self) -> None:
        """Files that are no cores, and one without the registers."""
        for data in (b"", b"x" * 100, b"\x7fELF\x02\x01" + b"\xff" * 200):
            handle, path = tempfile.mkstemp()
            self.addCleanup(os.unlink, path)
            with os.fdopen(handle, "wb") as f:
                f.write(data)
            with self.assertRaises(KtfError):
                open_core(path)
        with self.assertRaisesRegex(KtfError, "no notes of QEMU"):
            open_core(self.core([(0, 0, bytes(PAGE))], b""))


if __name__ == "__main__":
    unittest.main()
