# SPDX-License-Identifier: BSD-2-Clause
# Makes GDB commands, functions and parameters of ours.
"""register(), register_function(), register_parameters(): what ktf-gdb.py calls when it is loaded."""

from __future__ import annotations

import inspect

import gdb

from ktf.commands.command import Command, internal_error, json_line
from ktf.debugger.expressions import U64, number, u64
from ktf.debugger.functions import Function
from ktf.debugger.settings import own_language
from ktf.debugger.target import Target, lookup
from ktf.errors import KtfError
from ktf.memory.qemu import READERS


OPERANDS = {
    "expression": gdb.COMPLETE_EXPRESSION,
    "location": gdb.COMPLETE_LOCATION,
    "file": gdb.COMPLETE_FILENAME,
}


def register(target: Target, command: Command) -> None:
    """Makes a GDB command of it."""

    class Registered(gdb.Command):
        """Replaced by the command's own help."""

        __doc__ = command.__doc__

        def invoke(self, argument: str, from_tty: bool) -> None:
            """Runs it; errors become one line."""
            self.dont_repeat()
            try:
                with own_language():
                    command.invoke(target, argument)
            except KtfError as e:
                raise gdb.GdbError(f"{command.name}: {e}") from None
            except KeyboardInterrupt:
                if "--json" in argument.split():
                    gdb.write(json_line(command.name, False, error="interrupted"))
                    return
                raise gdb.GdbError(f"{command.name}: interrupted") from None

        def complete(self, text: str, word: str | None) -> object:
            """Options, the values of the option before the cursor, symbols for an operand."""
            try:
                if command.takes_operand(text):
                    return OPERANDS[command.operand]
                with own_language():
                    return command.complete(target, text, word)
            except (KtfError, gdb.error):
                return []

    Registered(command.name, gdb.COMMAND_DATA)


def register_function(target: Target, function: Function) -> None:
    """Makes a GDB convenience function of it."""

    class Registered(gdb.Function):
        """Replaced by the function's own help."""

        __doc__ = inspect.cleandoc(function.__doc__ or "")  # GDB does so for commands alone

        def invoke(self, *values: gdb.Value) -> gdb.Value:
            """Calls it; errors become one line."""
            try:
                with own_language():
                    result = function.call(target, *(_as_number(v) for v in values))
                    value = gdb.Value(result & U64).cast(u64())
                    if function.pointer:
                        value = value.cast(lookup(function.pointer).pointer())
                    return value
            except KeyboardInterrupt:
                raise gdb.GdbError(f"${function.name}: interrupted") from None
            except Exception as e:  # the one place where nothing may get through
                message = str(e) if isinstance(e, KtfError) else internal_error(e)
                raise gdb.GdbError(f"${function.name}: {message}") from None

    Registered(function.name)


def _as_number(value: gdb.Value) -> int:
    """An argument as an unsigned 64-bit number; a struct as its address."""
    kind = value.type.strip_typedefs()
    if kind.code == gdb.TYPE_CODE_STRUCT and len(kind.fields()) != 1 and value.address is not None:
        value = value.address
    return number(value)


def register_parameters(target: Target) -> None:
    """set/show ktf reader."""

    class Prefix(gdb.Command):
        """Replaced by that of the verb."""

        def __init__(self, verb: str) -> None:
            self.verb = verb
            self.__doc__ = f"{verb.capitalize()} how the ktf commands work: `{verb} ktf reader`."
            super().__init__(f"{verb} ktf", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)

        def invoke(self, argument: str, from_tty: bool) -> None:
            """Without the name of a setting: shows all, and says what can be set."""
            if self.verb == "set" or argument:
                raise gdb.GdbError(
                    f"{self.verb} ktf: there is: reader; see `help {self.verb} ktf reader`"
                )
            gdb.execute("show ktf reader")

    for verb in ("set", "show"):
        Prefix(verb)

    class ReaderParameter(gdb.Parameter):
        """How the guest's memory is read.

        auto     the first of these that works (the default)
        ramfile  the guest's RAM file (memory-backend-file,share=on), mapped
        procmem  /proc/PID/mem of a QEMU on this machine
        gdbstub  physical reads through the stub: slow, always there
        core     the core file that GDB has open, which is never read in another way

        All give the same answers. `ktf-maps -v` shows which one is used, and why. One that can't be used
        is an error of the next command, which says what to do.

        Example:
          (gdb) set ktf reader gdbstub
          (gdb) show ktf reader
          The guest's memory is read by: gdbstub."""

        set_doc = "Set how the guest's memory is read."
        show_doc = "Show how the guest's memory is read."

        def __init__(self) -> None:
            super().__init__("ktf reader", gdb.COMMAND_DATA, gdb.PARAM_ENUM, READERS)
            self.value = READERS[0]

        def get_set_string(self) -> str:
            """Takes it over."""
            target.wanted_reader = self.value
            return ""

        def get_show_string(self, value: str) -> str:
            """What `show ktf reader` prints."""
            return f"The guest's memory is read by: {value}."

    ReaderParameter()
