# SPDX-License-Identifier: BSD-2-Clause
# What GDB knows of the guest: registers, symbols, types, the connection; and what commands print.
"""Target: GDB's side of what the commands need.

Physical memory is read with raw packets in QEMU's physical mode. These pass by GDB's own caches, so
that nothing physical is left in them; the mode is put back as it was in a finally.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from mmap import PROT_READ, mmap
from socket import socket
from typing import Any, TypeVar

import gdb

from ktf.cores.read import Core, open_core
from ktf.debugger.disassembly import bytes_at
from ktf.debugger.expressions import U64, evaluate, u64
from ktf.debugger.said import said
from ktf.debugger.settings import setting
from ktf.debugger.stops import break_at
from ktf.debugger.unwound import functions as calls, unwound
from ktf.errors import KtfError, NoGuest, Unreadable
from ktf.kernel.backtrace import Backtrace
from ktf.kernel.context import Breakpoint
from ktf.kernel.kernel import Segment, elf_segments
from ktf.kernel.layout import FieldDesc, Symbol, TypeDesc
from ktf.kernel.session import Session
from ktf.kernel.symtab import Functions, functions
from ktf.memory import stub
from ktf.memory.qemu import READERS, Opened, log_tail, open_reader, physical_bits
from ktf.postmortem.intlog import TAIL
from ktf.x86.cpu import Cpu
from ktf.x86.registers import Registers, parse

T = TypeVar("T")
PACKET = 2048  # bytes of memory that any QEMU's stub puts in one answer
RUNNING = "the guest is running; stop it with `interrupt`"
IS_RUNNING = "while the target is running"  # GDB's words for it


class GdbTypes:
    """layout.Types, from the DWARF that GDB has loaded."""

    def __init__(self) -> None:
        self._structs: dict[str, TypeDesc] = {}

    def struct(self, name: str) -> TypeDesc:
        """See layout.Types."""
        if name not in self._structs:
            desc = _describe(lookup(name))
            if desc.kind != "struct":
                raise KtfError(f"{name} is no struct in the symbols")
            self._structs[name] = desc
        return self._structs[name]

    def enum(self, name: str) -> dict[str, int]:
        """See layout.Types."""
        return {f.name: int(f.enumval) for f in lookup(f"enum {name}").fields()}

    def constant(self, name: str) -> int:
        """See layout.Types."""
        try:
            return int(gdb.parse_and_eval(name))
        except gdb.error as e:
            raise KtfError(f"the symbols have no {name}") from e

    def symbol(self, name: str) -> Symbol | None:
        """See layout.Types."""
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            return None
        try:
            # The kernel's own, not a local variable of that name of the function it stopped in.
            found = gdb.lookup_global_symbol(name) or gdb.lookup_static_symbol(name)
            pointer = found.value().address if found else gdb.parse_and_eval(f"&{name}")
            va, kind = int(pointer) & U64, pointer.type.target()
            if kind.code != gdb.TYPE_CODE_FUNC:
                return Symbol(name, va, kind.sizeof)
            return Symbol(name, *_function(name, va))
        except gdb.error:
            return None


def connect(registry: Any, hook: str, function: Callable[[Any], None]) -> None:
    """Calls the function for each of the registry's events; what an earlier loading of the commands left is taken back.

    It is kept under the name `hook` in the module gdb, which is not loaded again.
    """
    earlier = getattr(gdb, hook, None)
    if earlier is not None:
        registry.disconnect(earlier)
    registry.connect(function)
    setattr(gdb, hook, function)


def lookup(name: str) -> gdb.Type:
    try:
        return gdb.lookup_type(name)
    except gdb.error as e:
        raise KtfError(f"the symbols have no {name}") from e


def _describe(kind: gdb.Type) -> TypeDesc:
    """A DWARF type as plain data."""
    kind = kind.strip_typedefs()
    name = kind.name or kind.tag or ""
    if kind.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        return TypeDesc("struct", kind.sizeof, name, fields=tuple(_fields(kind, 0)))
    if kind.code == gdb.TYPE_CODE_ARRAY:
        return TypeDesc("array", kind.sizeof, name, element=_describe(kind.target()))
    if kind.code == gdb.TYPE_CODE_INT and name == "char":
        return TypeDesc("char", 1, name)
    signed = kind.code == gdb.TYPE_CODE_INT and kind.is_signed
    return TypeDesc("int" if signed else "uint", kind.sizeof, name)


def _fields(kind: gdb.Type, base: int) -> Iterator[FieldDesc]:
    """Members by bit position; those of anonymous members as if they were its own."""
    for field in kind.fields():
        if not hasattr(field, "bitpos"):
            continue
        if field.name:
            desc = _describe(field.type)
            yield FieldDesc(field.name, base + field.bitpos, field.bitsize, desc)
        else:
            yield from _fields(field.type.strip_typedefs(), base + field.bitpos)


class GdbLink:
    """qemu.Link: the remote connection of the selected inferior."""

    def __init__(self, connection: gdb.RemoteTargetConnection) -> None:
        self.connection = connection
        self.details = connection.details or ""
        self._most = 0

    def monitor(self, command: str) -> str:
        """See qemu.Link."""
        try:
            sock = self._socket()
            if sock is not None:
                with sock:
                    return stub.monitor(sock, command)
            return said(f"monitor {command}")
        except gdb.error as e:
            if IS_RUNNING in str(e):
                raise NoGuest(RUNNING) from e
            raise KtfError(f"`monitor {command}`: {e}") from e

    def read_physical(self, blocks: list[tuple[int, int]]) -> list[bytes]:
        """See qemu.Link."""
        sock = self._socket()
        with self._physical_mode():
            if sock is None:
                return [self._read(pa, size) for pa, size in blocks]
            with sock:
                return stub.read_blocks(sock, blocks, self._packet_memory())

    def _socket(self) -> socket | None:
        """GDB's to the stub; None if there is none, or the stub may speak unasked: then GDB itself sends and receives."""
        if gdb.parameter("non-stop"):
            return None
        return stub.borrow(self.details)

    def _read(self, pa: int, size: int) -> bytes:
        parts = []
        most = self._packet_memory()
        for at in range(pa, pa + size, most):
            part = min(most, pa + size - at)
            answer = self._packet(f"m{at:x},{part:x}")
            if len(answer) != 2 * part:
                raise Unreadable(f"the stub can't read physical address {at:#x}", at)
            parts.append(bytes.fromhex(answer))
        return b"".join(parts)

    def _packet_memory(self) -> int:
        """Bytes of memory in one answer, by the packet size that the stub announces: two digits a byte.

        To be asked for it again changes nothing in QEMU's stub: this names no feature of the client.
        """
        if not self._most:
            self._most = stub.memory_of(self._packet("qSupported")) or PACKET
        return self._most

    @contextmanager
    def _physical_mode(self) -> Iterator[None]:
        before = self._packet("qqemu.PhyMemMode")
        if before not in ("0", "1"):
            raise NoGuest("the stub has no physical mode: it is not QEMU's")
        try:
            if self._packet("Qqemu.PhyMemMode:1") != "OK":
                raise NoGuest("the stub refuses its physical mode")
            yield
        finally:
            self._packet(f"Qqemu.PhyMemMode:{before}")

    def _packet(self, text: str) -> str:
        try:
            return (self.connection.send_packet(text) or b"").decode("ascii")
        except (gdb.error, UnicodeDecodeError) as e:
            raise Unreadable(f"the connection to the guest fails: {e}") from e


