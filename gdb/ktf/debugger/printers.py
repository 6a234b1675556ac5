# SPDX-License-Identifier: BSD-2-Clause
# Pretty-printers for the kernel's types, which GDB lists as `ktf` of the kernel's file.
"""watch(target): registers them for every file with our symbols that GDB has loaded or will load.

A printer is made for one value: its text, and its members as `set print pretty` and IDEs show them. Whatever the value
holds it is printed, nonsense as such; what it leads to (mappings, tables) is read as the commands read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import gdb
import gdb.printing

from ktf.commands.command import internal_error
from ktf.debugger.expressions import u64
from ktf.debugger.settings import own_language
from ktf.debugger.target import GdbTypes, Target, connect, is_kernel, lookup
from ktf.errors import KtfError
from ktf.kernel.layout import enum_names
from ktf.kernel.peek import Peek, of_record
from ktf.kernel.spaces import LIVE
from ktf.memory.readers import PAGE
from ktf.show.text import size_text
from ktf.x86.paging import ACCESSED, ADDRESS, DIRTY, GLOBAL, NX, P, PCD, PS, PWT, RW, US

Child = tuple[str, Any]
SHOWN = 4  # mappings of a frame
HOOK = "ktf_printers"
BITS = (
    (RW, "W"),
    (US, "U"),
    (PWT, "PWT"),
    (PCD, "PCD"),
    (ACCESSED, "A"),
    (DIRTY, "D"),
    (PS, "PS/PAT"),
    (GLOBAL, "G"),
)
FREE_BITS = ~(ADDRESS | NX | P | sum(bit for bit, _ in BITS)) & (1 << 64) - 1
VA_BITS = 57  # of an address, with 5 levels
_target: Target | None = None


class Printer:
    """Of one value. head() is its text, parts() its members; both may fail."""

    def __init__(self, value: gdb.Value) -> None:
        self.value = value

    def head(self) -> Any:
        """Text, or a value to be printed in its place."""
        raise NotImplementedError

    def to_string(self) -> Any:
        """GDB asks for the text."""
        try:
            with own_language():
                return self.head()
        except Exception as e:  # nothing may get through, or GDB shows a traceback
            return f"<{problem(e)}>"

    def value_of(self, name: str) -> int:
        """A member."""
        return int(self.value[name])

    @cached_property
    def guest(self) -> Peek:
        """The guest at this moment."""
        assert _target is not None
        return Peek(_target.glance())


class Members(Printer):
    """With members."""

    def parts(self) -> Iterator[Child]:
        """Name and value of each."""
        raise NotImplementedError

    def children(self) -> Iterator[Child]:
        """GDB asks for the members."""
        found: list[Child] = []
        try:
            with own_language():
                for child in self.parts():
                    found.append(child)
        except Exception as e:  # as above
            found.append(("error", problem(e)))
        return iter(found)


def problem(error: Exception) -> str:
    """In one line."""
    return str(error) if isinstance(error, (KtfError, gdb.error)) else internal_error(error)


def typed(number: int, name: str) -> gdb.Value:
    """As mfn_t, paddr_t, ..., whose printers show it."""
    kind = lookup(name)
    return gdb.Value((number & (1 << 64) - 1).to_bytes(8, "little"), kind)


def enumerator(number: int, name: str) -> gdb.Value:
    return gdb.Value(number).cast(lookup(f"enum {name}"))


class Mfn(Printer):
    """mfn_t: hexadecimal."""

    limit = 1 << 40  # by the architecture

    def head(self) -> str:
        """The number."""
        number = self.value_of("v")
        wrong = "" if number < self.limit else f" (nonsense: the limit is {self.limit:#x})"
        return f"{number:#x}{wrong}"


class Paddr(Mfn):
    """paddr_t."""

    limit = 1 << 52


class Address(Printer):
    """vaddr_t: as GDB prints a pointer, with the symbol there."""

    def head(self) -> str:
        """The address, and <symbol+offset>."""
        number = self.value_of("v")
        text = gdb.Value(number).cast(u64()).cast(lookup("void").pointer()).format_string()
        sign = number >> VA_BITS - 1
        return text if sign in (0, (1 << 65 - VA_BITS) - 1) else f"{text} (nonsense: not canonical)"


class Entry(Printer):
    """pgentry_t: the page it leads to, and its bits; a plain number if a format is asked for (p/x)."""

    def head(self) -> Any:
        """The bits."""
        plain = self.value.cast(u64())
        if gdb.print_options().get("format"):
            return plain
        return entry_text(int(plain))


def entry_text(entry: int) -> str:
    """In words. What bit 7 is depends on the level, which an entry does not tell."""
    if not entry & P:
        return f"{entry:#x} (not present)"
    names = [name for bit, name in BITS if entry & bit] + (["NX"] if entry & NX else [])
    rest = entry & FREE_BITS
    names += [f"other bits {rest:#x}"] if rest else []
    return f"{entry:#x} (mfn {(entry & ADDRESS) // PAGE:#x} {' '.join(names)}".rstrip() + ")"


class Frame(Members):
    """frame_t."""

    def head(self) -> str:
        """Its pages, kind, use."""
        kind, order, tail = (self.value_of(name) for name in ("kind", "order", "tail"))
        counts = self.value_of("refcount"), self.value_of("mapcount")
        if not kind:
            return f"no block's head: {f'{tail} pages behind it' if tail else 'not in use, or of a ring'}"
        use = "in use" if any(counts) else "free"
        size = size_text(PAGE << order)
        return f"frame {self.value_of('mfn'):#x}, order {order} ({size}), {kind_name(kind)}, {use}"

    def parts(self) -> Iterator[Child]:
        """What it is, who uses it, where it is mapped."""
        kind = self.value_of("kind")
        table = kind == constant("FRAME_TABLE")
        yield "mfn", typed(self.value_of("mfn"), "mfn_t")
        yield "order", self.value_of("order")
        yield "kind", enumerator(kind, "frame_kind")
        if not kind and self.value_of("tail"):
            yield "tail", self.value_of("tail")
        for name in ("level", "slot") if table else ():
            yield name, self.value_of(name)
        yield "refcount", self.value_of("refcount")
        yield "mapcount", self.value_of("mapcount")
        yield from self._mappings()
        if not table and self.value_of("epoch"):
            yield "epoch", self.value_of("epoch")
        wrong = ", ".join(self._nonsense(kind, table))
        if wrong:
            yield "nonsense", wrong

    def _mappings(self) -> Iterator[Child]:
        """The first of them, a line each."""
        first = self.value_of("maps")
        if not first:
            return
        try:
            for i, (record, wrong) in enumerate(self.guest.chain(first, SHOWN)):
                text = ""
                if record is not None:
                    text = f"{self.guest.line(of_record(record))} refs {record.value('refs', 0)}"
                    wrong = f"({wrong})" if wrong else ""
                yield f"mappings[{i}]", f"{text} {wrong}".strip()
        except KtfError as e:
            yield "mappings", f"record {first:#x} can't be followed: {e}"

    def _nonsense(self, kind: int, table: bool) -> Iterator[str]:
        """What no frame_t of a healthy guest holds."""
        order, level, mfn = (self.value_of(name) for name in ("order", "level", "mfn"))
        if not kind:
            others = ("level", "refcount", "mapcount", "maps")
            yield from (f"{name} without a kind" for name in others if self.value_of(name))
            return
        limit = constant("ORDER_MAX")
        if order > limit:
            yield f"order {order} is above {limit}"
        elif mfn % (1 << order):
            yield f"mfn {mfn:#x} is no multiple of {1 << order:#x}"
        if level > 5 or not table and level:  # a table in stock has level 0
            yield f"level {level}"
        if self.value_of("tail") or self.value_of("zero"):
            yield "it is a head and a tail" if self.value_of(
                "tail"
            ) else "bits that are always 0 are not"
        if bool(self.value_of("mapcount")) != bool(self.value_of("maps")):
            yield f"mapcount {self.value_of('mapcount')}, first mapping {self.value_of('maps'):#x}"


class Mapping(Members):
    """mapping_t."""

    def head(self) -> str:
        """Where it maps, with which rights."""
        if not self.value_of("refs"):
            return "no mapping: the record is not in use"
        return self.guest.line(self.value_of)

    def parts(self) -> Iterator[Child]:
        """What it maps, and by which entry."""
        order, level, attr = (self.value_of(name) for name in ("order", "level", "attr"))
        yield "refs", self.value_of("refs")
        if not self.value_of("refs"):
            return
        try:
            place = self.guest.place(self.value_of("at"))
            yield "space", place.space
            yield "va", typed(place.va, "vaddr_t")
            yield "entry", "can't be read" if place.entry is None else typed(
                place.entry, "pgentry_t"
            )
        except KtfError as e:
            yield "entry", f"can't be followed: {e}"
        yield "offset", self.value_of("offset")
        yield "order", order
        yield "level", level
        yield "attr", f"{attr:#x}"
        wrong = ", ".join(self._nonsense(order, level))
        if wrong:
            yield "nonsense", wrong

    def _nonsense(self, order: int, level: int) -> Iterator[str]:
        """What no record of a healthy guest holds."""
        if not 1 <= level <= 3:
            yield f"level {level}"
        elif order < 9 * (level - 1):
            yield f"order {order} is less than an entry of level {level} maps"
        if order > constant("ORDER_MAX"):
            yield f"order {order} is above {constant('ORDER_MAX')}"
        elif self.value_of("offset") % (1 << order):
            yield f"offset {self.value_of('offset'):#x} is no multiple of {1 << order:#x}"
        home, home_level = self.value_of("home"), self.value_of("home_level")
        if home.bit_count() & 1 != self.value_of("home_odd"):
            yield f"home {home} is not what home_odd says"
        if (home_level == 3) != self.value_of("home_1g"):
            yield f"home_level {home_level} is not what home_1g says"


class Space(Members):
    """space_t."""

    def head(self) -> str:
        """Its name."""
        name = bytes(
            int(self.value["name"][i]) & 0xFF for i in range(self.value["name"].type.sizeof)
        )
        text = "".join(chr(b) if 32 <= b < 127 else "?" for b in name.split(b"\0")[0])
        live = self.value_of("live")
        gone = "" if live == LIVE else f", not live (its mark is {live:#x})"
        return f'address space "{text}"{gone}{"" if 0 in name else ", a name without an end"}'

    def parts(self) -> Iterator[Child]:
        """Its tables, and who uses it."""
        cpus = self.value_of("cpus")
        yield "id", self.value_of("id")
        yield "cr3", typed(self.value_of("cr3"), "paddr_t")
        yield "levels", self.value_of("levels")
        yield "root", self.value_of("root")
        yield "tables", self.value_of("tables")
        yield "cpus", " ".join(str(i) for i in range(64) if cpus >> i & 1)
        if self.value_of("levels") not in (4, 5) or self.value_of("cr3") % PAGE:
            yield "nonsense", "levels are 4 or 5, cr3 is a page's address"


def constant(name: str) -> int:
    """An enumerator."""
    return GdbTypes().constant(name)


def kind_name(number: int) -> str:
    """ "available", "table", ..."""
    return enum_names(GdbTypes().enum("frame_kind"), "FRAME_").get(number, f"kind {number}")


class Kind(gdb.printing.SubPrettyPrinter):
    """One type's printer, to be listed and switched off by itself."""

    def __init__(self, name: str, printer: type[Printer], *others: str) -> None:
        super().__init__(name)
        self.printer = printer
        self.names = (name, *others)


