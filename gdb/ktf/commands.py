# SPDX-License-Identifier: BSD-2-Clause
# ktf-maps: what is mapped where; the walk of one address; every leaf entry.
"""The command ktf-maps."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Sequence

import numpy as np

from . import maps
from .command import JSON, SCHEMA, Args, Command, Context, Option, json_line
from .errors import KtfError, UsageError
from .paging import ADDRESS, PS, U, W, X, Leaves, Walk
from .session import FrameDatabase, Session
from .spaces import Space, upper_half
from .text import size_text
from .trace import Step, Trace, trace

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
      kernel     0xffffffff80204000-0xffffffff80216fff      76K 0x0000000000204000 r-x- WB   4K   text
      kernel: 1 range, 19 pages, 76K

    Errors: no guest, a running guest, paging off, an address space that is not there. Tables that
    can't be read don't end the command: what is wrong is told after the ranges."""

    name = "ktf-maps"
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
                return maps.Filter.words(maps.pat_names(session.types), _kinds(session.database()))
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


def _kinds(database: FrameDatabase | None) -> dict[int, str]:
    return {} if database is None else database.kind_names


def find_spaces(session: Session, name: str | None) -> list[Space]:
    """The spaces with that name, all if there is none; KtfError that lists them if it is unknown."""
    if name == "cr3":
        return [session.cr3_space()]
    spaces = session.spaces().spaces
    if name is None:
        return spaces
    found = [s for s in spaces if s.name == name]
    if not found:
        names = ", ".join(dict.fromkeys([*(s.name for s in spaces), "cr3"]))
        raise KtfError(f"no address space {name}; there are: {names}")
    return found


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
        self.types = maps.pat_names(session.types)
        self.low, self.high = self._range()
        self.spaces = find_spaces(session, args.value("--space"))
        self.database = session.database()
        self.kinds = _kinds(self.database)
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

    def _leaves(self, space: Space) -> tuple[Leaves, np.ndarray]:
        """What is to be shown of a space, and the kinds of its frames."""
        leaves = self.session.walk(space, self.low, self.high).leaves
        if self.database is None:
            kind = np.full(len(leaves), maps.NO_KIND, np.uint8)
        elif self.args.has("--leaves") and not self.filter.terms:
            return leaves, np.zeros(0, np.uint8)
        else:
            kind = self.database.kind_of_mfns(leaves.mfn)
        if self.filter.terms:
            keep = self.filter.chosen(leaves, kind)
            leaves, kind = leaves.take(keep), kind[keep]
        return leaves, kind

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
            leaves, kind = self._leaves(space)
            if form == "leaves":
                pieces = maps.leaves_json(space.name, leaves)
            else:
                ranges = maps.merge(space.name, leaves, kind)
                pieces = maps.ranges_json(ranges, self.types, self.kinds)
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
        if self.args.has("--leaves"):
            for space in self.spaces:
                yield from maps.leaves_text(space.name, self._leaves(space)[0])
        else:
            yield maps.HEADER
            for space in self.spaces:
                yield from self._ranges(space)
        for note in self._notes():
            yield f"{note}\n"
        if self.args.has("-v"):
            yield from self._verbose()

    def _ranges(self, space: Space) -> Iterator[str]:
        leaves, kind = self._leaves(space)
        ranges = maps.merge(space.name, leaves, kind)
        yield from maps.ranges_text(ranges, self.types, self.kinds)
        total = size_text(int(ranges.size.sum()))
        yield f"{space.name}: {_count(len(ranges), 'range')}, {_count(len(leaves), 'page')}, {total}\n"

    def _notes(self) -> Iterator[str]:
        """All that is not as it should be, a line each."""
        for _, problem in self.session.spaces().problems:
            yield f"! {problem}"
        for space in self.spaces:
            walk = self.session.walk(space, self.low, self.high)
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
        yield f"read by {session.reader.name}: {session.reader.detail}\n"
        for line in self.context.refused_readers():
            yield f"not by {line}\n"
        nx = "on" if rules.nxe else "off"
        pat = " ".join(self.types)
        guess = " (as after reset: the guest's own can't be read)" if session.types is None else ""
        yield f"{rules.levels} levels, NX {nx}, {rules.phys_bits} bits of physical address\n"
        yield f"PAT {pat}{guess}\n"
        for space in self.spaces:
            walk = session.walk(space, self.low, self.high)
            yield f"{space.name}: root {space.root:#x}, {_count(len(walk.tables), 'table')}, {_count(len(walk.leaves), 'leaf entry', 'leaf entries')}\n"
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


