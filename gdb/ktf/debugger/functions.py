# SPDX-License-Identifier: BSD-2-Clause
# Convenience functions for expressions and breakpoint conditions: $ktf_frame(x), $ktf_paddr(va), ...
"""Functions without gdb: a name, a docstring (its help), call(); target.py registers them.

They take and return 64-bit numbers. A KtfError becomes an error of the expression.
"""

from __future__ import annotations

import numpy as np

from ktf.errors import UsageError
from ktf.kernel.context import Context
from ktf.kernel.database import Database
from ktf.rules.examine import examine
from ktf.rules.table import RULES
from ktf.show.frame import locate
from ktf.x86.trace import trace

NOWHERE = (1 << 64) - 1


class Function:
    """A function. pointer is the struct that its result points to, "" for a plain number."""

    name = ""
    pointer = ""

    def call(self, context: Context, *values: int) -> int:
        """Its value."""
        raise NotImplementedError


def _one(function: Function, values: tuple[int, ...]) -> int:
    """The only argument."""
    if len(values) != 1:
        raise _usage(function)
    return values[0]


def _usage(function: Function) -> UsageError:
    return UsageError(f"wrong number of arguments; see `help function {function.name}`")


class FrameFunction(Function):
    """The descriptor of the frame that holds a page, as a frame_t *; 0 if none does.

    $ktf_frame(X): X is taken as ktf-frame takes it: a kernel address or pointer, a physical address
    that is a multiple of 4096, or a frame number.

    Example:
      (gdb) print $ktf_frame(0x256)->refcount
      $1 = 1

    Errors: an address that is not mapped, no guest, a memory manager that is not set up yet."""

    name = "ktf_frame"
    pointer = "frame_t"

    def call(self, context: Context, *values: int) -> int:
        """Address of the descriptor."""
        db = Database(context.session())
        place = locate(db, _one(self, values))
        index = int(db.frames.find(np.array([place.mfn]))[0])
        return db.pool("ARENA_FRAMES").va(index) if index else 0


class PaddrFunction(Function):
    """The physical address that a virtual one is mapped to by the selected CPU's CR3; -1 if it is not.

    Example:
      (gdb) print/x $ktf_paddr(ktf_ready)
      $1 = 0x21cf90
      (gdb) break vput if $ktf_paddr(va.v) == 0xfee00000
      Breakpoint 2 at 0xffffffff80231d80: file mm/vmap_fast.c, line 175."""

    name = "ktf_paddr"

    def call(self, context: Context, *values: int) -> int:
        """Physical address."""
        session = context.session()
        session.need_paging()
        found = trace(session.reader, session.cpu.root, session.rules, _one(self, values))
        return NOWHERE if found.pa is None else found.pa


class MapsFunction(Function):
    """How many mapping records the frame that holds a page has.

    $ktf_maps_of(X): X as for $ktf_frame. 0 if there is no such frame.

    Example:
      (gdb) print $ktf_maps_of(&mm)
      $1 = 1
      (gdb) break put_frame if $ktf_maps_of(frame) > 0
      Breakpoint 2 at 0xffffffff802271a0: file mm/frame.c, line 224."""

    name = "ktf_maps_of"

    def call(self, context: Context, *values: int) -> int:
        """Number of records."""
        db = Database(context.session())
        place = locate(db, _one(self, values))
        index = int(db.frames.find(np.array([place.mfn]))[0])
        return len(db.mappings.of_frame(index)) if index else 0


class OkFunction(Function):
    """1 if ktf-pt-check finds no violation at all, else 0.

    What is in progress under a lock does not count. A condition that can't be judged (no memory manager yet,
    memory that can't be read) stops there and says why.

    Example:
      (gdb) print $ktf_ok()
      $1 = 1
      (gdb) break vunmap if !$ktf_ok()
      Breakpoint 2 at 0xffffffff80232050: file mm/vmap_fast.c, line 180."""

    name = "ktf_ok"

    def call(self, context: Context, *values: int) -> int:
        """1 or 0."""
        if values:
            raise _usage(self)
        return int(examine(context.session(), list(RULES))[0].total() == 0)


FUNCTIONS: list[Function] = [FrameFunction(), PaddrFunction(), MapsFunction(), OkFunction()]
