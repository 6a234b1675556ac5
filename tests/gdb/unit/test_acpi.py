# SPDX-License-Identifier: BSD-2-Clause
# ktf-acpi on made-up memory: root pointers of all sorts and places, damaged tables, random damage.
"""Tests of ktf.acpi, ktf.acpi_root and ktf.commands_acpi."""

from __future__ import annotations

import json
import random
import struct
import unittest

import numpy as np

from fake_guest import Memory, Plain
from ktf.acpi import tables as acpi
from ktf.acpi import root as acpi_root
from ktf.acpi.tables import Tables, read_root
from ktf.commands.command import internal_error
from ktf.commands.acpi import AcpiCommand
from ktf.errors import Corrupt, KtfError, Unreadable
from ktf.memory.readers import RamMap, RamRange, StubReader

PAGES = 512  # 2 MiB from address 0 on
END = PAGES * 4096
RSDP, RSDT, XSDT = 0xE1000, 0x180000, 0x181000
FACP, FACS, DSDT, SSDT = 0x182010, 0x183000, 0x184FF0, 0x188001
EFI_GUID = bytes.fromhex("71e86888f1e4d311bc220080c73c8881")


def summed(data: bytes, place: int) -> bytes:
    """The bytes with the one at that place so that their sum is 0."""
    return data[:place] + bytes([(data[place] - sum(data)) & 0xFF]) + data[place + 1 :]


def table(signature: bytes, body: bytes = b"", revision: int = 1) -> bytes:
    """A good table."""
    length = acpi.HEADER.size + len(body)
    head = acpi.HEADER.pack(signature, length, revision, 0, b"OEM  \0", b"TABLE", 7, b"ME  ", 9)
    return summed(head + body, 9)


def rsdp(revision: int = 2, rsdt: int = RSDT, xsdt: int = XSDT) -> bytes:
    """A good root pointer."""
    old = struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"OEMID ", revision, rsdt)
    old = summed(old, 8)
    return old if revision < 2 else summed(old + struct.pack("<IQB3x", 36, xsdt, 0), 32)


def fadt(facs: int = FACS, dsdt: int = DSDT, xfacs: int = 0, xdsdt: int = 0) -> bytes:
    """A FADT that names these."""
    body = struct.pack("<II88xQQ", facs, dsdt, xfacs, xdsdt) + bytes(96)
    return table(b"FACP", body, 3)


class Firmware:
    """Memory with a good set of tables, to be damaged."""

    def __init__(self, revision: int = 2) -> None:
        self.memory = Memory(PAGES)
        self.bytes = self.memory.words.view(np.uint8).reshape(-1)
        self.put(RSDP, rsdp(revision))
        self.roots(FACP, SSDT, SSDT + 0x2000)
        self.put(FACP, fadt())
        self.put(FACS, struct.pack("<4sI", b"FACS", 64) + bytes(24) + b"\2" + bytes(31))
        self.put(DSDT, table(b"DSDT", bytes(range(200))))
        for i in range(2):
            self.put(SSDT + i * 0x2000, table(b"SSDT", bytes(3 + i)))

    def put(self, at: int, data: bytes) -> None:
        """Writes bytes."""
        self.bytes[at : at + len(data)] = np.frombuffer(data, np.uint8)

    def roots(self, *entries: int) -> None:
        """RSDT and XSDT with these entries."""
        self.put(RSDT, table(b"RSDT", struct.pack(f"<{len(entries)}I", *entries)))
        self.put(XSDT, table(b"XSDT", struct.pack(f"<{len(entries)}Q", *entries)))

    def tables(self) -> Tables:
        """What is found."""
        return Tables(self.memory.reader, read_root(self.memory.reader, RSDP))

    def problem(self) -> str:
        """The only problem."""
        problems = self.tables().problems
        assert len(problems) == 1, problems
        return problems[0]

    def said(self, line: str = "") -> str:
        """What the command prints, or its error."""
        context = Plain(self.memory.session())
        try:
            AcpiCommand().invoke(context, line)
        except KtfError as e:
            return f"error: {e}"
        return context.text


