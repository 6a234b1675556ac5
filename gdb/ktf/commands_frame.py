# SPDX-License-Identifier: BSD-2-Clause
# ktf-frame: frames by order and kind; one frame with all its mappings.
"""The command ktf-frame."""

from __future__ import annotations

import numpy as np

from .command import JSON, Args, Command, Context, Option, json_line
from .database import Database
from .errors import KtfError, UsageError
from .frame import Block, Place, Summary, free_blocks, locate
from .rules import RULES, check
from .rules_smp import COVERED, held

CHECKED = ("A2", "A3", "A4")  # what the tables are made of
HOWS = ("mfn", "pa", "va")


class FrameCommand(Command):
    """The guest's frames: a table of all, or everything about one.

    ktf-frame [--free] [--json]
    ktf-frame WHERE [--mfn | --pa | --va] [--json]

    Without WHERE: how many blocks of each order and kind there are, free and used.
    With WHERE (an expression): the block that holds it: its pages, kind, counts, region of the
    boot's memory map, every mapping (address space, address, rights, memory type, page size, refs,
    which part), and why it does not merge with its buddy. For a page table also its level, slot,
    parent and where it is reached.

      --mfn, --pa, --va   WHERE is a frame number, a physical, a virtual address (of the kernel; in
                          the lower half: of the space in the selected CPU's CR3)
                          Without one of these the value decides: a pointer to a frame_t or mapping_t,
                          a kernel address, else a physical address if it is a multiple of 4096, a
                          frame number if there is such a frame. What was taken is told.
      --free              a line for each free block, as the guest's mm_print_free() prints them
      --json              one object on one line

    Example:
      (gdb) ktf-frame 0x256
      0x256 taken as frame number (--pa or --va if it is not)
      frame 0x256, order 0 (4K), available, in use
        pages       mfn 0x256 to 0x256, pa 0x256000 to 0x256fff
        counts      refcount 1, mapcount 1
        descriptor  0xffffff8000006ac0 (index 0x356)
        memory map  region 8, available, mfn 0x24c to 0x7fdf
        mappings    1, refs together 1
          space      va                 perm type page       refs part
          kernel     0xffffffc034002000 rw-- WB   4K            1 whole
        merging     it is in use; its buddy is in use: 0x257 order 0 available refcount 1 mapcount 1

    Errors: no guest, a running guest, no symbols, a memory manager that is not set up yet, an
    address that is not mapped, a page that is in no frame."""

    name = "ktf-frame"
    options = (Option("--mfn"), Option("--pa"), Option("--va"), Option("--free"), JSON)

    def run(self, context: Context, args: Args) -> None:
        """Either form."""
        hows = [how for how in HOWS if args.has(f"--{how}")]
        if len(hows) > 1:
            raise UsageError("only one of --mfn, --pa and --va; see `help ktf-frame`")
        if args.rest and args.has("--free"):
            raise UsageError("--free goes without WHERE; see `help ktf-frame`")
        if hows and not args.rest:
            raise UsageError(f"--{hows[0]} needs WHERE; see `help ktf-frame`")
        db = Database(context.session())
        if not args.rest:
            self._all(context, args, db)
            return
        expression = " ".join(args.rest)
        value = context.evaluate(expression)
        place = locate(db, value, hows[0] if hows else "")
        self._one(context, args, db, expression, place)

    def _all(self, context: Context, args: Args, db: Database) -> None:
        summary = Summary(db)
        if args.has("--json"):
            free = [{"order": o, "mfn": f"{m:#x}"} for o, m in free_blocks(db)]
            orders, kinds = summary.orders(), summary.kinds()
            line = json_line(self.name, orders=orders, kinds=kinds, free=free, notes=notes(db))
            context.write(line)
            return
        if args.has("--free"):
            lines = [f"free order {order} mfn {mfn:#x}" for order, mfn in free_blocks(db)]
        else:
            lines = list(summary.lines())
        self._write(context, lines, db)

    def _one(self, context: Context, args: Args, db: Database, text: str, place: Place) -> None:
        index = int(db.frames.find(np.array([place.mfn]))[0])
        if not index:
            raise KtfError(f"{text}, taken as {place.taken}: mfn {place.mfn:#x} is in no frame")
        block = Block(db, index)
        if args.has("--json"):
            values, taken = block.values(), place.taken
            context.write(json_line(self.name, frame=values, taken=taken, notes=notes(db)))
            return
        head = f"{text} taken as {place.taken}"
        if place.mfn != block.mfn:
            head += f"; page {place.mfn - block.mfn:#x} of the block"
        self._write(context, [head, *block.lines()], db)

    def _write(self, context: Context, lines: list[str], db: Database) -> None:
        lines += [f"! {note}" for note in notes(db)]
        context.write("".join(f"{line}\n" for line in lines))


def notes(db: Database) -> list[str]:
    """What was found broken on the way: not all can be trusted then."""
    found = list(db.session.notes)
    report = check(db, CHECKED)
    locks = held(db, report)
    unsettled = report.without(rule for h in locks for rule in COVERED[h.lock])
    counts = report.counts.copy()
    for rule, count in db.found.counts.items():
        if rule not in CHECKED and rule in RULES:
            counts[rule] = max(counts[rule], count)
    total = counts.total()
    if total:
        rules = " ".join(rule for rule in RULES if counts[rule])
        text = f"{total} violations of {rules}; see ktf-pt-check"
        found.append(f"the frame database is broken: {text}")
    if unsettled.total():
        found += [h.text() for h in locks]
    return found


COMMANDS: list[Command] = [FrameCommand()]
