# SPDX-License-Identifier: BSD-2-Clause
# The kernel's journal as an array: the last events of all CPUs in their one order, of a frame, of an address.
"""What the rings of mm/journal.h hold; pure.

    journal = events(session)               # a Journal: journal.rows is a structured array, oldest first
    journal.of_frame(mfn, order)            # a Journal of those that are about any of these 2^order pages
    journal.of_va(va, size)                 # a Journal of those that name any of these addresses
    journal.last(n)                         # a Journal of the last n
    describe(journal.rows[-1], journal, context.source)     # "unmapped by bar at mm/foo.c:123, 5 events ago"

Any bytes at all can stand in the rings: what can't be an event of its place is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ktf.errors import Corrupt, KtfError
from ktf.kernel.layout import Records, enum_names
from ktf.memory.readers import PAGE

if TYPE_CHECKING:
    from ktf.kernel.kernel import Kernel
    from ktf.kernel.session import Session

# One event. pages: of consecutive memory from mfn on, 0 where no frame is named; span: bytes from va on, 0 without va.
EVENT = np.dtype(
    [
        ("number", "u8"),
        ("cpu", "u2"),
        ("op", "u4"),
        ("mfn", "u8"),
        ("pages", "u8"),
        ("order", "u1"),
        ("kind", "u1"),
        ("level", "u1"),
        ("va", "u8"),
        ("span", "u8"),
        ("count", "u4"),
        ("refcount", "u4"),
        ("mapcount", "u4"),
        ("caller", "u8"),
    ]
)
PLAIN = ("op", "mfn", "order", "kind", "level", "va", "count", "refcount", "mapcount", "caller")
RANGES = ("JOURNAL_MAP_RANGE", "JOURNAL_PUT_RANGE")  # of consecutive memory
SCATTERED = ("JOURNAL_MAP_FRAMES", "JOURNAL_PUT_FRAMES")  # only the first frame is named
UNITS = ("JOURNAL_SHOOTDOWN",)  # only the first address is named

Source = Callable[[int], str]


@dataclass(frozen=True)
class Journal:
    """Events, oldest first. next: the number that the next one will get; notes: what is wrong with the rings."""

    rows: np.ndarray
    next: int
    on: bool
    op_names: dict[int, str]
    kind_names: dict[int, str]
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.rows)

    def _take(self, chosen: Any) -> Journal:
        return replace(self, rows=self.rows[chosen])

    def last(self, count: int) -> Journal:
        """The last of them."""
        return self._take(slice(max(len(self.rows) - count, 0), None))

    def of_frame(self, mfn: int, order: int = 0) -> Journal:
        """Those about any of the 2^order pages from mfn on."""
        first, pages = self.rows["mfn"], self.rows["pages"]
        end = min(mfn + (1 << order), (1 << 64) - 1)
        return self._take((first < end) & (first + pages > mfn))

    def of_va(self, va: int, size: int = 1) -> Journal:
        """Those that name any of the addresses [va, va + size), in whatever space."""
        first, span = self.rows["va"], self.rows["span"]
        last = np.uint64(min(va + max(size, 1) - 1, (1 << 64) - 1))
        inside = (first >= np.uint64(va)) | (np.uint64(va) - first < span)
        return self._take((span > 0) & (first <= last) & inside)

    def since(self, number: int) -> Journal:
        """Those from that number on."""
        return self._take(self.rows["number"] >= number)

    def ago(self, row: np.void) -> int:
        """How old an event is, in events: 1 is the last one."""
        return self.next - int(row["number"])

    def op_name(self, row: np.void) -> str:
        """ "map", "put range", ..."""
        return self.op_names[int(row["op"])].replace("_", " ")

    def kind_name(self, row: np.void) -> str:
        """Kind of its frame, as it was then."""
        return self.kind_names.get(int(row["kind"]), f"kind {int(row['kind'])}")


def events(session: Session) -> Journal:
    """All events that the rings hold. NoGuest or KtfError if there is no kernel or no journal."""
    kernel = session.need_kernel()
    layout = kernel.layout("struct journal_event")
    step = layout.size
    size = kernel.types.constant("JOURNAL_BYTES")
    places = size // step
    if places == 0 or places & (places - 1):
        raise Corrupt(f"rings of {size} bytes hold no {step}-byte events")
    rings, notes = _rings(kernel, size)
    raw = layout.records(b"".join(rings.values()))
    names = enum_names(kernel.types.enum("journal_op"), "JOURNAL_")
    names = {number: name for number, name in names.items() if number}
    head = kernel.mm.value("journal_seq", 0)
    good, strange = _sound(raw, places, step, head, names)
    notes += strange
    rows = np.zeros(int(good.sum()), EVENT)
    for name in PLAIN:
        rows[name] = raw[name][good]
    rows["number"] = raw["seq"][good] // np.uint64(step)
    rows["cpu"] = np.array(list(rings), "u2")[np.flatnonzero(good) // places]
    _extents(rows, kernel.types.enum("journal_op"))
    rows = rows[np.argsort(rows["number"], kind="stable")]
    if head % step or not head:
        text = f"mm.journal_seq is {head:#x}, no number of an event: ages are counted from the last one"
        notes.append(text)
        head = (int(rows["number"][-1]) + 1 if len(rows) else 1) * step
    else:
        notes += _missing(rows, head // step, places)
    kinds = enum_names(kernel.types.enum("frame_kind"), "FRAME_")
    on = kernel.mm.value("journal_on", 0) != 0
    return Journal(rows, head // step, on, names, kinds, tuple(notes))


def _rings(kernel: Kernel, size: int) -> tuple[dict[int, bytes], list[str]]:
    """The ring of each CPU that has one; pages that can't be read are blank, and named in notes."""
    symbol, cpus = kernel.types.symbol("journal_ring"), kernel.types.constant("JOURNAL_CPUS")
    if symbol is None:
        raise KtfError("the symbols have no journal_ring: this kernel keeps no journal")
    found, notes = {}, []
    for cpu, va in enumerate(np.frombuffer(kernel.read(symbol.va, 8 * cpus), "<u8").tolist()):
        if not va:
            continue
        found[cpu], bad = _pages(kernel, va, size)
        if bad:
            notes.append(
                f"journal: of the ring of CPU {cpu} at {va:#x} {bad} page{'' if bad == 1 else 's'} can't be read"
            )
    if not found:
        raise Corrupt(f"journal_ring at {symbol.va:#x} leads to no ring")
    return found, notes


