# SPDX-License-Identifier: BSD-2-Clause
# ktf-check-at: the rules at each stop at a place of the kernel, which ends at the first violation.
"""The command ktf-check-at."""

from __future__ import annotations

import re

from collections.abc import Sequence

from ktf.commands.check import chosen_rules, text, unsettled_text
from ktf.commands.command import JSON, Args, Command, Option, internal_error, json_line
from ktf.errors import KtfError, NotYet, UsageError
from ktf.kernel.context import Breakpoint, Context
from ktf.rules.examine import examine
from ktf.rules.table import RULES


class Point:
    """One place: how often it was reached and checked, and what was found."""

    def __init__(self, context: Context, where: str, every: int, rules: Sequence[str]) -> None:
        self.context = context
        self.where = where
        self.every = every
        self.rules = rules
        self.hits = self.checks = 0
        self.breakpoint: Breakpoint | None = None

    def stop(self) -> bool:
        """The guest is there: True if it shall stay. Never raises."""
        self.hits += 1
        if self.hits % self.every:
            return False
        try:
            return self._check()
        except NotYet:
            return False  # early in the boot: there is nothing to check yet
        except KeyboardInterrupt:
            self.context.write(f"ktf-check-at {self.where}: interrupted\n")
        except Exception as e:  # GDB would print it as a traceback and run on
            message = str(e) if isinstance(e, KtfError) else internal_error(e)
            self.context.write(f"ktf-check-at {self.where}: can't check: {message}\n")
        return True

    def _check(self) -> bool:
        report, counts = examine(self.context.session(), self.rules)
        self.checks += 1
        total = report.total()
        self.context.set_variable("ktf_violations", total)
        if not total:
            return False
        head = f"ktf-check-at {self.where}: hit {self.hits}, check {self.checks}:\n"
        unsettled = unsettled_text(report.held, report.unsettled or type(report)())
        self.context.write(head + unsettled + text(report, counts))
        return True

    def line(self) -> str:
        """What it has done."""
        number = self.breakpoint.number if self.breakpoint else 0
        every = f" every {self.every}" if self.every > 1 else ""
        return f"breakpoint {number} at {self.where}{every}: {self.hits} hits, {self.checks} checks"


class CheckAtCommand(Command):
    """Checks the rules of ktf-pt-check whenever the guest comes to a place; stops at the first violation.

    ktf-check-at LOCATION [every N] [--rule R[,R...]]
    ktf-check-at [--json]

    LOCATION is what GDB's `break` takes: a function, FILE:LINE, *ADDRESS. The guest runs on by itself as
    long as nothing is broken; then it stops there, the violations are printed as ktf-pt-check prints them,
    and $ktf_violations is their number. While nothing can be checked yet (before the memory manager is set
    up) it runs on. Without LOCATION: what has been checked so far. `delete NUMBER` ends it.

      every N       only at every Nth time (a check takes some hundredths of a second)
      --rule R,...  these rules alone, e.g. --rule P1,P2
      --json        one object on one line

    Example:
      (gdb) ktf-check-at ktf_ready
      Breakpoint 2 at 0xffffffff8021e190: file kernel/main.c, line 37.
      (gdb) continue
      Continuing.
      ktf-check-at ktf_ready: hit 1, check 1:
      P4: kernel va 0xffffc07000001000 level 1 entry 0x8000000007fc7003 mfn 0x7fc7: maps frame 0x7fc7 (order 0, available), but no record stands for this entry (its shadow is 0x0)
      446 entries, 212 frames, 165 mappings: 1 violations
      ...

    In a script: `ktf-check-at LOCATION`, a breakpoint where the run ends, `continue`, and then
    `ktf-pt-check --quit`, which makes 0 or 1 GDB's exit status.

    Errors: a place that the symbols don't know, N that is no positive number."""

    name = "ktf-check-at"
    operand = "location"
    options = (Option("--rule", 1, tuple(RULES), True), JSON)

    def __init__(self) -> None:
        self.points: list[Point] = []

    def run(self, context: Context, args: Args) -> None:
        """Makes a breakpoint, or lists those made before."""
        self.points = [p for p in self.points if p.breakpoint and p.breakpoint.is_valid()]
        if args.rest:
            self._add(context, args)
        elif args.has("--rule"):
            raise UsageError("--rule goes with LOCATION; see `help ktf-check-at`")
        elif args.has("--json"):
            points = [
                {
                    "number": p.breakpoint.number if p.breakpoint else None,
                    "location": p.where,
                    "every": p.every,
                    "hits": p.hits,
                    "checks": p.checks,
                }
                for p in self.points
            ]
            context.write(json_line(self.name, points=points))
        else:
            lines = [p.line() for p in self.points] or ["nothing is checked; give a LOCATION"]
            context.write("".join(f"{line}\n" for line in lines))

    def _add(self, context: Context, args: Args) -> None:
        words, every = args.rest, 1
        if "every" in words:
            at = words.index("every")
            number = words[at + 1 :]
            if len(number) != 1 or not re.fullmatch("0*[1-9][0-9]*", number[0]):
                raise UsageError("`every` needs one positive number, e.g. `every 10`")
            words, every = words[:at], int(number[0])
        if not words:
            raise UsageError("no LOCATION; see `help ktf-check-at`")
        where = " ".join(words)
        point = Point(context, where, every, chosen_rules(args))
        point.breakpoint = context.break_at(where, point.stop)
        self.points.append(point)
        if args.has("--json"):
            context.write(json_line(self.name, number=point.breakpoint.number))

    def takes_operand(self, text: str) -> bool:
        """Behind a LOCATION stands `every`."""
        try:
            given = self.parse(text[: len(text) - len(self.token(text))]).rest
        except UsageError:
            given = []
        return not given and super().takes_operand(text)

    def choices(self, context: Context, option: str) -> Sequence[str]:
        """Names of rules; names of functions for LOCATION, which only GDB knows, and `every`."""
        if option == "--rule":
            return tuple(RULES)
        return ["every"]


COMMANDS: list[Command] = [CheckAtCommand()]