class Target:
    """command.Context with GDB behind it. One lives as long as GDB."""

    def __init__(self) -> None:
        self.wanted_reader = READERS[0]
        self.story: list[str] = []
        self._opened: dict[tuple[int, str, str], Opened] = {}
        self._phys_bits: dict[int, int | None] = {}
        self._core: tuple[tuple[object, ...], Core] | None = None
        self._last: weakref.ref[Session] | None = None
        self.last_stop = ""  # kept by alarm.py, and so is this
        self.stops = 0
        self._selected_at: tuple[int, int] | None = None

    # The guest -------------------------------------------------------------------------------------

    def session(self) -> Session:
        """See command.Context."""
        # A session and its database hold each other: without this both stay until Python happens to look for such pairs.
        before = self._last() if self._last else None
        if before is not None:
            before.forget()
        try:
            session = self._session()
            self._last = weakref.ref(session)
            return session
        except gdb.error as e:
            text = " ".join(str(e).split())
            if IS_RUNNING in text:
                raise NoGuest(RUNNING) from e
            if gdb.selected_thread() is not None:
                raise KtfError(f"GDB fails at the guest's registers: {text!r}") from e
            raise NoGuest(f"no guest: GDB says {text!r}; connect with `target remote :1234`") from e

    def glance(self) -> Session:
        """The same with the selected CPU alone: no thread is switched to, so GDB may be in the midst of its work."""
        return self._session(whole=False)

    def _session(self, whole: bool = True) -> Session:
        connection, thread = _connected()
        types = GdbTypes() if is_kernel(gdb.lookup_global_symbol("mm")) else None
        image = _image() if types else []
        if connection.type == "core":
            core = self._core_file(_core_path())
            if self.wanted_reader not in ("auto", "core"):
                raise KtfError(
                    f"can't read by {self.wanted_reader}: the guest is a core file, which is read as it is; "
                    "`set ktf reader auto` lets it be"
                )
            self.story = [f"read by core: {core.reader.detail}; a core is always read as it is"]
            selected = min(max(_number(thread), 0), len(core.registers) - 1)
            own = core.cpus, selected, core.reader, types, image, core.phys_bits
            session = Session(*own, lambda: core.registers, self._backtrace)
            session.cut, session.notes = core.cut, [core.cut] if core.cut else []
            return session
        if "big" in said("show endian"):
            raise KtfError("GDB takes the guest for big-endian: `set endian auto` lets it be")
        link = GdbLink(connection)
        selected = _number(thread)
        cpus = [c for _, c in _each_cpu(thread, _cpu)] if whole else [_cpu(selected)]
        mtree = link.monitor("info mtree -f")
        key = (connection.num, mtree, self.wanted_reader)
        if key not in self._opened:
            root = next(c.root for c in cpus if c.number == selected)
            self._opened.clear()
            self._opened[key] = open_reader(link, self.wanted_reader, mtree, [root])
            self._phys_bits = {connection.num: physical_bits(link)}
        opened = self._opened[key]
        self.story = opened.story(self.wanted_reader)
        opened.reader.begin()
        bits = self._phys_bits.get(connection.num)
        args = cpus, selected, opened.reader, types, image, bits
        session = Session(*args, lambda: _registers(link, thread))
        if whole:
            session.unwind = self._backtrace
        return session

    def _core_file(self, path: str) -> Core:
        """The core of that name, opened again only if it is another file now."""
        try:
            found = os.stat(path)
        except OSError as e:
            raise KtfError(f"{path}: {e.strerror}") from e
        key = (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if self._core is None or self._core[0] != key:
            self._core = key, open_core(path)
        return self._core[1]

    def evaluate(self, expression: str) -> int:
        """See command.Context."""
        return evaluate(self._with_registers(expression), expression)

    def _with_registers(self, expression: str) -> str:
        """On a core, whose control registers GDB does not know: their values in their places."""
        connection = gdb.selected_inferior().connection
        if not re.search(r"\$cr[0234]\b", expression) or getattr(connection, "type", "") != "core":
            return expression
        cpu = self.session().cpu
        return re.sub(r"\$(cr[0234])\b", lambda m: str(getattr(cpu, m[1])), expression)

    def source(self, va: int) -> str:
        """See command.Context."""
        try:
            text = said(f"info symbol {va:#x}")
            name = text.split(" in section")[0].strip()
            if name.startswith("No symbol"):
                return ""
            block = _block_at(va)
            inlined = block.function.name if block else ""
            if inlined and name.split()[0].split("+")[0] != inlined:
                name = inlined  # to which the line below belongs
            line = _line_at(va, block)
            return f"{name} at {line}" if line else name
        except (gdb.error, OverflowError):
            return ""

    def instruction(self, va: int, code: bytes = b"") -> tuple[str, int]:
        """See command.Context."""
        if not code and not self.source(va):
            return "", 0  # what GDB reads there on QEMU's own core is physical memory
        machine = gdb.selected_inferior().architecture()
        with bytes_at(va, code):
            return self._disassembled(machine, va)

    def _disassembled(self, machine: gdb.Architecture, va: int) -> tuple[str, int]:
        for trust in ("off", "on"):  # the file's text will do where the guest's can't be read
            try:
                with (
                    setting("trust-readonly-sections", trust),
                    setting("disassembly-flavor", "att"),
                ):
                    found = machine.disassemble(va, count=1)[0]
                return " ".join(str(found["asm"]).split()), int(found["length"])
            except (gdb.error, OverflowError):
                continue
        return "", 0

    def unwound(self, cpu: int) -> list[tuple[int, int]]:
        """See command.Context."""
        return self._on(cpu, unwound) or []

    def _backtrace(self, cpu: int) -> Backtrace:
        """See Session.unwind."""
        return self._on(cpu, calls) or Backtrace()

    def _on(self, cpu: int, read: Callable[[], T]) -> T | None:
        """What read() says of that CPU; None if GDB has no such thread."""
        _, thread = _connected()
        return dict(_each_cpu(thread, lambda n: read() if n == cpu else None)).get(cpu)

    def vm_status(self) -> str:
        """See command.Context."""
        connection, _ = _connected()
        if connection.type == "core":
            return self._core_file(_core_path()).ended.status
        answer = GdbLink(connection).monitor("info status")
        found = re.search(r"VM status: (\w+)(?: \((.*?)\))?", answer)
        return (found[2] or found[1]) if found else ""

    def fault_log(self) -> str:
        """See command.Context."""
        connection, _ = _connected()
        if connection.type == "core":
            return self._core_file(_core_path()).ended.log
        return log_tail(connection.details or "", TAIL)

    def stop_kind(self) -> str:
        """See command.Context."""
        connection, _ = _connected()
        if connection.type == "core":
            return self._core_file(_core_path()).ended.stop
        return self.last_stop

    def thread_of(self, cpu: int) -> int | None:
        """See command.Context."""
        threads = gdb.selected_inferior().threads()
        return next((t.num for t in threads if _number(t) == cpu), None)

    def select_once(self, cpu: int) -> int | None:
        """See command.Context. What the user selects afterwards stays."""
        connection, thread = _connected()
        here = connection.num, self.stops
        if here == self._selected_at:
            return None
        self._selected_at = here
        for other in gdb.selected_inferior().threads():
            if _number(other) == cpu and _number(thread) != cpu:
                other.switch()
                return int(other.num)
        return None

    # The user --------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """See command.Context."""
        gdb.write(text)

    def reader_story(self) -> list[str]:
        """See command.Context."""
        return self.story

    def set_variable(self, name: str, value: int) -> None:
        """See command.Context."""
        gdb.set_convenience_variable(name, value)

    def break_at(self, where: str, asked: Callable[[], bool]) -> Breakpoint:
        """See command.Context."""
        return break_at(where, asked)

    def quit(self, status: int) -> None:
        """See command.Context."""
        gdb.flush()
        try:
            gdb.execute("disconnect", to_string=True)
        except gdb.error:
            pass  # a core, or no guest at all
        gdb.execute(f"quit {status}")


def _block_at(va: int) -> gdb.Block | None:
    """The function whose code stands there, be it inlined into another one; None if none is known."""
    block = gdb.block_for_pc(va)
    while block is not None and block.function is None:
        block = block.superblock
    return block


def _line_at(va: int, block: gdb.Block | None) -> str:
    """ "file:line" in that function; "" if none is known.

    Where the code of a function that is inlined ends, GDB may still name that one's line, in a header.
    """
    line = gdb.find_pc_line(va)
    if line.symtab is None:
        return ""
    own = block.function.symtab if block else None
    if block and own and line.symtab.filename != own.filename:
        lines = [e for e in own.linetable() if block.start <= e.pc <= va and e.line]
        if lines:
            return f"{own.filename}:{max(lines, key=lambda e: e.pc).line}"
    return f"{line.symtab.filename}:{line.line}"


def _connected() -> tuple[gdb.TargetConnection, gdb.InferiorThread]:
    """The connection and the selected thread; NoGuest if there is nothing stopped behind it."""
    connection = gdb.selected_inferior().connection
    try:
        thread = gdb.selected_thread()
    except SystemError as e:  # Ctrl-C was pressed while QEMU did not answer
        text = "`disconnect`, then `target remote :1234` again"
        raise NoGuest(f"GDB has lost the guest ({e}): {text}") from e
    if connection is None or thread is None:
        raise NoGuest("no guest: start one (`make debug`), or connect with `target remote :1234`")
    if connection.type == "core":
        return connection, thread
    if not isinstance(connection, gdb.RemoteTargetConnection):
        raise NoGuest(f"a guest of QEMU is needed, not a {connection.type} process")
    if any(t.is_running() for t in gdb.selected_inferior().threads()):
        # Where a breakpoint's condition is judged they still count as running, but can be read.
        try:
            gdb.selected_frame().pc()
        except gdb.error as e:
            raise NoGuest(RUNNING) from e
    return connection, thread


def _number(thread: gdb.InferiorThread) -> int:
    """QEMU counts its CPUs from 0, the stub's threads are one more."""
    return thread.ptid[1] - 1


def _each_cpu(selected: gdb.InferiorThread, read: Callable[[int], T]) -> Iterator[tuple[int, T]]:
    """Number of each CPU and what read() says of it; the selected thread and frame stay as they are."""
    try:
        frame = gdb.selected_frame()
    except gdb.error:
        frame = None  # GDB can't unwind from there; the registers are there all the same
    try:
        for thread in sorted(gdb.selected_inferior().threads(), key=lambda t: t.num):
            thread.switch()
            yield _number(thread), read(_number(thread))
    finally:
        selected.switch()
        if frame is not None and frame.is_valid():
            frame.select()


def _registers(link: GdbLink, selected: gdb.InferiorThread) -> list[Registers]:
    """All registers of each CPU: the monitor tells all but one."""
    found = {r.number: r for r in parse(link.monitor("info registers -a"))}
    gs = dict(_each_cpu(selected, lambda number: _register("k_gs_base")))
    return [replace(found[n], kernel_gs_base=base) for n, base in gs.items() if n in found]


def _register(name: str) -> int:
    """Of the selected thread."""
    value = gdb.parse_and_eval(f"${name}")
    if value.type.code == gdb.TYPE_CODE_VOID:
        raise NoGuest(f"the stub has no register {name}: is it a 64-bit x86 guest of QEMU?")
    return int(value.cast(u64()))


def _cpu(number: int) -> Cpu:
    names = ("cr0", "cr2", "cr3", "cr4", "efer", "rip", "rsp")
    return Cpu(number, **{name: _register(name) for name in names})


def _core_path() -> str:
    """The core file that GDB has open."""
    text = said("info files")
    found = re.search(r"Local core dump file:\s+`(.*)', file type", text)
    if not found:
        raise NoGuest("GDB does not tell the name of its core file")
    return found[1]


def is_kernel(symbol: gdb.Symbol | None) -> bool:
    """True if this `mm` is a kernel's, of our kind."""
    if symbol is None or symbol.type is None:
        return False
    kind = symbol.type.strip_typedefs()
    if kind.code != gdb.TYPE_CODE_STRUCT:
        return False
    return {"magic", "arena", "space_list"} <= {f.name for f in kind.fields()}


def _kernel_path() -> str:
    """The file that the kernel's symbols are from."""
    return str(gdb.lookup_global_symbol("mm").symtab.objfile.filename)


def _function(name: str, va: int) -> tuple[int, int]:
    """Address and size of the function that GDB has there; where the kernel's file is gone, what GDB's blocks say."""
    path = _kernel_path()
    try:
        version = os.stat(path)
        found = _functions(path, version.st_ino, version.st_mtime_ns).find(name, va)
        if found is not None:
            return found
    except (OSError, ValueError, KtfError):
        pass
    outermost, block = None, gdb.block_for_pc(va)
    while block is not None and not block.is_static:
        outermost = block if block.function is not None else outermost
        block = block.superblock
    return va, outermost.end - va if outermost is not None and outermost.start == va else 1


@lru_cache(maxsize=2)
def _functions(path: str, *version: int) -> Functions:
    """Of that file, read again only if it is another one."""
    with open(path, "rb") as f, mmap(f.fileno(), 0, prot=PROT_READ) as contents:
        return functions(contents)


def _image() -> list[Segment]:
    """Where the kernel's file says that its segments lie in physical memory."""
    try:
        with open(_kernel_path(), "rb") as f:
            return elf_segments(f.read(65536))
    except (OSError, KtfError):
        return []