class Lookup:
    """ktf-maps VA."""

    def __init__(self, context: Context, session: Session, args: Args) -> None:
        self.context = context
        self.session = session
        self.args = args
        va = context.evaluate(args.rest[0])
        name = args.value("--space")
        if name is None:
            roots = {s.root: s for s in reversed(session.spaces().spaces)}
            self.space = roots.get(session.cpu.root, session.cr3_space())
        else:
            self.space = find_spaces(session, name)[0]
        self.found = trace(session.reader, self.space.root, session.rules, va)
        self.types = maps.pat_names(session.types)

    def show(self) -> None:
        """Text or JSON."""
        if self.args.has("--json"):
            self.context.write(json_line("ktf-maps", **self._values()))
        else:
            self.context.write("".join(f"{line}\n" for line in self._lines()))

    def _end(self) -> tuple[str, str]:
        """Memory type and page size of the leaf."""
        step = self.found.steps[-1]
        index = maps.pat_index(np.array([step.entry], np.uint64), np.array([step.level]))
        return self.types[int(index[0])], maps.PAGES[step.level]

    def _values(self) -> dict[str, Any]:
        found, database = self.found, self.session.database()
        mapped = found.pa is not None
        memtype, page = self._end() if mapped else (None, None)
        kind = None
        if found.pa is not None and database is not None:
            number = database.kind_of_mfns(np.array([found.pa >> 12], np.uint64))
            kind = database.kind_names.get(int(number[0]), "?")
        return {
            "space": self.space.name,
            "va": f"{found.va:#x}",
            "mapped": mapped,
            "pa": None if found.pa is None else f"{found.pa:#x}",
            "perm": maps.perm_text(found.perm) if mapped else None,
            "type": memtype,
            "page": page,
            "kind": kind,
            "problem": found.problem or None,
            "limits": {n: found.limits(b) for n, b in RIGHTS} if mapped else None,
            "walk": [_step_values(s) for s in found.steps],
        }

    def _lines(self) -> Iterator[str]:
        found, session = self.found, self.session
        head = f"{found.va:#x} in {self.space.name}: root table {self.space.root:#x}"
        yield f"{head}, {session.rules.levels} levels"
        symbol = self.context.source(found.va)
        if symbol:
            yield f"this is {symbol}"
        if session.rules.is_canonical(found.va):
            yield "level table        index entry              rights"
            for step in found.steps:
                yield _step_line(step)
        if found.pa is None:
            yield _not_mapped(found)
        else:
            memtype, page = self._end()
            rights = maps.perm_text(found.perm)
            yield f"physical address {found.pa:#x}, {rights}, {memtype}, {page} page"
            yield from _limits(found)
            database = session.database()
            if database is not None:
                yield database.frame_line(found.pa >> 12)
        for note in session.notes:
            yield f"! {note}"


RIGHTS = (("w", W), ("x", X), ("u", U))


def _step_values(step: Step) -> dict[str, Any]:
    return {
        "level": step.level,
        "table": f"{step.table:#x}",
        "index": step.index,
        "entry": f"{step.entry:#x}",
        "perm": maps.perm_text(step.perm),
        "problem": step.problem or None,
    }


def _step_line(step: Step) -> str:
    head = f"{step.level:>5} {step.table:#012x} {step.index:>5} {step.entry:#018x} "
    if step.problem:
        return f"{head} {step.problem}"
    target = (step.entry & ADDRESS) >> 12
    goal = f"{maps.PAGES[step.level]} page" if step.leaf else f"table {target:#x}"
    return f"{head} {maps.perm_text(step.perm)}  {goal}"


def _not_mapped(found: Trace) -> str:
    step = found.steps[-1]
    if step.problem == "not a canonical address":
        return f"not mapped: {found.va:#x} is {step.problem}"
    large = " (PS)" if step.entry & PS and step.level > 1 else ""
    return (
        f"not mapped: the walk ends at level {step.level}, entry {step.index} of table "
        f"{step.table:#x} is {step.entry:#x}{large}: {step.problem}"
    )


def _limits(found: Trace) -> Iterator[str]:
    """Which levels take away which rights."""
    words = {"w": "written", "x": "executed", "u": "reached by user code"}
    for name, bit in RIGHTS:
        levels = found.limits(bit)
        if levels:
            where = ", ".join(map(str, levels))
            yield f"can't be {words[name]}: level{'s' if len(levels) > 1 else ''} {where}"


COMMANDS: list[Command] = [MapsCommand()]
