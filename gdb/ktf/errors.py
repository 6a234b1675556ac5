# SPDX-License-Identifier: BSD-2-Clause
# The errors that a user gets to see: one line each, what is wrong and how to go on.
"""Errors by kind. The text of each is one line, without a full stop at its end."""


class KtfError(Exception):
    """Something the user can understand: the message is all that is printed."""


class UsageError(KtfError):
    """The command line makes no sense."""


class NoGuest(KtfError):
    """There is nothing to look at: no connection, running, exited, paging off."""


class NotYet(NoGuest):
    """The guest has not come so far in its boot: paging is off, or the manager is not set up."""


class Unreadable(KtfError):
    """Bytes of the guest that can't be read.

    pa or va (whichever is known) say where.
    """

    def __init__(self, message: str, pa: int | None = None, va: int | None = None) -> None:
        super().__init__(message)
        self.pa = pa
        self.va = va


class Corrupt(KtfError):
    """Bytes of the guest that were read, but make no sense."""
