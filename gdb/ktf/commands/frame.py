# SPDX-License-Identifier: BSD-2-Clause
# ktf-frame: frames by order and kind; one frame with all its mappings.
"""The command ktf-frame."""

from __future__ import annotations

import numpy as np

from ktf.commands.command import JSON, Args, Command, Option, json_line
from ktf.errors import KtfError, UsageError
from ktf.findings import Report, Violation
from ktf.kernel import journal
from ktf.kernel.context import Context
from ktf.kernel.database import Database
from ktf.memory.readers import PAGE
from ktf.rules.smp import COVERED, held
from ktf.rules.table import RULES, check
from ktf.show.block import Block
from ktf.show.frame import Place, Summary, free_blocks, locate, no_frame

CHECKED = tuple(rule for rule in RULES if not rule.startswith("C"))  # all that are about memory
HOWS = ("mfn", "pa", "va")
EVENTS = 6  # of the journal that are shown
BROKEN = 12  # violations that are shown


class FrameCommand(Command):
    """The guest's frames: a table of all, or everything about one.

    ktf-frame [--free] [--json]
    ktf-frame WHERE [--mfn | --pa | --va] [--json]

    Without WHERE: how many blocks of each order and kind there are, free and used.
    With WHERE (an expression): the block that holds it, on one screen: its pages, kind, counts (who owns
    it, where it is mapped), descriptor, region of the boot's memory map; every mapping (address space,
    address, rights, effective memory type, page size, refs, by which entry of which table, which part; those
    of the page or address that was asked for come first, with a > if there are others);
    why it does not merge with its buddy; what the journal still knows of it; and each rule of
    ktf-pt-check that it breaks. Of a page table also its level, slot, parent and where it is reached.

      --mfn, --pa, --va   WHERE is a frame number, a physical, a virtual address (of the kernel; in the
                          lower half: of the space in the selected CPU's CR3)
                          Without one of these the value decides: a pointer to a frame_t or mapping_t,
                          a kernel address, else a physical address if it is a multiple of 4096, a
                          frame number if there is such a frame. The first line says which was taken.
      --free              a line for each free block, as the guest's mm_print_free() prints them
      --json              one object on one line

    Example:
      (gdb) ktf-frame 0xfee00000
      0xfee00000 taken as physical address (--mfn or --va if it is not)
      frame 0xfee00, order 0 (4K), device, in use
        pages       mfn 0xfee00 to 0xfee00, pa 0xfee00000 to 0xfee00fff
        counts      refcount 1 (who owns it), mapcount 1 (where it is mapped)
        descriptor  0xffffff800000e000 (index 0x700), ring 0x3b0 < > 0x3b2
        memory map  outside of it
        mappings    1, refs together 1
          space      va                 perm type page       refs entry                                part
          kernel     0xffffffc03c000000 rw-- UC   4K            1 0x80000000fee0007b in 0x436[0]       whole
        merging     only available frames merge, this one is of kind device
        journal
          mapped by apic_map at kernel/apic_map.c:17, 502 events ago
          taken by apic_map at kernel/apic_map.c:13, 503 events ago

    Errors: no guest, a running guest, no symbols, a memory manager that is not set up yet, an
    address that is not mapped, a page that is in no frame."""

    name = "ktf-frame"
    operand = "expression"
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
        summary, broken = Summary(db), Broken(db)
        if args.has("--json"):
            free = [{"order": o, "mfn": f"{m:#x}"} for o, m in free_blocks(db)]
            orders, kinds = summary.orders(), summary.kinds()
            line = json_line(self.name, orders=orders, kinds=kinds, free=free, notes=broken.notes())
            context.write(line)
            return
        if args.has("--free"):
            lines = [f"free order {order} mfn {mfn:#x}" for order, mfn in free_blocks(db)]
        else:
            lines = list(summary.lines())
        self._write(context, lines, broken)

    def _one(self, context: Context, args: Args, db: Database, text: str, place: Place) -> None:
        index = int(db.frames.find(np.array([place.mfn]))[0])
        if not index:
            raise KtfError(f"{text}, taken as {place.taken}: {no_frame(db, place.mfn)}")
        block, broken = Block(db, index), Broken(db)
        mine = broken.of(block)
        events, problem = _events(db, block)
        if args.has("--json"):
            line = json_line(
                self.name,
                frame=block.values(),
                details=block.details(),
                journal=[journal.values(row, events, context.source) for row in events.rows]
                if events
                else [],
                violations=[v.json() for v in mine],
                taken=place.taken,
                notes=[*broken.notes(), *([problem] if problem else [])],
            )
            context.write(line)
            return
        head = f"{text} taken as {place.taken}"
        if place.mfn != block.mfn:
            head += f"; page {place.mfn - block.mfn:#x} of the block"
        lines = [head, *block.lines(place.mfn - block.mfn, place.va)]
        symbol = "" if place.va is None else context.source(place.va)
        if symbol:
            lines.insert(1, f"this is {symbol}")
        if events is None:
            lines.append(f"  journal     {problem}")
        else:
            lines += _journal_lines(context, events)
        lines += [f"  ! {v.text()}" for v in mine[:BROKEN]]
        if len(mine) > BROKEN:
            lines.append(f"  ! ... and {len(mine) - BROKEN} more")
        self._write(context, lines, broken)

    def _write(self, context: Context, lines: list[str], broken: "Broken") -> None:
        lines += [f"! {note}" for note in broken.notes()]
        context.write("".join(f"{line}\n" for line in lines))


