# SPDX-License-Identifier: BSD-2-Clause
# ktf-maps: what is mapped where; the walk of one address; every leaf entry.
"""The command ktf-maps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Sequence

import numpy as np

from ktf.commands.command import JSON, SCHEMA, Args, Command, Option
from ktf.commands.lookup import Lookup, find_spaces
from ktf.errors import KtfError, UsageError
from ktf.kernel.context import Context
from ktf.kernel.database import Database, database_of
from ktf.kernel.session import Session
from ktf.kernel.spaces import Space, upper_half
from ktf.show import maps
from ktf.show.text import size_text
from ktf.x86.memtype import NAMES
from ktf.x86.paging import Leaves, Walk

SHOWN = 5  # findings of one space that are printed


class MapsCommand(Command):
    """What is mapped where: ranges of every address space, one address, or every entry.

    ktf-maps [--space NAME] [--range A B] [--filter WORDS] [--leaves] [--json] [-v]
    ktf-maps VA [--space NAME] [--json]

    Without VA: the mapped ranges of each address space, merged as long as they are contiguous
    (virtually and physically) and alike in rights, memory type, page size and frame kind. Rights
    are what all levels together allow: r, w, x, u for user access. A user space shows its own half.
    With VA (an expression): the walk level by level, which level takes away each right, and the
    frame at its end. Without --space, VA is looked up as the selected CPU does, by its CR3.

      --space NAME    this address space alone; "cr3": what the selected CPU's CR3 holds
      --range A B     addresses from A to below B (expressions; B may be +SIZE)
      --filter WORDS  only what fulfils all of these, with commas between them, ! negates:
                      w x u global uncached, wb wt uc- uc wp wc, 4k 2m 1g, a frame kind
      --leaves        every leaf entry, a line each, unmerged: as QEMU's `info tlb` prints it
                      (address, physical address, flags), then page size, entry, space
      --json          one object on one line
      -v              also how the memory is read, and how long it took

    Example:
      (gdb) ktf-maps --filter x
      space      address range                             size physical           perm type page kind
      kernel     0xffffffff80215000-0xffffffff80272fff     376K 0x0000000000215000 r-x- WB   4K   text
      kernel: 1 range, 94 pages, 376K

    Errors: no guest, a running guest, paging off, an address space that is not there. Tables that
    can't be read don't end the command: what is wrong is listed after the ranges."""

    name = "ktf-maps"
    operand = "expression"
    options = (
        Option("--space", 1),
        Option("--range", 2),
        Option("--filter", 1, ("w", "x", "u", "global", "uncached", "4k", "2m", "1g"), True),
        Option("--leaves"),
        JSON,
        Option("-v"),
    )

    def choices(self, context: Context, option: str) -> Sequence[str]:
        """Names of spaces, words of filters."""
        try:
            if option == "--space":
                return [s.name for s in context.session().spaces().spaces] + ["cr3"]
            if option == "--filter":
                session = context.session()
                return maps.Filter.words(session.memory_types()[0], _kinds(database_of(session)))
        except KtfError:
            pass  # no guest: what is always there
        return super().choices(context, option)

    def run(self, context: Context, args: Args) -> None:
        """Either of its three forms."""
        if len(args.rest) > 1 and not args.has("--range"):
            args.rest = [" ".join(args.rest)]  # an expression with blanks in it
        if args.rest and (args.has("--leaves") or args.has("--range") or args.has("--filter")):
            raise UsageError("VA goes with --space and --json only; see `help ktf-maps`")
        started = time.monotonic()
        session = context.session()
        session.need_paging()
        if args.rest:
            Lookup(context, session, args).show()
        else:
            Listing(context, session, args, started).show()


def _kinds(database: Database | None) -> dict[int, str]:
    return {} if database is None else database.kind_names


def linear(session: Session, va: int) -> int:
    """An address without its sign extension; those that are not canonical count as the gap's middle."""
    bits = session.rules.va_bits
    half = 1 << (bits - 1)
    if session.rules.is_canonical(va):
        return va & (2 * half - 1)
    return half


