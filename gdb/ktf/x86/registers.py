# SPDX-License-Identifier: BSD-2-Clause
# All registers of a CPU that a kernel is built on: from QEMU's monitor, from a core's note, and to such notes.
"""Registers(number, general, segments, ...): one CPU at one stop; pure.

    parse(text)                       # of `info registers -a`: a list
    from_note(number, bytes, efer)    # of a note named QEMU
    registers.note()                  # that note
    registers.status()                # the contents of a note NT_PRSTATUS, which plain GDB reads
    registers.segments["idt"].base    # "cs ds es fs gs ss ldt tr gdt idt"
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ktf.errors import Corrupt

GENERAL = "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()
SEGMENTS = "cs ds es fs gs ss ldt tr gdt idt".split()
CONTROL = "cr0 cr1 cr2 cr3 cr4".split()
# QEMU's note of one CPU (target/i386/arch_dump.c): version, size, then all of the above, kernel_gs_base.
NOTE = struct.Struct(f"<II{len(GENERAL)}Q" + "IIIIQ" * len(SEGMENTS) + f"{len(CONTROL)}QQ")
NOTE_VERSION = 1
# struct user_regs_struct, as Linux and GDB have it.
USER = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi - rip cs rflags rsp ss "
    "fs_base gs_base ds es fs gs"
).split()


@dataclass(frozen=True)
class Segment:
    """A segment register's or a table's: flags are bits 8 to 23 of the descriptor's second word."""

    selector: int
    base: int
    limit: int
    flags: int


@dataclass(frozen=True)
class Registers:
    """One CPU. efer and halted (in HLT, until an interrupt comes) are None where nobody knows them."""

    number: int
    general: dict[str, int]
    segments: dict[str, Segment]
    control: dict[str, int]
    efer: int | None
    kernel_gs_base: int = 0
    halted: bool | None = None

    def __getitem__(self, name: str) -> int:
        """By name: "rip", "cr3", "cs" (its selector), "fs_base"."""
        if name in self.general:
            return self.general[name]
        if name in self.control:
            return self.control[name]
        base = name.endswith("_base")
        segment = self.segments[name.removesuffix("_base")]
        return segment.base if base else segment.selector

    def note(self) -> bytes:
        """The contents of a note named QEMU."""
        values = [self.general[name] for name in GENERAL]
        for name in SEGMENTS:
            s = self.segments[name]
            values += [s.selector, s.limit, s.flags, 0, s.base]
        values += [self.control[name] for name in CONTROL]
        return NOTE.pack(NOTE_VERSION, NOTE.size, *values, self.kernel_gs_base)

    def status(self) -> bytes:
        """The contents of a note NT_PRSTATUS: thread number + 1, as QEMU's stub numbers them."""
        user = [0 if name == "-" else self[name] for name in USER]
        head = struct.pack("<32xI76x", self.number + 1)
        return head + struct.pack(f"<{len(user)}Q", *user) + bytes(8)


def from_note(number: int, note: bytes, efer: int | None) -> Registers:
    """What a note named QEMU says; Corrupt if it is too short."""
    if len(note) < NOTE.size:
        raise Corrupt(f"the note of CPU {number} has {len(note)} bytes, not {NOTE.size}")
    values = list(NOTE.unpack_from(note))[2:]
    general = dict(zip(GENERAL, values))
    rest = values[len(GENERAL) :]
    segments = {}
    for i, name in enumerate(SEGMENTS):
        selector, limit, flags, _, base = rest[5 * i : 5 * i + 5]
        segments[name] = Segment(selector, base, limit, flags)
    control = dict(zip(CONTROL, rest[5 * len(SEGMENTS) :]))
    return Registers(number, general, segments, control, efer, rest[-1])


# --- what the monitor prints -------------------------------------------------------------------------

_CPU = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)
_VALUE = re.compile(r"\b([A-Z][A-Z0-9]{1,3}) ?=([0-9a-f]{8,16})\b")
_SEGMENT = re.compile(
    r"^([CDEFGS]S|LDT|TR) ?=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)", re.M
)
_HALTED = re.compile(r"\bHLT=([01])\b")
_TABLE = re.compile(r"^(GDT|IDT)= +([0-9a-f]+) ([0-9a-f]+)", re.MULTILINE)


def parse(text: str) -> list[Registers]:
    """Of `info registers -a`; Corrupt if it is not what QEMU prints for an x86 CPU."""
    return [_one(number, part) for number, part in _parts(text.replace("\r", ""))]


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Each CPU's number and what follows it."""
    heads = list(_CPU.finditer(text))
    if not heads:
        raise Corrupt("the monitor's `info registers -a` names no CPU")
    for head, after in zip(heads, [*heads[1:], None]):
        yield int(head[1]), text[head.end() : after.start() if after else len(text)]


def _one(number: int, text: str) -> Registers:
    values = {name.lower(): int(digits, 16) for name, digits in _VALUE.findall(text)}
    for name in GENERAL[:8]:  # EAX, ... while the CPU runs other code than of 64 bits
        values.setdefault(name, values.get("e" + name[1:], 0))
    values["rip"] = values.get("rip", values.get("eip", 0))
    values["rflags"] = values.get("rfl", values.get("efl", 0))
    segments = {
        name.lower(): Segment(int(selector, 16), int(base, 16), int(limit, 16), int(flags, 16))
        for name, selector, base, limit, flags in _SEGMENT.findall(text)
    }
    for name, base, limit in _TABLE.findall(text):
        segments[name.lower()] = Segment(0, int(base, 16), int(limit, 16), 0)
    missing = [n for n in SEGMENTS if n not in segments]
    missing += [n for n in CONTROL if n not in values and n != "cr1"]
    if missing:
        raise Corrupt(f"the monitor does not tell {' '.join(missing)} of CPU {number}")
    general = {name: values.get(name, 0) for name in GENERAL}
    control = {name: values.get(name, 0) for name in CONTROL}
    hlt = _HALTED.search(text)
    halted = hlt[1] == "1" if hlt else None
    return Registers(number, general, segments, control, values.get("efer"), halted=halted)