def _pages(kernel: Kernel, va: int, size: int) -> tuple[bytes, int]:
    """A ring, and how many of its pages are missing."""
    if kernel.image_pa(va) is not None and kernel.image_pa(va + size - 1) is not None:
        return kernel.read(va, size), 0
    count = -(-size // PAGE)
    if va % PAGE or va + size > 1 << 64:
        return bytes(size), count
    data, ok = kernel.memory.pages(va, count)
    return np.where(ok[:, None], data, np.uint8(0)).tobytes()[:size], int((~ok).sum())


def _sound(
    raw: Records, places: int, step: int, head: int, names: dict[int, str]
) -> tuple[np.ndarray, list[str]]:
    """Which places hold an event that can stand there, and a line on those that hold something else."""
    seq, op = raw["seq"], raw["op"]
    at = np.arange(len(raw)) % places * step
    good = (seq != 0) & (seq & np.uint64(places * step - 1) == at.astype(np.uint64))
    good &= np.isin(op, list(names))
    if head and head % step == 0:
        good &= seq < np.uint64(head)
    able = np.flatnonzero(good)
    good[:] = False
    good[able[np.unique(seq[able], return_index=True)[1]]] = True
    blank = ~raw.data.view(np.uint8).reshape(len(raw), -1).any(axis=1)
    strange = int((~good & ~blank).sum())
    if not strange:
        return good, []
    what = "1 place of its rings holds" if strange == 1 else f"{strange} places of its rings hold"
    return good, [f"journal: {what} no event: being written, or overwritten"]


def _missing(rows: np.ndarray, head: int, places: int) -> Iterator[str]:
    """The rings together hold each of the last events; which of them do they not?"""
    first = max(head - places, 1)
    count = head - first - int((rows["number"] >= first).sum())
    if count > 0:
        what = f"{count} of the last {head - first} events"
        yield f"journal: {what} are not in the rings: being written, or overwritten"


def _extents(rows: np.ndarray, ops: dict[str, int]) -> None:
    """What memory and which addresses the events are about."""
    size = np.uint64(1) << np.minimum(rows["order"], 40).astype(np.uint64)
    ranges = np.isin(rows["op"], [ops[n] for n in RANGES])
    scattered = np.isin(rows["op"], [ops[n] for n in SCATTERED])
    single = np.isin(rows["op"], [ops[n] for n in UNITS])
    count = np.maximum(rows["count"], 1).astype(np.uint64)
    both = np.where(rows["op"] == ops["JOURNAL_SPLIT"], size * np.uint64(2), size)
    rows["pages"] = np.where(ranges, count, np.where(rows["kind"] != 0, both, 0))
    pages = np.where(ranges | scattered, count, np.where(single, 1, size))
    rows["span"] = np.where(rows["va"] != 0, pages * PAGE, 0)


# --- in words ----------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _function(text: str) -> str:
    """ "function at file:line" of what Context.source() says."""
    return re.sub(r"^(\S+) ?\+ ?\d+", r"\1", text)


def caller(row: np.void, source: Source) -> str:
    """Who called: "function at file:line"; the bare address where the symbols know nothing of it."""
    address = int(row["caller"])
    # A return address stands behind the call, which may be the last instruction of its line.
    name = source(address - 1) if address else ""
    return _function(name) if name else f"{address:#x}"


VERBS = {
    "get": "taken",
    "ref": "given one more owner",
    "put": "put back",
    "map": "mapped",
    "unmap": "unmapped",
    "protect": "given other rights",
    "map_range": "mapped in a range",
    "put_range": "unmapped in a range",
    "split": "split",
    "merge": "merged",
    "shootdown": "flushed",
    "map_frames": "mapped among others",
    "put_frames": "unmapped among others",
    "space_create": "made the root of a space",
    "space_destroy": "given up as the root of a space that was destroyed",
}


def describe(row: np.void, journal: Journal, source: Source) -> str:
    """An event in words: "unmapped by bar at mm/foo.c:123, 3,201 events ago"."""
    name = journal.op_names[int(row["op"])]
    verb = VERBS.get(name, name.replace("_", " "))
    if name == "unmap" and row["count"]:
        verb = f"put down to {int(row['count'])} references"
    ago = journal.ago(row)
    return f"{verb} by {caller(row, source)}, {ago:,} event{'' if ago == 1 else 's'} ago"


HEADER = (
    "  ago cpu event      frame        order kind      va                  count ref map caller"
)


def line(row: np.void, journal: Journal, source: Source) -> str:
    """An event as a row of ktf-journal's table."""
    frame, order, kind = "-", "-", "-"
    if row["pages"]:
        frame, order, kind = f"{int(row['mfn']):#x}", str(int(row["order"])), journal.kind_name(row)
        if row["level"]:
            kind += f" {int(row['level'])}"
    va = f"{int(row['va']):#x}" if row["va"] else "-"
    return (
        f"{journal.ago(row):5} {int(row['cpu']):3} {journal.op_name(row):10} {frame:12} {order:>5} "
        f"{kind:9} {va:18} {int(row['count']):6} {int(row['refcount']):3} {int(row['mapcount']):3} "
        f"{caller(row, source)}"
    )


def values(row: np.void, journal: Journal, source: Source) -> dict[str, Any]:
    """An event for JSON."""
    framed, va = bool(row["pages"]), int(row["va"])
    return {
        "number": int(row["number"]),
        "ago": journal.ago(row),
        "cpu": int(row["cpu"]),
        "op": journal.op_name(row),
        "mfn": f"{int(row['mfn']):#x}" if framed else None,
        "order": int(row["order"]) if framed else None,
        "kind": journal.kind_name(row) if framed else None,
        "va": f"{va:#x}" if va else None,
        "count": int(row["count"]),
        "refcount": int(row["refcount"]),
        "mapcount": int(row["mapcount"]),
        "caller": f"{int(row['caller']):#x}",
        "by": caller(row, source),
    }