class Collection(gdb.printing.PrettyPrinter):
    """`ktf` of `info pretty-printer`."""

    def __init__(self) -> None:
        kinds = (
            Kind("frame_t", Frame, "frame"),
            Kind("mapping_t", Mapping, "mapping"),
            Kind("space_t", Space, "space"),
            Kind("pgentry_t", Entry),
            Kind("mfn_t", Mfn),
            Kind("paddr_t", Paddr),
            Kind("vaddr_t", Address),
        )
        super().__init__("ktf", list(kinds))
        self.kinds = {name: kind for kind in kinds for name in kind.names}

    def __call__(self, value: gdb.Value) -> Printer | None:
        """The printer of a value by the name of its type; None if it has none."""
        kind = value.type.unqualified()
        while kind.name not in self.kinds and kind.code == gdb.TYPE_CODE_TYPEDEF:
            kind = kind.target().unqualified()
        found = self.kinds.get(kind.name or "")
        if found is None or not found.enabled or value.is_optimized_out:
            return None
        return found.printer(value)


def watch(target: Target) -> None:
    """From now on; what an earlier loading of the commands left is taken back."""
    global _target
    connect(gdb.events.new_objfile, HOOK, _loaded)
    _target = target
    for objfile in gdb.objfiles():
        _register(objfile)


def _loaded(event: gdb.NewObjFileEvent) -> None:
    """GDB has read another file."""
    _register(event.new_objfile)


def _register(objfile: gdb.Objfile) -> None:
    if is_kernel(objfile.lookup_global_symbol("mm")):
        gdb.printing.register_pretty_printer(objfile, Collection(), replace=True)
