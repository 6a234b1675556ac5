# SPDX-License-Identifier: BSD-2-Clause
# ktf-acpi: the ACPI tables of the stopped guest, whatever system it runs.
"""The command ktf-acpi."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from contextlib import suppress

from ktf.acpi import view as acpi_view
from ktf.acpi.root import find_root
from ktf.acpi.tables import Table, Tables, read_root
from ktf.acpi.view import Holders
from ktf.commands.command import JSON, Args, Command, Option, json_line
from ktf.commands.frame import Broken
from ktf.errors import KtfError, UsageError
from ktf.kernel.context import Context
from ktf.kernel.database import Database
from ktf.kernel.session import Session
from ktf.x86.trace import trace

PHYSICAL_END = 1 << 52
ALIASES = {"FADT": "FACP", "MADT": "APIC"}
SIGNATURE = re.compile(r"[A-Z]{1,4}(?::\d*)?$")  # as it is typed
NAME = re.compile(r"([A-Za-z_!][A-Za-z0-9_!]{3})(?::(\d{1,4}))?$")


class AcpiCommand(Command):
    """The guest's ACPI tables: a list of all, one of them, or files of them. Works without symbols, too.

    ktf-acpi [--rsdp ADDRESS] [--json]
    ktf-acpi SIG[:N] | ADDRESS [--all] [--json]
    ktf-acpi SIG[:N] | ADDRESS --dump FILE
    ktf-acpi --dump-all DIR

    Without an operand: a line for each table that the root pointer (RSDP) leads to: signature, physical
    address, length in bytes, revision, who made it, checksum; with the symbols of our kernel also the
    frame that holds its first byte, the frame's kind, and how often its pages are mapped (mappings, and
    their references together). What is wrong with a table stands in lines that begin with `!`.
    SIG is a signature (FADT and MADT stand for FACP and APIC), SSDT:2 the second one of several; ADDRESS
    an expression: a physical address in a table, or a kernel address that leads to one.

    The RSDP is found by the boot loader's word to our kernel (boot_info.rsdp), else where a BIOS leaves
    it, else by a search in 256 MiB of memory below 4 GiB: first for EFI's configuration table. Only RAM is
    ever read.

      --rsdp ADDRESS   take the root pointer at this physical address
      --all            all bytes of the table, not only the first (with --json: "data")
      --dump FILE      write the table to a new file, which `iasl -d FILE` reads; only its owner may read it
      --dump-all DIR   write each table to a new file DIR/SIG.dat (DIR/SIG2.dat, ... for further ones)
      --json           one object on one line

    Example:
      (gdb) ktf-acpi HPET
      HPET at 0x7fe1add, 56 bytes, by RSDT entry 2
        revision    1, checksum good
        OEM         BOCHS, table BXPC, revision 0x1
        creator     BXPC, revision 0x1
        frame       0x7fe0 order 5 reserved refcount 1 mapcount 3
        mapped      kernel 0xffff800007fe1000 rw-- WB 4K refs 1, frame 0x7fe1
      0x0007fe1add  48 50 45 54 38 00 00 00  01 b4 42 4f 43 48 53 20   HPET8.....BOCHS
      ...

    Errors: no guest, a running guest, no RSDP, no such table, a table whose length can't be right (to
    be dumped), a FILE that is there already."""

    name = "ktf-acpi"
    operand = "expression"
    options = (
        Option("--rsdp", 1),
        Option("--all"),
        Option("--dump", 1),
        Option("--dump-all", 1),
        JSON,
    )

    def choices(self, context: Context, option: str) -> Sequence[str]:
        """Signatures of the tables that there are."""
        if option:
            return super().choices(context, option)
        with suppress(KtfError):
            return [t.name for t in _found(context, context.session(), Args())[0].tables]
        return ()

    def takes_operand(self, text: str) -> bool:
        """Capital letters begin a signature, anything else an expression."""
        return not SIGNATURE.match(self.token(text)) and super().takes_operand(text)

    def run(self, context: Context, args: Args) -> None:
        """All, one, or files."""
        self._check(args)
        session = context.session()
        operand = " ".join(args.rest)
        try:
            tables, notes = _found(context, session, args)
        except KtfError:
            if not operand or NAME.match(operand):
                raise
            tables, notes = Tables(session.reader, None), []  # an address needs no root pointer
        table = _chosen(context, session, tables, operand) if operand else None
        folder, file = args.value("--dump-all"), args.value("--dump")
        if folder is not None:
            context.write(dump_all(tables, _path(folder)))
        elif table is not None and file is not None:
            context.write(dump(table, _path(file)))
        else:
            self._show(context, session, args, (tables, table), notes)

    def _check(self, args: Args) -> None:
        """UsageError for what does not go together."""
        files = [o for o in ("--dump", "--dump-all", "--json") if args.has(o)]
        if len(files) > 1:
            raise UsageError(f"only one of {' and '.join(files)}; see `help ktf-acpi`")
        if args.has("--dump-all") and args.rest:
            raise UsageError("--dump-all takes no table; --dump FILE writes one")
        for option in ("--dump", "--all"):
            if args.has(option) and not args.rest:
                raise UsageError(
                    f"{option} needs a table: SIG, SIG:N or ADDRESS; see `help ktf-acpi`"
                )

    def _show(
        self,
        context: Context,
        session: Session,
        args: Args,
        what: tuple[Tables, Table | None],
        notes: list[str],
    ) -> None:
        tables, table = what
        holders, more = _holders(session)
        notes = [*notes, *more]
        root = tables.root
        if args.has("--json"):
            chosen = tables.tables if table is None else [table]
            rows = [acpi_view.values(t, holders, args.has("--all")) for t in chosen]
            rsdp = None if root is None else acpi_view.root_values(root)
            problems = (
                tables.problems if table is None else [table.problem] if table.problem else []
            )
            line = json_line(self.name, rsdp=rsdp, tables=rows, problems=problems, notes=notes)
            context.write(line)
            return
        if table is None:
            lines = list(acpi_view.listing(tables, holders))
        else:
            lines = list(acpi_view.one(table, tables, holders, args.has("--all")))
        lines += [f"! {note}" for note in notes]
        context.write("".join(f"{line}\n" for line in lines))


def _found(context: Context, session: Session, args: Args) -> tuple[Tables, list[str]]:
    """All tables, and lines on how the root pointer was found."""
    word = args.value("--rsdp")
    notes: list[str] = []
    if word is not None:
        root = read_root(session.reader, _number(context, word), "--rsdp")
    else:
        root, notes = find_root(session)
    return Tables(session.reader, root), notes


def _number(context: Context, text: str) -> int:
    """A plain number whatever GDB's language is, else an expression's value."""
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|\d{1,19}", text):
        return int(text, 16 if text[1:2] in ("x", "X") else 10)
    return context.evaluate(text)


def _chosen(context: Context, session: Session, tables: Tables, operand: str) -> Table:
    """The table that the operand means."""
    match = NAME.match(operand)
    if match:
        signature = ALIASES.get(match[1].upper(), match[1].upper())
        if signature == "RSDP" and tables.root is not None:
            return acpi_view.root_table(tables.root)
        same = [t for t in tables.tables if t.signature.upper() == signature]
        ordinal = int(match[2] or 1)
        if 0 < ordinal <= len(same):
            return same[ordinal - 1]
        names = ", ".join(t.name for t in tables.tables)
        if same or match[2]:
            raise KtfError(f"no table {operand}; there are: {names}")
    try:
        value = _number(context, operand)
    except KtfError as e:
        if not match:
            raise
        raise KtfError(f"no table {operand}; there are: {names}") from e
    return _by_address(session, tables, value)


def _by_address(session: Session, tables: Tables, value: int) -> Table:
    """The table that holds a physical address, or the one to which a kernel address leads."""
    pa, via = value, "its address"
    if value >= PHYSICAL_END:
        kernel = session.kernel
        table_root = session.cpu.root if kernel is None else kernel.memory.root
        found = trace(session.reader, table_root, session.rules, value)
        if found.pa is None:
            raise KtfError(f"{value:#x} is not mapped: {found.problem}; see ktf-maps {value:#x}")
        pa, via = found.pa, f"{value:#x}"
    root = tables.root
    if root is not None and root.pa <= pa < root.pa + len(root.data):
        return acpi_view.root_table(root)
    known = tables.at(pa)
    if known is not None:
        return known
    with suppress(KtfError):
        return acpi_view.root_table(read_root(session.reader, pa, via))
    table = tables.load(pa, via)
    if not table.data or not table.named:
        raise KtfError(f"no table at {pa:#x}: {table.problem}")
    return table


def _holders(session: Session) -> tuple[Holders, list[str]]:
    """The frame database, if there is one; and lines on why there is none, or on what is broken."""
    if session.types is None:
        return Holders(None), []
    try:
        db = Database(session)
        return Holders(db), Broken(db).notes()
    except KtfError as e:
        return Holders(None), [f"no frame database: {str(e).removeprefix('no frame database: ')}"]


# --- files -------------------------------------------------------------------------------------------


def _path(word: str) -> str:
    return os.path.realpath(os.path.expanduser(word.strip("\"'")))


def dump(table: Table, path: str) -> str:
    """Writes a table to a new file; what to say of it."""
    _write(path, _bytes(table))
    note = f"! {table.problem}\n" if table.problem else ""
    return f"{path}: {table.name}, {table.length} bytes; read it by: iasl -d {shlex.quote(path)}\n{note}"


def dump_all(tables: Tables, folder: str) -> str:
    """Writes each table to a file of its own; nothing is written if one of the files is there already."""
    names = {}
    for table in tables.tables:
        safe = re.sub(r"\W", "_", table.signature)
        names[f"{safe}{table.ordinal if table.ordinal > 1 else ''}.dat"] = table
    taken = [n for n in names if os.path.lexists(os.path.join(folder, n))]
    if taken:
        raise KtfError(f"{folder} has {', '.join(taken)} already: kept; give another DIR")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as e:
        raise KtfError(f"{folder}: {e.strerror}") from e
    lines = []
    for name, table in names.items():
        if not table.whole:
            lines.append(f"! {table.name} at {table.pa:#x} is left out: {table.problem}")
            continue
        _write(os.path.join(folder, name), table.data)
        lines.append(
            f"{name:10} {table.length:8} bytes" + f"  ! {table.problem}" * bool(table.problem)
        )
    lines.append(f"in {folder}; read them by: iasl -d {shlex.quote(folder)}/*.dat")
    return "".join(f"{line}\n" for line in lines)


def _bytes(table: Table) -> bytes:
    if not table.whole:
        raise KtfError(f"{table.name} at {table.pa:#x} can't be dumped: {table.problem}")
    return table.data


def _write(path: str, data: bytes) -> None:
    """A new file, for this user alone; removed again if it can't be written to its end."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise KtfError(f"{path} exists: it is kept; give another name") from None
    except OSError as e:
        raise KtfError(f"{path}: {e.strerror}") from e
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
    except OSError as e:
        with suppress(OSError):
            os.unlink(path)
        raise KtfError(f"{path}: {e.strerror}; nothing is left of it") from e


COMMANDS: list[Command] = [AcpiCommand()]
