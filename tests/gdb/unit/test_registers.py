# SPDX-License-Identifier: BSD-2-Clause
# Registers from QEMU's monitor, in 64-bit mode and before it, and through the notes of a core.
"""Tests of ktf.registers."""

from __future__ import annotations

import struct
import unittest

from ktf.errors import Corrupt
from ktf.x86.registers import CONTROL, GENERAL, SEGMENTS, Registers, Segment, from_note, parse

# What QEMU 7.2 prints, cut to what is read and the lines around it.
LONG = """
CPU#1
RAX=00000000fffffff7 RBX=0000000000000000 RCX=0000000000000003 RDX=0000000000000020
RSI=ffffffc034004fb0 RDI=ffffffff80238d41 RBP=ffffffc034004ff0 RSP=ffffffc034004fa8
R8 =ffffffc034004ec6 R9 =00000000000003f8 R10=0000000000000000 R11=ffffffc034004ec8
R12=ffffffff8023835f R13=000000000001f628 R14=0000000000000000 R15=0000000000000001
RIP=ffffffff80219e70 RFL=00000286 [--S--P-] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0010 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
CS =0008 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =0010 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =0010 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
FS =0000 0000000000000123 00000000 00000000
GS =0000 ffffffff802492c0 00000000 00000000
LDT=0000 0000000000000000 0000ffff 00008200 DPL=0 LDT
TR =0028 ffffffff80245230 00000067 00008900 DPL=0 TSS64-avl
GDT=     ffffffff80246c30 0000003f
IDT=     ffffffff80248000 00000fff
CR0=80010011 CR2=0000000000000000 CR3=00000000002ff000 CR4=00300820
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000 
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000d00
FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80
XMM00=0000000000000000 0000000000000000 XMM01=0000000000000000 0000000000000000
"""
REAL = """
CPU#0
EAX=00000001 EBX=00000000 ECX=00000000 EDX=00000663
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000abc
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
EFER=0000000000000000
"""


class Monitor(unittest.TestCase):
    """`info registers -a`."""

    def test_both(self) -> None:
        """One CPU of each sort, in the order in which they are told, with the monitor's line ends."""
        real, long = parse((REAL + LONG).replace("\n", "\r\n"))
        self.assertEqual((real.number, long.number), (0, 1))
        self.assertEqual(
            (real["rip"], real["rsp"], real["rax"], real["rdx"]), (0xFFF0, 0xABC, 1, 0x663)
        )
        self.assertEqual(real.segments["cs"], Segment(0xF000, 0xFFFF0000, 0xFFFF, 0x9B00))
        self.assertEqual(long["rip"], 0xFFFFFFFF80219E70)
        self.assertEqual((long["r8"], long["r15"], long["rflags"]), (0xFFFFFFC034004EC6, 1, 0x286))
        self.assertEqual(long.segments["tr"], Segment(0x28, 0xFFFFFFFF80245230, 0x67, 0x8900))
        self.assertEqual(long.segments["idt"], Segment(0, 0xFFFFFFFF80248000, 0xFFF, 0))
        self.assertEqual((long["cr0"], long["cr3"], long["cr4"]), (0x80010011, 0x2FF000, 0x300820))
        self.assertEqual((long.efer, long["fs_base"], long["ss"]), (0xD00, 0x123, 0x10))

    def test_cut(self) -> None:
        """Another text, or a cut one, is an error."""
        with self.assertRaisesRegex(Corrupt, "names no CPU"):
            parse("unknown command: 'info registers'")
        with self.assertRaisesRegex(Corrupt, "does not tell idt of CPU 1"):
            parse(LONG.replace("IDT=", "XYZ="))
        with self.assertRaisesRegex(Corrupt, "does not tell cr3 of CPU 1"):
            parse(LONG.replace("CR3=", "CRX="))


class Notes(unittest.TestCase):
    """The notes of a core."""

    def registers(self) -> Registers:
        """Each number another one."""
        general = {name: 0x1000 + i for i, name in enumerate(GENERAL)}
        segments = {n: Segment(i + 1, 0x2000 + i, 0x3000 + i, i) for i, n in enumerate(SEGMENTS)}
        control = {name: 0x4000 + i for i, name in enumerate(CONTROL)}
        return Registers(2, general, segments, control, 0xD01, 0x5000)

    def test_qemu(self) -> None:
        """There and back; cut off it is refused."""
        mine = self.registers()
        self.assertEqual(len(mine.note()), 440)
        self.assertEqual(from_note(2, mine.note(), 0xD01), mine)
        with self.assertRaisesRegex(Corrupt, "439 bytes"):
            from_note(2, mine.note()[:439], None)

    def test_status(self) -> None:
        """NT_PRSTATUS: where GDB looks for the thread's number and its registers."""
        status = self.registers().status()
        self.assertEqual(len(status), 336)
        self.assertEqual(struct.unpack_from("<I", status, 32)[0], 3)
        user = struct.unpack_from("<27Q", status, 112)
        self.assertEqual(user[0], 0x1000 + GENERAL.index("r15"))
        self.assertEqual(user[16], 0x1000 + GENERAL.index("rip"))
        self.assertEqual(user[17:21], (1, 0x1000 + GENERAL.index("rflags"), 0x1006, 6))
        self.assertEqual(user[21:27], (0x2003, 0x2004, 2, 3, 4, 5))


if __name__ == "__main__":
    unittest.main()
