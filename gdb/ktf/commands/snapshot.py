# SPDX-License-Identifier: BSD-2-Clause
# ktf-snapshot and ktf-diff: what changed between two stops.
"""The commands ktf-snapshot and ktf-diff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Callable

import numpy as np

from ktf.commands.command import JSON, Args, Command, Option, json_line
from ktf.errors import KtfError, UsageError
from ktf.kernel import journal
from ktf.kernel.context import Context
from ktf.kernel.database import Database
from ktf.kernel.memory_types import pat_names
from ktf.memory.readers import PAGE
from ktf.show.snapshot import Difference, Snapshot, pages_of, take
from ktf.x86.paging import PAGES, perm_text, U, W, X

SHOWN = 40  # lines of one sort
TRACED = 400  # for so many of one sort the journal is asked who did it
NOW = "now"

SNAPSHOTS: dict[str, Snapshot] = {}  # by name, for as long as GDB runs


def _names() -> str:
    names = ", ".join(SNAPSHOTS)
    return f"there are: {names}" if names else "there is none yet; `ktf-snapshot NAME` takes one"


class SnapshotCommand(Command):
    """Keeps what is in use and mapped at this stop under a name, for ktf-diff; without NAME: a list.

    ktf-snapshot [NAME] [--json]
    ktf-snapshot --delete NAME

    All blocks in use with their counts, all mappings of all address spaces, and the journal's last events
    are kept in GDB's memory until GDB ends. A name that is there is taken anew.

      --delete NAME   forget it
      --json          one object on one line

    Example:
      (gdb) ktf-snapshot before
      before: 175 blocks in use, 152 mappings in 1 space, at event 558

    Errors: no guest, a running guest, no symbols, a memory manager that is not set up yet."""

    name = "ktf-snapshot"
    options = (Option("--delete", 1), JSON)

    def choices(self, context: Context, option: str) -> Sequence[str]:
        """Names that are there."""
        return tuple(SNAPSHOTS)

    def run(self, context: Context, args: Args) -> None:
        """Takes, deletes or lists."""
        if len(args.rest) > 1 or args.rest and args.has("--delete"):
            raise UsageError("takes one NAME; see `help ktf-snapshot`")
        gone = args.value("--delete")
        if gone is not None:
            if gone not in SNAPSHOTS:
                raise KtfError(f"no snapshot {gone}; {_names()}")
            del SNAPSHOTS[gone]
        for name in args.rest:
            if name == NOW:
                raise UsageError(f"{NOW} is what ktf-diff calls this stop; take another name")
            SNAPSHOTS[name] = take(Database(context.session()), name)
        if args.has("--json"):
            context.write(json_line(self.name, snapshots=[_values(s) for s in SNAPSHOTS.values()]))
            return
        shown = [SNAPSHOTS[n] for n in args.rest] or list(SNAPSHOTS.values())
        lines = [_line(s) for s in shown] if gone is None else [f"{gone}: deleted"]
        context.write("".join(f"{line}\n" for line in lines or [f"no snapshots: {_names()}"]))


def _values(s: Snapshot) -> dict[str, Any]:
    counts = {"blocks": len(s.used), "mappings": len(s.mappings), "spaces": len(s.spaces)}
    return {"name": s.name, **counts, "event": s.events}


def _line(s: Snapshot) -> str:
    spaces = f"{len(s.spaces)} space{'' if len(s.spaces) == 1 else 's'}"
    return (
        f"{s.name}: {len(s.used)} blocks in use, {len(s.mappings)} mappings in {spaces}, "
        f"at event {s.events}"
    )


class DiffCommand(Command):
    """What changed from one snapshot to another, or to now.

    ktf-diff A [B] [--json]

    Frames got and put; mappings made and gone, with other rights or memory type, led elsewhere; counts
    that differ; address spaces. The journal tells who did it, where it still has the event. Last, what
    looks like a leak: frames got since A that have an owner and are mapped nowhere.
    A block that was put and got again in between is the same block.

      B        another snapshot; without it, or `now`: this stop
      --json   one object on one line, with all of it (text shows 40 of each sort)

    Example:
      (gdb) ktf-diff before
      before to now, 9 events
      frames got: 14
      ...
        0x7fc7 order 0 available refcount 1 mapcount 0: taken by plant_frame at tests/guest/plant.c:25, 9 events ago
      ...
      held without a mapping: 1
        0x7fc7 order 0 available refcount 1 mapcount 0: taken by plant_frame at tests/guest/plant.c:25, 9 events ago
      14 frames got, 0 put; 13 mappings made, 0 gone, 0 changed; 0 counts; 1 held without a mapping

    Errors: a name that is no snapshot, no guest, a running guest."""

    name = "ktf-diff"
    options = (JSON,)

    def choices(self, context: Context, option: str) -> Sequence[str]:
        """Names that are there."""
        return (*SNAPSHOTS, NOW)

    def run(self, context: Context, args: Args) -> None:
        """Compares, prints."""
        if not 1 <= len(args.rest) <= 2:
            raise UsageError("needs A, and perhaps B; see `help ktf-diff`")
        first, second = (self._snapshot(context, name) for name in [*args.rest, NOW][:2])
        report = Changes(Difference(first, second), context)
        if args.has("--json"):
            context.write(json_line(self.name, **report.values()))
        else:
            context.write("".join(f"{line}\n" for line in report.lines()))

    def _snapshot(self, context: Context, name: str) -> Snapshot:
        if name == NOW:
            return take(Database(context.session()), NOW)
        if name not in SNAPSHOTS:
            raise KtfError(f"no snapshot {name}; {_names()}")
        return SNAPSHOTS[name]


class Changes:
    """A difference in words and as JSON."""

    def __init__(self, d: Difference, context: Context) -> None:
        self.d = d
        self.context = context
        session = context.session()
        kernel = session.need_kernel()
        self.types = pat_names(kernel.types)
        self.vattr = kernel.types.enum("vattr")
        self.sorts: dict[str, list[dict[str, Any]]] = {
            "frames got": self._each(d.got, lambda i: self._frame(d.b, i, d.who_got)),
            "frames put": self._each(d.put, lambda i: self._frame(d.a, i, d.who_put)),
            "kinds changed": self._both(d.block_kinds, self._frame_pair),
            "mappings made": self._each(d.made, lambda i: self._mapping(d.b, i, d.who_mapped)),
            "mappings gone": self._each(d.gone, lambda i: self._mapping(d.a, i, d.who_changed)),
            "rights or memory type changed": self._both(d.rights, self._rights_pair),
            "led elsewhere, or of another size": self._both(d.moved, self._moved_pair),
            "counts of frames changed": self._both(d.block_counts, self._frame_pair),
            "references of mappings changed": self._both(d.refs, self._refs_pair),
            "held without a mapping": self._each(d.held, lambda i: self._frame(d.b, i, d.who_got)),
        }
        spaces = [f"space {d.b.spaces[i]} made" for i in d.spaces_made]
        self.spaces = spaces + [f"space {d.a.spaces[i]} gone" for i in d.spaces_gone]

    # --- one thing ---------------------------------------------------------------------------------

    def _each(
        self, rows: np.ndarray, form: Callable[[int], dict[str, Any]]
    ) -> list[dict[str, Any]]:
        self.traced = TRACED
        return [form(i) for i in rows.tolist()]

    def _both(
        self,
        pairs: tuple[np.ndarray, np.ndarray],
        form: Callable[[int, int], dict[str, Any]],
    ) -> list[dict[str, Any]]:
        self.traced = TRACED
        return [form(i, j) for i, j in zip(pairs[0].tolist(), pairs[1].tolist())]

    def _who(self, find: Callable[[int, int], np.void | None], at: int, size: int) -> str | None:
        """What the journal says."""
        self.traced -= 1
        events = self.d.b.journal
        row = find(at, size) if self.traced >= 0 else None
        if row is None or events is None:
            return None
        return journal.describe(row, events, self.context.source)

    def _frame(
        self, s: Snapshot, i: int, find: Callable[[int, int], np.void | None]
    ) -> dict[str, Any]:
        row = s.used[i]
        mfn, order = int(row["mfn"]), int(row["order"])
        return {**self._block(s, row), "by": self._who(find, mfn, order)}

    def _block(self, s: Snapshot, row: np.void) -> dict[str, Any]:
        kind = int(row["kind"])
        return {
            "mfn": f"{int(row['mfn']):#x}",
            "order": int(row["order"]),
            "kind": s.kind_names.get(kind, f"kind {kind}"),
            "refcount": int(row["refcount"]),
            "mapcount": int(row["mapcount"]),
        }

    def _frame_pair(self, i: int, j: int) -> dict[str, Any]:
        was, now = self._block(self.d.a, self.d.a.used[i]), self._block(self.d.b, self.d.b.used[j])
        return {**now, "was": {k: was[k] for k in ("kind", "refcount", "mapcount")}}

    def _mapping(
        self, s: Snapshot, i: int, find: Callable[[int, int], np.void | None]
    ) -> dict[str, Any]:
        row = s.mappings[i]
        size = pages_of(int(row["order"])) * PAGE
        return {**self._record(s, row), "by": self._who(find, int(row["va"]), size)}

    def _record(self, s: Snapshot, row: np.void) -> dict[str, Any]:
        attr, v = int(row["attr"]), self.vattr
        bits = ((v["VATTR_W"], W), (v["VATTR_X"], X), (v["VATTR_U"], U))
        return {
            "space": s.spaces.get(int(row["space"]), "?"),
            "va": f"{int(row['va']):#x}",
            "mfn": f"{int(row['mfn']):#x}",
            "pages": pages_of(int(row["order"])),
            "perm": perm_text(sum(mine for theirs, mine in bits if attr & theirs)),
            "type": self.types[attr >> v["VATTR_TYPE_SHIFT"] & 7],
            "page": PAGES[int(row["level"])],
            "refs": int(row["refs"]),
        }

    def _pair(self, i: int, j: int, keys: tuple[str, ...]) -> dict[str, Any]:
        d = self.d
        row = d.b.mappings[j]
        was, now = self._record(d.a, d.a.mappings[i]), self._record(d.b, row)
        size = pages_of(int(row["order"])) * PAGE
        by = self._who(lambda va, n: d.who_changed(va, n), int(row["va"]), size)
        return {**now, "was": {k: was[k] for k in keys}, "by": by}

    def _rights_pair(self, i: int, j: int) -> dict[str, Any]:
        return self._pair(i, j, ("perm", "type"))

    def _moved_pair(self, i: int, j: int) -> dict[str, Any]:
        return self._pair(i, j, ("mfn", "pages", "page"))

    def _refs_pair(self, i: int, j: int) -> dict[str, Any]:
        return {**self._pair(i, j, ("refs",)), "by": None}

    # --- all of it ---------------------------------------------------------------------------------

    def _notes(self) -> Iterator[str]:
        d = self.d
        if d.other_boot:
            yield f"{d.a.name} and {d.b.name} are of different boots of the guest"
        for s in (d.a, d.b):
            yield from () if s.journal is None else s.journal.notes

    def values(self) -> dict[str, Any]:
        """For JSON."""
        keyed = {name.replace(" ", "_").replace(",", ""): v for name, v in self.sorts.items()}
        d = self.d
        return {
            "from": d.a.name,
            "to": d.b.name,
            "events": max(d.b.events - d.a.events, 0),
            **keyed,
            "spaces": self.spaces,
            "notes": list(dict.fromkeys(self._notes())),
        }

    def lines(self) -> Iterator[str]:
        """As text."""
        d = self.d
        yield f"{d.a.name} to {d.b.name}, {max(d.b.events - d.a.events, 0)} events"
        yield from self.spaces
        for sort, rows in self.sorts.items():
            if not rows:
                continue
            yield f"{sort}: {len(rows)}"
            yield from (f"  {_words(row)}" for row in rows[:SHOWN])
            if len(rows) > SHOWN:
                yield f"  ... and {len(rows) - SHOWN} more (--json has all)"
        yield self._summary()
        yield from (f"! {note}" for note in dict.fromkeys(self._notes()))

    def _summary(self) -> str:
        n = {name: len(rows) for name, rows in self.sorts.items()}
        moved = n["rights or memory type changed"] + n["led elsewhere, or of another size"]
        counts = n["counts of frames changed"] + n["references of mappings changed"]
        got = n["frames got"]
        return (
            f"{got} frame{'' if got == 1 else 's'} got, {n['frames put']} put; "
            f"{n['mappings made']} mappings made, {n['mappings gone']} gone, {moved} changed; "
            f"{counts} counts; {n['held without a mapping']} held without a mapping"
        )


def _words(row: dict[str, Any]) -> str:
    """One row of any sort."""
    was, by = row.get("was", {}), row.get("by")

    def value(key: str) -> str:
        return f"{was[key]} -> {row[key]}" if key in was and was[key] != row[key] else str(row[key])

    if "space" in row:
        head = f"{row['space']} {row['va']} {value('perm')} {value('type')} {value('page')}"
        text = f"{head} {_pages(value('pages'))} frame {value('mfn')} refs {value('refs')}"
    else:
        text = f"{row['mfn']} order {row['order']} {value('kind')}"
        text += f" refcount {value('refcount')} mapcount {value('mapcount')}"
    return f"{text}: {by}" if by else text


def _pages(text: str) -> str:
    return f"{text} page{'' if text == '1' else 's'}"


COMMANDS: list[Command] = [SnapshotCommand(), DiffCommand()]
