# SPDX-License-Identifier: BSD-2-Clause
# ktf-journal: what the memory manager did last, to one frame, at one address, or at all.
"""The command ktf-journal."""

from __future__ import annotations

import re

import numpy as np

from ktf.commands.command import JSON, Args, Command, Option, json_line
from ktf.errors import UsageError
from ktf.kernel import journal
from ktf.kernel.context import Context
from ktf.kernel.database import Database
from ktf.kernel.journal import Journal
from ktf.memory.readers import PAGE
from ktf.show.frame import locate

SHOWN = 20  # events, unless -n says otherwise
HOWS = ("mfn", "pa", "va")


class JournalCommand(Command):
    """The last events of the memory manager: all, of one frame, or at one address.

    ktf-journal [WHERE] [--mfn | --pa | --va] [-n N] [--json]

    The kernel keeps the last gets, puts, maps, unmaps, splits, merges and shootdowns of each CPU in a
    ring. They are shown in the order in which they began, the last one at the end. Columns: how many
    events ago (1 is the last), CPU, what, frame, order, kind, address, count (refs of the mapping
    afterwards; pages of a range or a shootdown), refcount and mapcount of the frame afterwards, caller.
    With WHERE (an expression), taken as ktf-frame takes it: for a frame number, a physical address or
    a pointer to a frame_t the events of its block; for a virtual address those that name its page,
    whether it is mapped now or not. An event does not say which space an address belongs to.

      --mfn, --pa, --va   WHERE is a frame number, a physical, a virtual address
      -n N                the last N events (20)
      --json              one object on one line

    Example:
      (gdb) ktf-journal -n 1
        ago cpu event      frame        order kind      va                  count ref map caller
          1   0 map        0x7fc8           0 available 0xffffc07000000000      1   1   1 plant_map at tests/guest/plant.c:32

    Errors: no guest, a running guest, no symbols, a memory manager that is not set up yet."""

    name = "ktf-journal"
    operand = "expression"
    options = (Option("--mfn"), Option("--pa"), Option("--va"), Option("-n", 1), JSON)

    def run(self, context: Context, args: Args) -> None:
        """Finds, cuts, prints."""
        count = self._count(context, args)
        session = context.session()
        found = journal.events(session)
        total, taken = len(found), None
        if args.rest or any(args.has(f"--{how}") for how in HOWS):
            found, taken = self._chosen(context, args, Database(session), found)
        matching = len(found)
        found = found.last(count)
        notes = [*session.notes, *found.notes]
        if not found.on:
            notes.append("the journal is switched off (mm.journal_on)")
        if args.has("--json"):
            rows = [journal.values(row, found, context.source) for row in found.rows]
            line = json_line(self.name, events=rows, matching=matching, taken=taken, notes=notes)
            context.write(line)
            return
        lines = [f"{' '.join(args.rest)} taken as {taken}"] if taken else []
        if matching:
            lines.append(journal.HEADER)
            lines += [journal.line(row, found, context.source) for row in found.rows]
        else:
            lines.append(f"none of the {total} events that are kept")
        lines += [f"! {note}" for note in notes]
        context.write("".join(f"{text}\n" for text in lines))

    def _count(self, context: Context, args: Args) -> int:
        word = args.value("-n")
        if word is None:
            return SHOWN
        if not re.fullmatch("0*[1-9][0-9]*", word):
            raise UsageError(f"-n {word}: should be a number of events, 1 or more")
        return int(word)

    def _chosen(
        self, context: Context, args: Args, db: Database, found: Journal
    ) -> tuple[Journal, str]:
        """The events of WHERE, and how it was understood."""
        hows = [how for how in HOWS if args.has(f"--{how}")]
        if len(hows) > 1:
            raise UsageError(f"only one of --mfn, --pa and --va; see `help {self.name}`")
        if not args.rest:
            raise UsageError(f"--{hows[0]} needs WHERE; see `help {self.name}`")
        value = context.evaluate(" ".join(args.rest))
        how = hows[0] if hows else ""
        if how == "va" or not how and _is_address(db, value):
            page = value // PAGE * PAGE
            return found.of_va(page, PAGE), f"virtual address {value:#x}"
        place = locate(db, value, how)
        index = int(db.frames.find(np.array([place.mfn]))[0])
        if not index:
            return found.of_frame(place.mfn), f"{place.taken}: mfn {place.mfn:#x}, in no frame now"
        mfn, order = int(db.frames.mfn[index]), int(db.frames.order[index])
        return found.of_frame(mfn, order), f"{place.taken}: frame {mfn:#x} order {order}"


def _is_address(db: Database, value: int) -> bool:
    """A virtual address, and no pointer to a descriptor or a record, which mean their frame."""
    pools = db.pool("ARENA_FRAMES"), db.pool("ARENA_MAPPINGS")
    inside = any(p.base <= value < p.base + p.pages * PAGE for p in pools)
    return value >= 1 << db.rules.phys_bits and not inside


COMMANDS: list[Command] = [JournalCommand()]
