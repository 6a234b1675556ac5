# SPDX-License-Identifier: BSD-2-Clause
# The kernel's stacks with their guard pages.
"""Stacks: where each lies, who has it, and what is wrong with the list."""

from __future__ import annotations

import numpy as np

from ktf.kernel.database import Database
from ktf.memory.readers import PAGE


def _is_text(name: bytes) -> bool:
    """Letters and then zeros."""
    letters, _, rest = name.partition(b"\0")
    return not rest.strip(b"\0") and all(32 <= b < 127 for b in letters)


BOOT_STACK = "boot-stack"


class Stacks:
    """The kernel's stacks, stacks[0 .. stack_count): bottom and top of each, and its name."""

    def __init__(self, db: Database) -> None:
        self.problem = ""
        kernel = db.kernel
        boot = [kernel.types.symbol(f"boot_stack_{n}") for n in ("bottom", "top")]
        self.boot = [s.va for s in boot if s is not None]  # the first CPU's, until it has its own
        place, size = kernel.types.symbol("stacks"), kernel.types.symbol("stack_count")
        if place is None or size is None:
            self.problem = "the symbols have no stacks"
            self.bottom = self.top = np.zeros(0, np.uint64)
            self.names: list[str] = []
            return
        rows = kernel.layout("struct stack_info").records(kernel.read(place.va, place.size))
        count = int.from_bytes(kernel.read(size.va, size.size), "little")
        if count > len(rows):
            self.problem = f"stack_count is {count}, but there is room for {len(rows)}"
        elif rows.data[count:].view(np.uint8).any():
            self.problem = f"stacks[] is not blank behind its {count} stacks"
        elif not all(_is_text(n.tobytes()) for n in rows["name"][:count]):
            self.problem = "stacks[]: a name holds what is no letter"
        rows = rows[: min(count, len(rows))]
        self.bottom, self.top = rows["bottom"]["v"], rows["top"]["v"]
        self.names = [bytes(n).split(b"\0")[0].decode("ascii", "replace") for n in rows["name"]]

    def __len__(self) -> int:
        return len(self.bottom)

    def holds(self, rsp: int) -> bool:
        """Whether a stack pointer lies on one of them, or on the boot stack: its top is an empty stack's."""
        return bool(self.name_at(rsp))

    def name_at(self, rsp: int) -> str:
        """Of the stack that it lies on; "" if that is none."""
        if len(self.boot) == 2 and self.boot[0] < rsp <= self.boot[1]:
            return BOOT_STACK
        on = np.flatnonzero((self.bottom < np.uint64(rsp)) & (np.uint64(rsp) <= self.top))
        return self.names[int(on[0])] if len(on) else ""

    def top_of(self, name: str) -> int:
        """Of the stack of that name."""
        return int(self.top[self.names.index(name)])

    @staticmethod
    def is_of(name: str, number: int) -> bool:
        """Whether it is one of that CPU's; the boot stack is the first one's."""
        return name == BOOT_STACK and number == 0 or name.split(" ")[0] == f"cpu{number}"

    def sound(self, i: int) -> bool:
        """True if stack i is whole pages of the kernel's half, above the one before and its guards."""
        bottom, top = int(self.bottom[i]), int(self.top[i])
        good = bottom % PAGE == 0 and top % PAGE == 0 and 1 << 63 <= bottom < top < (1 << 64) - PAGE
        return good and (i == 0 or bottom == int(self.top[i - 1]) + 2 * PAGE)