class Good(unittest.TestCase):
    """All is well."""

    def test_names(self) -> None:
        for revision, root in ((2, "XSDT RSDT"), (0, "RSDT")):
            found = Firmware(revision).tables()
            names = [t.name for t in found.tables]
            self.assertEqual(names, f"{root} FACP FACS DSDT SSDT:1 SSDT:2".split())
            self.assertEqual(found.problems, [])
            sums = {t.name: t.checksum for t in found.tables}
            self.assertEqual(sums.pop("FACS"), "none")
            self.assertEqual(set(sums.values()), {"good"})

    def test_longer_addresses_win(self) -> None:
        firmware = Firmware()
        firmware.put(FACP, fadt(xfacs=FACS, xdsdt=DSDT))
        self.assertEqual(firmware.tables().problems, [])
        firmware.put(0x190000, table(b"DSDT", b"other"))
        firmware.put(FACP, fadt(xdsdt=0x190000))
        self.assertIn("two addresses of the DSDT, 0x184ff0 and 0x190000", firmware.problem())
        self.assertEqual([t.pa for t in firmware.tables().tables if t.name == "DSDT"], [0x190000])

    def test_old_fadt(self) -> None:
        firmware = Firmware(0)
        firmware.put(FACP, table(b"FACP", struct.pack("<II", FACS, DSDT)))
        self.assertEqual(firmware.tables().problems, [])

    def test_json(self) -> None:
        found = json.loads(Firmware().said("--json"))
        self.assertEqual([found["ok"], len(found["tables"]), found["problems"]], [True, 7, []])
        self.assertEqual(found["rsdp"]["found"], "the BIOS's memory")
        self.assertEqual(found["tables"][0]["oem"], "OEM")


class Damaged(unittest.TestCase):
    """Each fault is reported with its place; sound tables are still shown."""

    def check(self, firmware: Firmware, words: str, count: int = 7) -> None:
        """One problem that says so, and that many tables."""
        self.assertIn(words, firmware.problem())
        self.assertEqual(len(firmware.tables().tables), count)
        self.assertIn(f"! {firmware.problem()}\n", firmware.said())
        self.assertTrue(firmware.said().endswith(": 1 problem\n"), firmware.said())

    def test_checksum(self) -> None:
        firmware = Firmware()
        firmware.bytes[SSDT + 20] ^= 4
        self.check(firmware, f"SSDT at {SSDT:#x} (XSDT entry 1): checksum wrong: the sum is 0x")
        self.assertIn("checksum wrong", firmware.said("SSDT"))
        self.assertIn("checksum wrong", firmware.said(f"{SSDT:#x}"))

    def test_length(self) -> None:
        for length, words in (
            (0, "its length is 0: tables have 36 to"),
            (35, "its length is 35: tables have 36 to"),
            (0xFFFFFFFF, "its length is 4294967295: tables have"),
            (
                0x800000,
                "its length is 8388608: physical address 0x200000 is outside the guest's RAM",
            ),
        ):
            firmware = Firmware()
            firmware.put(SSDT + 4, struct.pack("<I", length))
            self.check(firmware, words)
            self.assertIn("can't be dumped", firmware.said("SSDT:1 --dump build/never"))
            self.assertIn("checksum ?", firmware.said("SSDT:1"))

    def test_outside(self) -> None:
        for pa in (END, 0xFEE00000, 1 << 52, (1 << 64) - 1, END - 2):
            firmware = Firmware()
            firmware.put(XSDT, table(b"XSDT", struct.pack("<QQQ", FACP, pa, SSDT)))
            self.assertIn("XSDT entry 1", firmware.problem())
            self.assertIn("is outside the guest's RAM", firmware.problem())
            names = [t.name for t in firmware.tables().tables]
            self.assertEqual(names, "XSDT RSDT FACP FACS DSDT SSDT".split())

    def test_loops(self) -> None:
        for pa, words in (
            (XSDT, f"XSDT entry 1 leads to {XSDT:#x}, as the RSDP does"),
            (FACP, f"XSDT entry 1 leads to {FACP:#x}, as XSDT entry 0 does"),
            (DSDT, f"XSDT entry 1 leads to {DSDT:#x}, as FACP does"),
            (0, "XSDT entry 1 is 0"),
        ):
            firmware = Firmware()
            firmware.put(XSDT, table(b"XSDT", struct.pack("<QQQ", FACP, pa, SSDT)))
            self.check(firmware, words, 6)
        firmware = Firmware()
        firmware.put(FACP, fadt(facs=0, dsdt=FACP))
        self.check(firmware, f"FACP leads to {FACP:#x}, as XSDT entry 0 does", 5)

    def test_roots(self) -> None:
        firmware = Firmware()
        firmware.put(XSDT, b"XXXX")
        found = firmware.tables()
        self.assertIn(f"XXXX at {XSDT:#x} (the RSDP): XXXX stands there, not XSDT", found.problems)
        self.assertEqual(len(found.tables), 7)  # by the RSDT
        firmware.put(RSDT + 4, struct.pack("<I", 1 << 31))
        self.assertEqual(len(firmware.tables().tables), 2)
        firmware.put(RSDP, rsdp(0, 0))
        self.assertIn("names neither RSDT nor XSDT", firmware.problem())
        firmware = Firmware()
        firmware.put(XSDT, table(b"XSDT", struct.pack("<QQQ", FACP, SSDT, SSDT + 0x2000) + b"rest"))
        self.check(firmware, "4 bytes behind its entries")
        firmware.roots(SSDT)
        self.assertIn("no FACP, so no DSDT", firmware.problem())

    def test_fadt(self) -> None:
        firmware = Firmware()
        firmware.put(FACP, fadt(facs=SSDT, dsdt=0))
        found = firmware.tables().problems
        self.assertIn(f"SSDT at {SSDT:#x} (FACP): SSDT stands there, not FACS", found)
        self.assertIn(f"FACP at {FACP:#x}: it names no DSDT", found)

    def test_no_signature(self) -> None:
        firmware = Firmware()
        firmware.put(SSDT, b"\0\1\2\3")
        self.check(firmware, "begins with 00 01 02 03, which is no signature")
        self.assertIn("error: no table at 0x199000: it begins with", firmware.said("0x199000"))
        self.assertIn("error: no table XYZW; there are: XSDT, RSDT, FACP", firmware.said("XYZW"))
        self.assertIn("error: no table SSDT:3; there are: XSDT", firmware.said("SSDT:3"))

    def test_many(self) -> None:
        """More entries than are followed, and more bytes than are read."""
        firmware = Firmware()
        entries = [0x100000 + 40 * i for i in range(2000)]
        for pa in entries:
            firmware.put(pa, table(b"TEST", b"1234"))
        firmware.put(XSDT, table(b"XSDT", struct.pack("<2000Q", *entries)))
        found = firmware.tables()
        self.assertEqual(len(found.tables), acpi.ENTRIES_MAX + 2)
        self.assertIn("2000 entries, only 1024 are followed", found.problems[0])
        for pa in entries:
            firmware.put(pa + 4, struct.pack("<I", 0x80000))
        found = firmware.tables()
        self.assertLess(sum(len(t.data) for t in found.tables), acpi.TOTAL_MAX + 1)
        self.assertIn("not read: the tables before it have", "".join(found.problems))