class Listing:
    """ktf-maps without VA."""

    def __init__(self, context: Context, session: Session, args: Args, started: float) -> None:
        self.context = context
        self.session = session
        self.args = args
        self.started = started
        self.low, self.high = self._range()
        self.spaces = find_spaces(session, args.value("--space"))
        self.walks: list[tuple[Space, Walk]] = []  # of those that were shown
        self.database = database_of(session)
        self.kinds = _kinds(self.database)
        self.types, self.unknown = session.memory_types()
        self.filter = maps.Filter(
            ",".join(args.options.get("--filter", [])), self.types, self.kinds
        )

    def _range(self) -> tuple[int, int]:
        """--range as linear addresses."""
        if not self.args.has("--range"):
            return 0, 1 << self.session.rules.va_bits
        first, last = self.args.options["--range"][:2]
        low = self.context.evaluate(first)
        if last.startswith("+"):
            high = low + self.context.evaluate(last[1:])
        else:
            high = self.context.evaluate(last)
        if high <= low:
            raise UsageError(f"--range: {high:#x} is not above {low:#x}")
        if high >= (1 << 64) - 1:
            return linear(self.session, low), 1 << self.session.rules.va_bits
        return linear(self.session, low), linear(self.session, high)

    def _leaves(self, space: Space) -> Leaves:
        """What --leaves shows of a space."""
        walk = self.session.walk(space, self.low, self.high)
        self.walks.append((space, walk))
        if not self.filter.terms:
            return walk.leaves
        return self._chosen(walk.leaves)[0]

    def _chosen(self, leaves: Leaves) -> tuple[Leaves, np.ndarray]:
        """The leaves that fulfil the filter, and the kinds of their frames."""
        if self.database is None:
            kind = np.full(len(leaves), maps.NO_KIND, np.uint8)
        else:
            kind = self.database.kind_of_mfns(leaves.mfn)
        if not self.filter.terms:
            return leaves, kind
        keep = self.filter.chosen(leaves, kind)
        return leaves.take(keep), kind[keep]

    def _merged(self, space: Space) -> tuple[maps.Ranges, int]:
        """The ranges of a space, and how many pages they are."""
        parts: list[maps.Pieces] = []

        def meet(leaves: Leaves) -> None:
            parts.append(maps.pieces(*self._chosen(leaves)))

        if self.database is not None:
            self.database.read_kinds()  # not while the walk's seconds are counted
        walk = self.session.walk_past(space, meet, self.low, self.high)
        self.walks.append((space, walk))
        pages = sum(int(p.count.sum()) for p in parts)
        return maps.merge(space.name, parts, self.types), pages

    def show(self) -> None:
        """Text or JSON."""
        pieces = self._json() if self.args.has("--json") else self._text()
        for piece in pieces:
            self.context.write(piece)

    def _json(self) -> Iterator[str]:
        form = "leaves" if self.args.has("--leaves") else "ranges"
        yield f'{{"schema":{SCHEMA},"command":"ktf-maps","ok":true,"{form}":['
        comma = ""
        for space in self.spaces:
            if form == "leaves":
                pieces = maps.leaves_json(space.name, self._leaves(space))
            else:
                pieces = maps.ranges_json(self._merged(space)[0], self.kinds)
            for piece in pieces:
                yield comma + piece[:-1]
                comma = ","
        rest = {
            "reader": self.session.reader.name,
            "notes": list(self._notes()),
            "seconds": round(time.monotonic() - self.started, 6),
        }
        yield f"],{json.dumps(rest, separators=(',', ':'))[1:]}\n"

    def _text(self) -> Iterator[str]:
        if self.session.cut:  # before all that it makes wrong
            yield f"! {self.session.cut}\n"
        if self.args.has("--leaves"):
            for space in self.spaces:
                yield from maps.leaves_text(space.name, self._leaves(space))
        else:
            yield maps.HEADER
            for space in self.spaces:
                yield from self._ranges(space)
        for note in self._notes():
            if note != f"! {self.session.cut}":
                yield f"{note}\n"
        if self.args.has("-v"):
            yield from self._verbose()

    def _ranges(self, space: Space) -> Iterator[str]:
        ranges, pages = self._merged(space)
        yield from maps.ranges_text(ranges, self.kinds)
        total = size_text(int(ranges.size.sum()))
        yield f"{space.name}: {_count(len(ranges), 'range')}, {_count(pages, 'page')}, {total}\n"

    def _notes(self) -> Iterator[str]:
        """All that is not as it should be, a line each."""
        for _, problem in self.session.spaces().problems:
            yield f"! {problem}"
        for space, walk in self.walks:
            yield from _findings(space, walk)
            if space.index is not None and not space.kernel:
                kernel = self.session.spaces().spaces[0]
                differ = upper_half(self.session.reader, kernel, space)
                yield from _some(space, differ)
        for note in self.session.notes:
            yield f"! {note}"
        if self.session.types is None:
            yield "no frame database: these are not the symbols of a KTF kernel (`file build/kernel.elf`)"

    def _verbose(self) -> Iterator[str]:
        session, rules = self.session, self.session.rules
        yield from (f"{line}\n" for line in self.context.reader_story())
        nx = "on" if rules.nxe else "off"
        yield f"{rules.levels} levels, NX {nx}, {rules.phys_bits} bits of physical address\n"
        if session.kernel is not None:
            yield f"PAT: {' '.join(NAMES[c] for c in self.types.pat.tolist())}\n"
        if self.types.mtrr is not None:
            yield f"MTRRs: {self.types.mtrr.text()}\n"
        yield from (f"{line}\n" for line in self.unknown)
        for space, walk in self.walks:
            leaves = _count(walk.leaf_count, "leaf entry", "leaf entries")
            yield f"{space.name}: root {space.root:#x}, {_count(len(walk.tables), 'table')}, {leaves}\n"
        yield f"{time.monotonic() - self.started:.3f} seconds\n"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _findings(space: Space, walk: Walk) -> Iterator[str]:
    """The first findings of a walk and how many more there are, and where it ended early."""
    words = [walk.describe(row) for row in range(min(len(walk.findings), SHOWN))]
    yield from _some(space, words, len(walk.findings))
    for note in walk.notes:
        yield f"! {space.name}: {note}"


def _some(space: Space, words: list[str], count: int = 0) -> Iterator[str]:
    """The first of these notes on a space, and how many more there are."""
    for word in words[:SHOWN]:
        yield f"! {space.name}: {word}"
    more = max(count, len(words)) - SHOWN
    if more > 0:
        yield f"! {space.name}: and {more} more (ktf-pt-check lists them)"


COMMANDS: list[Command] = [MapsCommand()]
