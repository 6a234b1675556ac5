# SPDX-License-Identifier: BSD-2-Clause
# The modules that hold commands: each has a list COMMANDS of Command objects.
"""commands() imports them all; a new module of commands is one more line in MODULES."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from ktf.commands.command import Command

MODULES = (
    "ktf.commands.maps",
    "ktf.commands.frame",
    "ktf.commands.check",
    "ktf.commands.check_at",
    "ktf.commands.journal",
    "ktf.commands.core",
    "ktf.commands.snapshot",
    "ktf.commands.postmortem",
    "ktf.commands.acpi",
)


def commands() -> list[Command]:
    """Every command there is."""
    found: list[Command] = []
    for name in MODULES:
        if find_spec(name) is not None:
            found += import_module(name).COMMANDS
    return found