class RootPointer(unittest.TestCase):
    """Where it is found, what is left aside."""

    def found(self, firmware: Firmware) -> tuple[int, str, list[str]]:
        """Address, place, notes."""
        root, notes = acpi_root.find_root(firmware.memory.session())
        return root.pa, root.where, notes

    def test_places(self) -> None:
        firmware = Firmware()
        self.assertEqual(self.found(firmware), (RSDP, "the BIOS's memory", []))
        firmware.put(0x40E, struct.pack("<H", 0x9FC0))
        firmware.put(0x9FC20, rsdp())
        self.assertEqual(self.found(firmware)[:2], (0x9FC20, "the EBDA"))
        firmware.put(0x9FC20, bytes(8))
        firmware.put(0xE0010, rsdp(0))
        self.assertEqual(self.found(firmware)[:2], (0xE0010, "the BIOS's memory"))

    def test_search(self) -> None:
        firmware = Firmware()
        firmware.put(RSDP, bytes(8))
        firmware.put(0x1A0004, rsdp())  # on no border of 16
        self.assertEqual(self.found(firmware)[:2], (0x1A0004, "memory, searched"))
        firmware.put(0x1B0004, rsdp(2, 0, 0x1C0000))  # left behind: no table hangs on it
        self.assertEqual(self.found(firmware)[:2], (0x1A0004, "memory, searched"))
        firmware.put(0x1B1000, rsdp())
        firmware.put(0x120008, EFI_GUID + struct.pack("<Q", 0x1B1000))
        self.assertEqual(self.found(firmware)[:2], (0x1B1000, "EFI's configuration table"))
        firmware.put(0x120008 + 16, struct.pack("<Q", 0xFEE00000))
        firmware.put(END - 16, EFI_GUID)  # its address would stand behind the end
        self.assertEqual(self.found(firmware)[1], "memory, searched")

    def test_borders(self) -> None:
        """Memory is searched in pieces: what lies over a border is found."""
        border = END - 256 * 4096
        firmware = Firmware()
        firmware.put(RSDP, bytes(8))
        firmware.put(border - 4, rsdp())
        self.assertEqual(self.found(firmware)[:2], (border - 4, "memory, searched"))
        for before in (8, 16):
            firmware = Firmware()
            firmware.put(0x1B1000, rsdp())
            firmware.put(RSDP, bytes(8))
            firmware.put(border - before, EFI_GUID + struct.pack("<Q", 0x1B1000))
            self.assertEqual(self.found(firmware)[1], "EFI's configuration table")

    def test_bad(self) -> None:
        firmware = Firmware()
        firmware.put(RSDP + 9, b"?")
        text = firmware.said()
        self.assertIn("error: no RSDP with a good checksum", text)
        self.assertIn(f"RSDP at {RSDP:#x} (the BIOS's memory): checksum wrong", text)
        shown = firmware.said(f"--rsdp {RSDP:#x}")
        self.assertIn(f"! RSDP at {RSDP:#x}: checksum wrong", shown)
        self.assertIn("SSDT:2", shown)
        self.assertIn("DSDT at", firmware.said(f"{DSDT:#x}"))  # an address needs no root pointer
        for length in (0, 35, 5000, 0xFFFFFFFF):
            firmware.put(RSDP, rsdp()[:20] + struct.pack("<IQB3x", length, XSDT, 0))
            self.assertIn(f"length {length}, should be 36", firmware.said())
        with self.assertRaises(Corrupt):
            read_root(firmware.memory.reader, DSDT)
        with self.assertRaises(Unreadable):
            read_root(firmware.memory.reader, END)
        firmware.put(END - 20, rsdp()[:20])
        self.assertIn("cut: physical address 0x200000", firmware.said(f"--rsdp {END - 20:#x}"))

    def test_none(self) -> None:
        firmware = Firmware()
        firmware.bytes[:] = 0
        self.assertIn("error: no RSDP with a good checksum: not in the EBDA", firmware.said())
        firmware.bytes[0xE0000:0x100000] = np.frombuffer(b"RSD PTR 12345678" * 0x2000, np.uint8)
        self.assertLess(len(firmware.said()), 3000)