def _events(db: Database, block: Block) -> tuple[journal.Journal | None, str]:
    """The journal's last events of a block, or why there are none."""
    try:
        return journal.events(db.session).of_frame(block.mfn, block.order), ""
    except KtfError as e:
        return None, f"can't be read: {e}"


def _journal_lines(context: Context, events: journal.Journal) -> list[str]:
    """The last events, the newest first."""
    if not len(events):
        return ["  journal     no event of it is kept"]
    shown = events.last(EVENTS)
    rows = [journal.describe(row, shown, context.source) for row in shown.rows[::-1]]
    more = len(events) - len(shown)
    tail = [f"    ... and {more} more; ktf-journal has them"] if more else []
    return ["  journal", *(f"    {row}" for row in rows), *tail]


class Broken:
    """What is broken in the guest: of one frame, and at all. What a held lock covers does not count."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.report: Report = check(db, CHECKED)
        self.locks = held(db, self.report)
        self.unsettled = self.report.without(rule for h in self.locks for rule in COVERED[h.lock])

    def of(self, block: Block) -> list[Violation]:
        """Those that name a page of the block, or an address at which it is mapped."""
        places = set()
        for m in map(block.mapping, block.records.tolist()[:1000]):
            if m["va"] is not None:
                places.add((m["space"], int(m["va"], 16)))
        return [
            v
            for v in self.report.all(RULES)
            if (v.mfn is not None and block.mfn <= v.mfn < block.mfn + block.pages)
            or (v.va is not None and (v.space, v.va // PAGE * PAGE) in places)
        ]

    def notes(self) -> list[str]:
        """Lines on all of the guest: not all can be trusted then."""
        found = list(self.db.session.notes)
        counts = self.report.counts.copy()
        for rule, count in self.db.found.counts.items():
            if rule not in CHECKED and rule in RULES:
                counts[rule] = max(counts[rule], count)
        total = counts.total()
        if total:
            rules = " ".join(rule for rule in RULES if counts[rule])
            text = f"{total} violations of {rules}; see ktf-pt-check"
            found.append(f"the frame database is broken: {text}")
        if self.unsettled.total():
            found += [f"in progress: {h.text()}" for h in self.locks]
        return found


COMMANDS: list[Command] = [FrameCommand()]
