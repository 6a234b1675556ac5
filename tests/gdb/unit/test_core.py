# SPDX-License-Identifier: BSD-2-Clause
# Cores of made-up guests: each segment leads to the bytes that the page tables lead to, and failures leave nothing.
"""Tests of ktf.core_write, read back by ktf.core and by hand."""

from __future__ import annotations

import os
import struct
import tempfile
import unittest
from contextlib import suppress
from unittest import mock

import numpy as np

from fake_guest import Memory
from synthetic import Machine
from synthetic_model import IMAGE

from ktf.cores import write as core_write
from ktf.cores.read import Ended, open_core, own_note
from ktf.errors import KtfError, Unreadable
from ktf.x86.paging import NX, P, RW
from ktf.memory.readers import PAGE
from ktf.x86.registers import CONTROL, GENERAL, SEGMENTS, Registers, Segment
from ktf.kernel.session import Session

LOAD = struct.Struct("<IIQQQQQQ")
HIGH = 0xFFFF_8000_0000_0000


def with_registers(session: Session, halted: bool | None = None) -> Session:
    """The same with all registers of its CPU, whose numbers are made up but for those that count."""
    cpu = session.cpu
    general = {n: i for i, n in enumerate(GENERAL)}
    segments = {n: Segment(8 * i, 0x1000 * i, 0xFFFF, 0) for i, n in enumerate(SEGMENTS)}
    control = {n: int(getattr(cpu, n, 0)) for n in CONTROL}
    registers = Registers(0, general, segments, control, cpu.efer, halted=halted)
    return Session([cpu], 0, session.reader, session.types, session.image, 46, lambda: [registers])


