# SPDX-License-Identifier: BSD-2-Clause
# Physical memory that is a numpy array, and page tables built in it: guests for tests without a guest.
"""Memory: RAM as an array with a page-table builder. Plain: a command's context without GDB."""

from __future__ import annotations

from typing import Callable

import numpy as np

from array_reader import ArrayReader
from ktf.kernel.context import Breakpoint
from ktf.errors import KtfError
from ktf.x86.paging import NX, PS, P, RW, US, Rules
from ktf.memory.readers import RamMap, RamRange
from ktf.kernel.session import Session
from ktf.x86.cpu import Cpu

PAGE = 4096


class Memory:
    """size bytes of RAM at start; tables are taken from the page numbers first_table on."""

    def __init__(self, pages: int, start: int = 0, levels: int = 4) -> None:
        self.words = np.zeros((pages, 512), np.uint64)
        self.base = start // PAGE
        self.levels = levels
        self.next = self.base + 1
        ram = RamMap([RamRange(start, start + pages * PAGE, "ram")])
        self.reader = ArrayReader(ram, [self.words.view(np.uint8).reshape(-1)])
        self.root = self.table()

    def table(self) -> int:
        """A new, empty table; its frame number."""
        mfn = self.next
        self.next += 1
        return mfn

    def entries(self, mfn: int) -> np.ndarray:
        """A page's words, to be written."""
        return self.words[mfn - self.base]

    def map(
        self, va: int, pa: int, flags: int = P | RW, level: int = 1, upper: int = P | RW | US
    ) -> None:
        """Maps one page of that level, making the tables above with the flags of upper."""
        table = self.root
        for at in range(self.levels, level, -1):
            entries = self.entries(table)
            index = va >> (3 + 9 * at) & 511
            if not entries[index] & np.uint64(P):
                entries[index] = self.table() << 12 | upper
            table = int(entries[index]) >> 12 & 0xFF_FFFF_FFFF
        large = PS if level > 1 else 0
        self.entries(table)[va >> (3 + 9 * level) & 511] = pa | flags | large

    def rules(self, **changes: int) -> Rules:
        """How these tables are to be read."""
        return Rules(**{"levels": self.levels, "phys_bits": 40, **changes})  # type: ignore[arg-type]

    def session(self, **registers: int) -> Session:
        """One CPU that uses these tables."""
        values = {"cr0": 0x80010011, "cr2": 0, "cr4": 0x20 | (self.levels == 5) << 12}
        cpu = Cpu(0, **{**values, "cr3": self.root << 12, "efer": 0xD00, **registers})
        return Session([cpu], 0, self.reader, phys_bits=40)


def naive(memory: Memory, nxe: bool = True) -> list[tuple[int, int, int, int]]:
    """What is mapped, by the plainest walk there is: (va, entry, level, perm) sorted by va."""
    found = []

    def visit(mfn: int, level: int, va: int, perm: int) -> None:
        if not memory.base <= mfn < memory.base + len(memory.words):
            return
        for index, entry in enumerate(map(int, memory.entries(mfn))):
            if not entry & P:
                continue
            here = va | index << (3 + 9 * level)
            mine = (entry >> 1 & 3) | (0 if nxe and entry & NX else 4)
            if level == 1 or (level <= 3 and entry & PS):
                bits = 12 + 9 * memory.levels
                if here >> (bits - 1):
                    here |= (1 << 64) - (1 << bits)
                found.append((here, entry, level, perm & mine))
            else:
                visit(entry >> 12 & 0xFF_FFFF_FFFF, level - 1, here, perm & mine)

    visit(memory.root, memory.levels, 0, 7)
    return sorted(found)


class Plain:
    """command.Context: expressions are Python's, what is printed is kept."""

    def __init__(self, session: Session | None) -> None:
        self.guest = session
        self.printed: list[str] = []
        self.variables: dict[str, int] = {}

    def session(self) -> Session:
        """The guest, or the error that a command gets without one."""
        if self.guest is None:
            raise KtfError("no guest")
        return self.guest

    def evaluate(self, expression: str) -> int:
        """Numbers only."""
        try:
            return int(expression, 0) & (1 << 64) - 1
        except ValueError as e:
            raise KtfError(f'No symbol "{expression}" in current context.') from e

    def write(self, text: str) -> None:
        """Keeps it."""
        self.printed.append(text)

    def reader_story(self) -> list[str]:
        """None were."""
        return []

    def set_variable(self, name: str, value: int) -> None:
        """Keeps it."""
        self.variables[name] = value

    def break_at(self, where: str, asked: Callable[[], bool]) -> Breakpoint:
        """Can't."""
        raise KtfError(f"{where}: no such place")

    def quit(self, status: int) -> None:
        """Does not."""

    def source(self, va: int) -> str:
        """Knows nothing."""
        return ""

    def instruction(self, va: int, code: bytes = b"") -> tuple[str, int]:
        """None."""
        return "", 0

    def unwound(self, cpu: int) -> list[tuple[int, int]]:
        """Nothing."""
        return []

    def vm_status(self) -> str:
        """Says nothing."""
        return ""

    def fault_log(self) -> str:
        """There is none."""
        return ""

    def stop_kind(self) -> str:
        """Nobody stopped it."""
        return ""

    def thread_of(self, cpu: int) -> int | None:
        """As QEMU's stub numbers them."""
        return cpu + 1

    def select_once(self, cpu: int) -> int | None:
        """There is nothing to select."""
        return None

    @property
    def text(self) -> str:
        """All that was printed."""
        return "".join(self.printed)
