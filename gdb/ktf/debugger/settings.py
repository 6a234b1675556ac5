# SPDX-License-Identifier: BSD-2-Clause
# GDB's settings for a while: our own language, the user's, and none in which an expression changes the guest.
"""setting(), own_language(), users_language(), nothing_changes(): context managers that put back what was.

What the commands look up (`&mm`, ARENA_FRAMES, `info symbol 0x...`) is C, whatever `set language` says: they run in
own_language(), and only what the user has written is evaluated in users_language().
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import gdb

# What an expression of the user may not do, and how GDB words its refusal. (`may-write-registers` can't be set while
# there is a guest.)
FORBIDDEN = {
    "may-call-functions": "a call runs the guest",
    "may-write-memory": "it changes the guest's memory",
}
REFUSALS = {
    "may-call-functions": "may-call-functions",
    "Writing to memory is not allowed": "may-write-memory",
}
_languages: list[str] = []  # the user's, one for each own_language() that is entered


def _set(name: str, value: str) -> None:
    gdb.execute(f"set {name} {value}", to_string=True)


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """A parameter of GDB for a while; the user's own is put back, though Ctrl-C is pressed meanwhile."""
    before = gdb.parameter(name)
    if isinstance(before, bool):
        before = "on" if before else "off"
    if before == value:
        yield
        return
    try:
        _set(name, value)
        yield
    finally:
        try:
            _set(name, before)
        except KeyboardInterrupt:
            _set(name, before)
            raise


@contextmanager
def own_language() -> Iterator[None]:
    """What we look up is C."""
    _languages.append(gdb.parameter("language"))
    try:
        with setting("language", "c"):
            yield
    finally:
        _languages.pop()


def users() -> str:
    """The user's language: "auto", "c", "pascal", ..."""
    return _languages[-1] if _languages else str(gdb.parameter("language"))


@contextmanager
def users_language() -> Iterator[None]:
    """Within own_language(): that of the user."""
    with setting("language", users()):
        yield


@contextmanager
def nothing_changes() -> Iterator[None]:
    """An expression neither writes to memory nor runs the guest: GDB refuses with an error."""
    with ExitStack() as stack:
        for name in FORBIDDEN:
            stack.enter_context(setting(name, "off"))
        yield


def refusal(message: str) -> str:
    """Why GDB refused, in a few words; "" if its error is about something else."""
    return next((FORBIDDEN[name] for said, name in REFUSALS.items() if said in message), "")
