# SPDX-License-Identifier: BSD-2-Clause
# ktf-pt-check: the rules of docs/invariants.md over page tables, frames and mapping records.
"""The command ktf-pt-check."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ktf.commands.command import JSON, Args, Command, Option, json_line
from ktf.errors import KtfError, UsageError
from ktf.findings import Report, Violation
from ktf.kernel.context import Context
from ktf.rules.examine import examine
from ktf.rules.smp import Held
from ktf.rules.table import RULES

SHOWN = 20  # violations of one rule that are printed
UNKNOWN = -1  # $ktf_violations while nothing is known


class CheckCommand(Command):
    """Checks the page tables against the frame database: every rule, or some.

    ktf-pt-check [--rule R[,R...]] [--json] [--quit]

    Reads all page tables of all address spaces, all frame descriptors, mapping records and lists of
    the stopped guest, and prints a line for each broken rule: the rule, the place (address space,
    address, level, entry, frame number), what is there and what should be. At most 20 lines for each
    rule; the last line counts all. docs/invariants.md explains the rules.

      --rule R,...  these rules alone, e.g. --rule P1,P2 (what can't be read is reported in any case)
      --json        one object on one line
      --quit        end GDB afterwards, with status 0 if nothing is broken, else 1; the guest stays
                    halted

    Where a CPU holds a lock of the memory manager, what that lock guards may be between two states. Then
    a line `in progress: CPU N holds LOCK, in FUNCTION` says so, and what the rules that it covers find follows
    with `in progress` before it: it is shown, but not counted, and a line that begins with `!` says how much
    that was. Let the guest run on and look again. A lock whose CPU is in no function of mm/ was not given back:
    it covers nothing, and is a violation of A3.

    $ktf_violations is set to the number of violations, -1 if the check could not be made.

    Example:
      (gdb) ktf-pt-check
      P4: kernel va 0xffffc07000001000 level 1 entry 0x8000000007fc7003 mfn 0x7fc7: maps frame 0x7fc7 (order 0, available), but no record stands for this entry (its shadow is 0x0)
      446 entries, 212 frames, 165 mappings: 1 violations

    Errors: no guest, a running guest, no symbols, a memory manager that is not set up yet."""

    name = "ktf-pt-check"
    options = (Option("--rule", 1, tuple(RULES), True), JSON, Option("--quit"))

    def invoke(self, context: Context, line: str) -> None:
        """With --quit GDB ends here, whatever happens: only a clean check gives status 0."""
        self.violations = UNKNOWN
        context.set_variable("ktf_violations", UNKNOWN)
        quits = "--quit" in line.split()
        try:
            super().invoke(context, line)
        except KtfError as e:
            if not quits:
                raise
            context.write(f"{self.name}: {e}\n")
        if quits:
            context.quit(0 if self.violations == 0 else 1)

    def run(self, context: Context, args: Args) -> None:
        """Checks, counts, prints."""
        if args.rest:
            word = args.rest[0]
            hint = f"--rule {word}" if word.upper().split(",")[0] in RULES else ""
            raise UsageError(f"takes no operand {word}; {hint or f'see `help {self.name}`'}")
        names = chosen_rules(args)
        started = time.monotonic()
        session = context.session()
        report, counts = examine(session, names)
        locks, unsettled = report.held, report.unsettled or Report()
        seconds = time.monotonic() - started
        total = report.total()
        self.violations = total
        context.set_variable("ktf_violations", total)
        if args.has("--json"):
            found = [v.json() for v in report.all(RULES)]
            line = json_line(
                self.name,
                counts=counts,
                total=total,
                violations=found,
                in_progress=[{"lock": h.lock, "cpu": h.cpu, "where": h.where} for h in locks],
                unsettled=[v.json() for v in unsettled.all(RULES)],
                notes=session.notes,
                seconds=round(seconds, 3),
            )
            context.write(line)
            return
        notes = "".join(f"! {note}\n" for note in session.notes)
        context.write(notes + unsettled_text(locks, unsettled) + text(report, counts))

    def choices(self, context: Context, option: str) -> Sequence[str]:
        """Names of rules."""
        return tuple(RULES) if option == "--rule" else ()


def chosen_rules(args: Args) -> list[str]:
    """Those that --rule names, all without it."""
    if not args.has("--rule"):
        return list(RULES)
    words = ",".join(args.options["--rule"]).upper().split(",")
    names = [w.strip() for w in words if w.strip()]
    for name in names:
        if name not in RULES:
            raise UsageError(f"no rule {name}; there are: {' '.join(RULES)}")
    if not names:
        raise UsageError(f"--rule names no rule; there are: {' '.join(RULES)}")
    return names


def unsettled_text(locks: Sequence[Held], unsettled: Report) -> str:
    """Which locks are held, and what may be no more than their operation half done; loud where there is any."""
    lines = [f"in progress: {h.text()}" for h in locks]
    lines += [f"in progress: {line}" for line in violation_lines(unsettled)]
    total = unsettled.total()
    if total:
        holders = " and ".join(h.text() for h in locks)
        text = f"! {total} finding{'s' * (total > 1)} not counted, for {holders}"
        lines.append(f"{text}: let the guest run on and look again")
    return "".join(line + "\n" for line in lines)


def violation_lines(report: Report) -> list[str]:
    """One for each, up to a bound for each rule."""
    lines: list[str] = []
    for rule in RULES:
        kept: list[Violation] = report.kept.get(rule, [])
        lines += [v.text() for v in kept[:SHOWN]]
        more = report.counts[rule] - min(len(kept), SHOWN)
        if more:
            lines.append(f"{rule}: ... and {more} more")
    return lines


def text(report: Report, counts: dict[str, int]) -> str:
    """The violations, a line each, and the line that counts."""
    lines = violation_lines(report)
    total = report.total()
    lines.append(
        f"{counts['entries']} entries, {counts['frames']} frames, {counts['mappings']} mappings: "
        f"{total} violations"
    )
    return "\n".join(lines) + "\n"


COMMANDS: list[Command] = [CheckCommand()]