class Writing(unittest.TestCase):
    """Files in a directory of the test's own."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(folder.name, "core")

    def loads(self) -> list[tuple[int, ...]]:
        """(flags, offset, va, pa, size) of each PT_LOAD."""
        with open(self.path, "rb") as f:
            self.data = f.read()
        (at,) = struct.unpack_from("<Q", self.data, 32)
        (count,) = struct.unpack_from("<H", self.data, 56)
        self.assertLess(count, 0xFFFF)  # else they are counted elsewhere
        rows = [LOAD.unpack_from(self.data, at + 56 * i) for i in range(count)]
        self.assertTrue(all(r[2] % PAGE == 0 for r in rows[1:]))
        return [(r[1], r[2], r[3], r[4], r[5]) for r in rows if r[0] == 1]

    def test_kernel(self) -> None:
        """Memory page by page, and every mapped page of the kernel's space, by address."""
        machine = Machine()
        session = with_registers(machine.session())
        written = core_write.write_core(session, self.path)
        loads = self.loads()
        self.assertEqual(written.ranges, len(loads) - 1)
        _, offset, va, pa, size = loads[0]
        self.assertEqual((va, pa, size), (core_write.PHYSICAL, 0, len(machine.words) * PAGE))
        words = np.frombuffer(self.data, np.uint64, size // 8, offset).reshape(-1, 512)
        self.assertTrue(np.array_equal(words, machine.words))
        leaves = session.walk(session.spaces().spaces[0]).leaves
        leaves = leaves.take(leaves.pa < len(machine.words) * PAGE)  # not the device
        seen = 0
        for _, offset, va, pa, size in loads[1:]:
            inside = (leaves.va >= va) & (leaves.va < va + size)
            seen += int(inside.sum())
            self.assertTrue(np.array_equal(leaves.pa[inside] - pa, leaves.va[inside] - va))
            self.assertEqual(int(leaves.size[inside].sum()), size)
            self.assertEqual(offset - loads[0][1], pa)
        self.assertEqual(seen, len(leaves))
        self.assertTrue(any(va <= IMAGE + 0x210000 < va + size for _, _, va, _, size in loads))

    def test_back(self) -> None:
        """Our own reader gets memory, registers, EFER and the size of physical addresses back."""
        machine = Machine()
        session = with_registers(machine.session())
        core_write.write_core(session, self.path)
        core = open_core(self.path)
        self.assertEqual(core.registers, session.registers)
        self.assertEqual(core.phys_bits, 46)
        pages, ok = core.reader.read_pages(np.arange(len(machine.words), dtype=np.uint64))
        self.assertTrue(ok.all() and np.array_equal(pages, machine.words))

    def test_ended(self) -> None:
        """How the machine stood comes back; of a core without that nothing is made up; a note that is cut is reported."""
        session = with_registers(Memory(8).session())
        ended = Ended("shutdown", "breakpoint", "1: v=08 \N{EM DASH}\n")
        core_write.write_core(session, self.path, ended)
        self.assertEqual(open_core(self.path).ended, ended)
        core_write.write_core(session, self.path)
        self.assertEqual(open_core(self.path).ended, Ended())
        whole = own_note(session.registers, 46, ended)
        first = struct.pack("<I", 1) + whole[4:24]  # as version 1 was: no texts
        second = struct.pack("<I", 2) + whole[4:-5]  # three texts
        for note, expected in ((first, Ended()), (second, ended), (whole, ended)):
            with mock.patch.object(core_write, "own_note", return_value=note):
                core_write.write_core(session, self.path)
            self.assertEqual(open_core(self.path).ended, expected)
        for note in (whole[:-1], whole[:-5], struct.pack("<I", 4) + whole[4:]):
            with mock.patch.object(core_write, "own_note", return_value=note):
                core_write.write_core(session, self.path)
            with self.assertRaisesRegex(KtfError, "its note named KTF"):
                open_core(self.path)

    def test_halted(self) -> None:
        """Which CPUs halt comes back, also that nobody knew."""
        for halted in (True, False, None):
            session = with_registers(Memory(8).session(), halted)
            core_write.write_core(session, self.path)
            self.assertEqual(open_core(self.path).registers, session.registers)
            self.assertEqual(session.registers[0].halted, halted)

    def test_cut(self) -> None:
        """A file that is shorter than its headers say."""
        core_write.write_core(with_registers(Memory(8).session()), self.path)
        self.assertEqual(open_core(self.path).cut, "")
        size = os.path.getsize(self.path)
        os.truncate(self.path, size - 5)
        self.assertEqual(
            open_core(self.path).cut,
            f"the core file is cut: {size - 5:,} of {size:,} bytes are there",
        )

    def test_user(self) -> None:
        """In a user space its own half is there as well, the kernel's half from the kernel's tables."""
        machine = Machine()
        root = machine.tables[machine.roots[2]]
        assert root is not None
        session = with_registers(machine.session(root.mfn << 12))
        core_write.write_core(session, self.path)
        low = [load for load in self.loads()[1:] if load[2] < 1 << 47]
        leaves = session.walk(session.cr3_space(), 0, 1 << 47).leaves
        self.assertTrue(len(leaves))
        self.assertEqual(sum(load[4] for load in low), int(leaves.size.sum()))

    def test_beyond_memory(self) -> None:
        """What is mapped but is no RAM is left out, a large page's RAM part is kept; rights become flags."""
        m = Memory(64, start=0x200000)
        m.map(HIGH, 0x200000, P | RW | NX)
        m.map(HIGH + PAGE, 0xFEE00000, P | RW | NX)
        m.map(HIGH + (2 << 20), 0x200000, P, level=2)
        core_write.write_core(with_registers(m.session()), self.path)
        loads = self.loads()[1:]
        self.assertEqual([load[2] for load in loads], [HIGH, HIGH + (2 << 20)])
        self.assertEqual([load[4] for load in loads], [PAGE, 64 * PAGE])
        self.assertEqual([load[0] for load in loads], [4 | 2, 4 | 1])

    def test_no_paging(self) -> None:
        """Before paging is on addresses are physical ones."""
        m = Memory(8)
        core_write.write_core(with_registers(m.session(cr0=0x10)), self.path)
        self.assertEqual([load[2:] for load in self.loads()], [(0, 0, 8 * PAGE)])

    def write_many(self, heads: int) -> np.ndarray:
        """A core of so many program headers, notes and memory among them; the pages mapped."""
        count = heads - 2
        va = np.uint64(HIGH) + np.arange(count, dtype=np.uint64) * np.uint64(2 * PAGE)
        pa = np.arange(count, dtype=np.uint64) % np.uint64(4) * np.uint64(PAGE)
        size, flags = np.full(count, PAGE, np.uint64), np.full(count, 4, np.uint32)
        memory = Memory(8)
        memory.words[:] = np.arange(8)[:, None] + 1
        mapped = core_write.Stretches(va, pa, size, flags)
        with mock.patch.object(core_write, "stretches", return_value=mapped):
            written = core_write.write_core(with_registers(memory.session()), self.path)
        self.assertEqual(written.ranges, count)
        return va

    def test_many(self) -> None:
        """As many ranges as there are: from 0xffff headers on section header 0 counts them."""
        for heads in (0xFFFE, 0xFFFF, 0x10000, 200_000):
            va = self.write_many(heads)
            with open(self.path, "rb") as f:
                data = f.read()
            (sections,) = struct.unpack_from("<Q", data, 40)
            count, *rest = struct.unpack_from("<4H", data, 56)
            if heads < 0xFFFF:
                self.assertEqual((count, sections, rest), (heads, 0, [0, 0, 0]))
            else:
                self.assertEqual((count, rest), (0xFFFF, [64, 1, 0]))
                section = struct.unpack_from("<IIQQQQIIQQ", data, sections)
                self.assertEqual(section, (0, 0, 0, 0, 0, 0, 0, heads, 0, 0))
            rows = np.frombuffer(data, np.uint64, 7 * heads, 64).reshape(-1, 7)
            self.assertTrue(np.array_equal(rows[2:, 2], va))
            last = int(rows[-1, 1])
            page = np.frombuffer(data, np.uint64, 512, last)
            self.assertTrue((page == int(rows[-1, 3]) // PAGE + 1).all())
            # Memory's own header as the last one: of the mapped pages no one is in its upper half.
            other = np.array(rows)
            other[[1, -1]] = other[[-1, 1]]
            with open(self.path, "r+b") as f:
                f.seek(64)
                f.write(other.tobytes())
            core = open_core(self.path)
            self.assertEqual((core.cut, len(core.registers)), ("", 1))
            pages, ok = core.reader.read_pages(np.arange(8, dtype=np.uint64))
            self.assertTrue(ok.all() and (pages[:, 0] == np.arange(8) + 1).all())

    def test_bounded(self) -> None:
        """More headers than are read are not written."""
        with mock.patch.object(core_write, "HEADS_MOST", 100):
            self.write_many(100)
            with self.assertRaisesRegex(KtfError, "101 program headers would be needed"):
                self.write_many(101)

    def test_lying_count(self) -> None:
        """A section header that is not there, or counts what can't be: an error in words."""
        self.write_many(0x10000)
        with open(self.path, "rb") as f:
            whole = f.read()
        (sections,) = struct.unpack_from("<Q", whole, 40)
        info = sections + 44
        outside, wrong = "outside of it", "should be 65,535 to 4,194,304"
        for at, form, value, why in (
            (40, "<Q", 0, "does not have"),
            (40, "<Q", len(whole) - 63, outside),
            (40, "<Q", (1 << 63) - 64, outside),
            (40, "<Q", (1 << 64) - 1, outside),
            (info, "<I", 0, wrong),
            (info, "<I", 0xFFFE, wrong),
            (info, "<I", 0xFFFFFFFF, wrong),
            (info, "<I", (1 << 22) + 1, wrong),
            (info, "<I", 1 << 22, outside),
            (32, "<Q", (1 << 64) - 1, outside),
        ):
            data = bytearray(whole)
            struct.pack_into(form, data, at, value)
            with open(self.path, "wb") as f:
                f.write(data)
            with self.assertRaisesRegex(KtfError, why, msg=f"{value:#x} at {at}"):
                open_core(self.path)
        # Fewer than there are, and more, whose bytes are others: whatever that gives, no other kind of error.
        for count in (0xFFFF, 0x10001, 0x10002, 0x10010):
            data = bytearray(whole)
            struct.pack_into("<I", data, info, count)
            with open(self.path, "wb") as f:
                f.write(data)
            with suppress(KtfError):
                open_core(self.path)

    def test_failures(self) -> None:
        """A write that fails, a page that can't be read: an error, the old file as it was, nothing beside it."""
        session = with_registers(Memory(8).session())
        core_write.write_core(session, self.path)
        with open(self.path, "rb") as f:
            before = f.read()
        failing = {
            "pwrite": mock.patch("os.pwrite", side_effect=OSError(28, "No space left on device")),
            "read": mock.patch.object(
                session.reader, "read_pages", return_value=(np.zeros((8, 512)), np.zeros(8, bool))
            ),
            "interrupt": mock.patch("os.pwrite", side_effect=KeyboardInterrupt),
            "registers": mock.patch.object(session, "_registers", side_effect=Unreadable("no")),
        }
        for name, patch in failing.items():
            session.__dict__.pop("registers", None)
            with patch, self.assertRaises((KtfError, KeyboardInterrupt), msg=name):
                core_write.write_core(session, self.path)
            self.assertEqual(os.listdir(self.folder), ["core"], name)
            with open(self.path, "rb") as f:
                self.assertEqual(f.read(), before, name)

    def test_refused(self) -> None:
        """Other people's files, devices, directories."""
        session = with_registers(Memory(8).session())
        with open(self.path, "w", encoding="ascii") as f:
            f.write("\x7fELF and no core")
        for path, why in (
            (self.path, "is no core"),
            ("/dev/null", "no regular file"),
            (self.folder, "directory"),
            (self.folder + "/none/core", "No such file"),
        ):
            with self.assertRaisesRegex(KtfError, why):
                core_write.write_core(session, path)
        self.assertEqual(os.listdir(self.folder), ["core"])


if __name__ == "__main__":
    unittest.main()