class Random(unittest.TestCase):
    """Any bytes at all: an answer or one line, and nothing outside RAM is asked for."""

    def test_damage(self) -> None:
        chosen = random.Random(5)
        places = [
            (RSDP, 36),
            (XSDT, 60),
            (RSDT, 48),
            (FACP, 244),
            (FACS, 64),
            (DSDT, 40),
            (SSDT, 40),
        ]
        commands = ["", "--json", "DSDT", "SSDT:2 --all", "RSDP", "XSDT", "FACP", hex(DSDT)]
        good = Firmware()
        ram = good.memory.reader.ram
        asked: list[tuple[int, int]] = []

        def fetch(blocks: list[tuple[int, int]]) -> list[bytes]:
            asked.extend(blocks)
            return [firmware.bytes[pa : pa + size].tobytes() for pa, size in blocks]

        for _ in range(400):
            firmware = Firmware(chosen.choice((0, 2)))
            firmware.memory.reader = StubReader(ram, fetch)  # type: ignore[assignment]
            for _ in range(chosen.randrange(1, 6)):
                at, size = chosen.choice(places)
                width = chosen.choice((1, 2, 4, 8))
                value = chosen.choice(
                    (0, 1, END - 4, XSDT, FACP, chosen.getrandbits(64), (1 << 64) - 1)
                )
                data = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
                firmware.put(at + chosen.randrange(size), data)
            line = chosen.choice(commands)
            context = Plain(firmware.memory.session())
            try:
                AcpiCommand().run(context, AcpiCommand().parse(line))
            except KtfError as e:
                self.assertNotIn("\n", str(e))
            except Exception as e:
                self.fail(f"{line}: {internal_error(e)}")
        self.assertGreater(len(asked), 1000)
        self.assertTrue(all(0 <= pa and pa + size <= END for pa, size in asked))

    def test_holes(self) -> None:
        """RAM in pieces: a table over the border of two that touch is whole, one that leads into a hole is not."""
        data = np.zeros(END, np.uint8)
        firmware = Firmware()
        data[:] = firmware.bytes
        ram = RamMap([RamRange(0, 0x185000, "a"), RamRange(0x185000, 0x188000, "b")])
        reader = StubReader(ram, lambda blocks: [data[a : a + n].tobytes() for a, n in blocks])
        found = Tables(reader, read_root(reader, RSDP))
        self.assertEqual(found.tables[-1].name, "DSDT")  # over the border
        self.assertEqual(found.tables[-1].checksum, "good")
        self.assertEqual(len(found.problems), 2)


if __name__ == "__main__":
    unittest.main()
