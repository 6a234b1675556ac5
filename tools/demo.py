#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`make demo`: a healthy guest, a planted bug and a triple fault, each read from outside by GDB.

Every step is checked as well as shown; the exit status is 0 only if each showed what it should.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from typing import Any, Sequence

from qemu import BUILD, Guest, GuestError, gdb_command

COLOUR = sys.stdout.isatty()
TOTAL_LINE = re.compile(r"^(\d+) entries, (\d+) frames, (\d+) mappings: (\d+) violations$")
MARK = "@@ktf-demo@@"
SHOWN_LINES = 40
GDB_TIMEOUT = 90


def paint(code: str, text: str) -> str:
    """The text in a colour, on a terminal."""
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


def heading(text: str) -> None:
    """A step's title."""
    print("\n" + paint("1;36", f"=== {text} ==="))


def explain(text: str) -> None:
    """A paragraph on what one sees."""
    print(textwrap.fill(" ".join(text.split()), 96))


def show(command: str, output: str) -> None:
    """A GDB command with what it printed, the middle of long lists left out."""
    print("\n" + paint("1", f"(gdb) {command}"))
    lines = output.splitlines()
    if len(lines) > SHOWN_LINES:
        cut = len(lines) - SHOWN_LINES
        half = SHOWN_LINES // 2
        lines = lines[:half] + [f"... {cut} more lines ..."] + lines[-half:]
    print("\n".join("    " + line for line in lines))


class Checks:
    """What was expected, and whether it came."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def expect(self, good: bool, what: str) -> None:
        """Prints and counts one expectation."""
        print(paint("32", "[ok]    ") + what if good else paint("1;31", "[FAILED] ") + what)
        if not good:
            self.failed.append(what)


@dataclass
class Session:
    """One GDB run on a halted guest: what each command printed."""

    outputs: dict[str, str]

    def text(self, command: str) -> str:
        """What the command printed."""
        return self.outputs.get(command, "")

    def json(self, command: str) -> dict[str, Any]:
        """The object that it printed; empty if there is none."""
        for line in self.text(command).splitlines():
            if line.startswith("{"):
                try:
                    value: dict[str, Any] = json.loads(line)
                except ValueError:
                    continue
                return value
        return {}


def gdb_session(guest: Guest, commands: Sequence[str], run_to: str | None = None) -> Session:
    """Attaches a real GDB, lets the guest run to that function, runs the commands, lets go of the guest as it stands."""
    args = gdb_command(guest.port, "-batch")
    if run_to:
        args += ["-ex", f"hbreak {run_to}", "-ex", "continue"]
    for command in commands:
        args += ["-ex", f"echo \\n{MARK}{command}\\n", "-ex", command]
    args += ["-ex", f"echo \\n{MARK}\\n", "-ex", "disconnect"]
    try:
        done = subprocess.run(
            args, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GDB_TIMEOUT
        )
    except subprocess.TimeoutExpired as e:
        raise GuestError(f"GDB did not end in {GDB_TIMEOUT} s; guest:\n{guest.tail()}") from e
    parts = done.stdout.split("\n" + MARK)[1:]
    outputs = {}
    for part in parts:
        command, _, output = part.partition("\n")
        outputs[command] = output.rstrip()
    if done.stderr.strip():
        print(paint("33", textwrap.indent(done.stderr.strip(), "    gdb: ")))
    return Session(outputs)


def totals(text: str) -> tuple[int, int, int, int] | None:
    """Entries, frames, mappings, violations of ktf-pt-check's last line."""
    lines = text.splitlines()
    match = TOTAL_LINE.match(lines[-1]) if lines else None
    if match is None:
        return None
    return int(match[1]), int(match[2]), int(match[3]), int(match[4])


def check_total(checks: Checks, text: str, violations: bool) -> None:
    """The line that ends every ktf-pt-check."""
    total = totals(text)
    if total is None:
        checks.expect(
            False, "ktf-pt-check ends with 'N entries, M frames, R mappings: K violations'"
        )
        return
    entries, frames, mappings, bad = total
    checks.expect(
        min(entries, frames, mappings) > 0,
        f"ktf-pt-check read them all: {entries} entries, {frames} frames, {mappings} mappings",
    )
    checks.expect((bad > 0) == violations, f"it counts {bad} violation(s)")


def healthy(checks: Checks) -> None:
    """The guest as it should be."""
    heading("1. A healthy guest")
    explain(
        """The kernel has booted through GRUB2 in QEMU and stands at ktf_ready(), everything up. GDB reads its memory
        from outside; the guest does not help and does not notice."""
    )
    with Guest(smp=2, ramfile=True, timeout=2 * GDB_TIMEOUT) as guest:
        commands = ["ktf-frame", "ktf-maps", "ktf-pt-check"]
        commands += ["ktf-frame --json", "ktf-maps --json", "p/x (unsigned long)&ktf_ready"]
        got = gdb_session(guest, commands, run_to="ktf_ready")

    heading("1a. ktf-frame: who has the memory")
    explain(
        """Every byte of the machine belongs to one block of 2^order pages. A block is free when nobody holds a
        reference to it and nobody has mapped it, and only then."""
    )
    show("ktf-frame", got.text("ktf-frame"))
    orders = got.json("ktf-frame --json").get("orders", [])
    free_pages = sum(int(o["free"]) << int(o["order"]) for o in orders)
    used = sum(int(o["used"]) for o in orders)
    checks.expect(free_pages > 0 and used > 0, f"{free_pages} pages are free, {used} blocks used")

    heading("1b. ktf-maps: what is mapped where, and with which rights")
    explain(
        """Read from the page tables that the CPU itself uses: neighbours with the same rights are one line.
        Code can be executed and not written, data written and not executed, and each line says what it maps."""
    )
    show("ktf-maps", got.text("ktf-maps"))
    check_maps(checks, got)

    heading("1c. ktf-pt-check: do the tables and the frames agree")
    explain(
        """Every entry of every page table is held against the frame it maps and against the record of that
        mapping, in both directions."""
    )
    show("ktf-pt-check", got.text("ktf-pt-check"))
    check_total(checks, got.text("ktf-pt-check"), violations=False)


def check_maps(checks: Checks, got: Session) -> None:
    """The code that runs is in an executable range; no range is both writable and executable."""
    ranges = got.json("ktf-maps --json").get("ranges", [])
    match = re.search(r"0x([0-9a-f]+)", got.text("p/x (unsigned long)&ktf_ready"))
    code = int(match[1], 16) if match else 0
    mine = [r for r in ranges if int(r["va"], 16) <= code < int(r["va"], 16) + size_of(r["size"])]
    checks.expect(
        len(mine) == 1 and "x" in mine[0]["perm"] and "w" not in mine[0]["perm"],
        f"ktf_ready() itself, 0x{code:x}, is in a range that is executable and read-only",
    )
    both = [r["va"] for r in ranges if "w" in r["perm"] and "x" in r["perm"]]
    checks.expect(bool(ranges) and not both, f"{len(ranges)} ranges, none writable and executable")


def size_of(value: str | int) -> int:
    """Bytes, as a number or as "0x..."."""
    return value if isinstance(value, int) else int(value, 0)


def planted(checks: Checks) -> None:
    """plant=P2: a leaf that maps a free frame."""
    heading("2. A planted bug, caught")
    explain(
        """This guest was started with plant=P2: just before ktf_ready() it puts a frame back to the allocator while
        a page-table entry still maps it: use after free. Nothing crashes yet, but the frame can be handed out again,
        and then two owners write to it."""
    )
    with Guest(smp=2, ramfile=True, cmdline="plant=P2", timeout=2 * GDB_TIMEOUT) as guest:
        got = gdb_session(guest, ["ktf-pt-check", "ktf-pt-check --json"], run_to="ktf_ready")
        show("ktf-pt-check", got.text("ktf-pt-check"))
        check_total(checks, got.text("ktf-pt-check"), violations=True)
        bad = got.json("ktf-pt-check --json").get("violations", [])
        rules = sorted({str(v["rule"]) for v in bad})
        checks.expect("P2" in rules, f"rule P2, no leaf maps a free frame, is named (all: {rules})")
        named = [v for v in bad if v["rule"] == "P2" and v.get("va") and v.get("mfn")]
        checks.expect(bool(named), "with the address and the frame")
        if named:
            freed_frame(checks, guest, named[0]["mfn"])


def freed_frame(checks: Checks, guest: Guest, mfn: str) -> None:
    """What the frame database says of the frame that is free and mapped."""
    command = f"ktf-frame --mfn {mfn}"
    got = gdb_session(guest, [command, command + " --json"])
    show(command, got.text(command))
    frame = got.json(command + " --json").get("frame", {})
    checks.expect(
        frame.get("refcount") == 0 and frame.get("mapcount") == 0,
        f"frame {mfn} is free by its counts: nobody owns it, nobody admits to have mapped it",
    )


def triple_fault(checks: Checks) -> None:
    """crash=triple-fault: the machine stays, and the tables say why."""
    heading("3. A triple fault, explained")
    explain(
        """Normally a triple fault is a silent reboot. QEMU keeps this guest as it was instead, with the registers of
        the instruction that failed. GDB attaches to what is left."""
    )
    walk, check = "ktf-maps $cr2", "ktf-pt-check"
    with Guest(
        ramfile=True, stopped=False, cmdline="crash=triple-fault", timeout=2 * GDB_TIMEOUT
    ) as guest:
        status = guest.wait_status("shutdown")
        checks.expect(True, f"the guest is still there, stopped by QEMU (status: {status})")
        registers = "info registers rip rsp cr2 cr3"
        why = "ktf-postmortem"
        got = gdb_session(guest, [registers, "x/i $rip", walk, check, "ktf-pt-check --json", why])
        checks.expect(guest.status() == "shutdown", "looking at it has changed nothing")
    show(registers, got.text(registers))
    show("x/i $rip", got.text("x/i $rip"))
    checks.expect(
        "int3" in got.text("x/i $rip"), "RIP stands at the instruction that began it: int3"
    )

    heading("3a. ktf-maps of the faulting address: where the walk ends")
    explain(
        """CR2 holds the address whose access failed last. The walk goes through the tables as the CPU did, level
        by level, and says at which one it ends and why."""
    )
    show(walk, got.text(walk))
    checks.expect(
        re.search(r"not[ -]present", got.text(walk), re.I) is not None,
        "the walk of CR2 ends at an entry that is not present",
    )

    heading("3b. ktf-pt-check: whose bug it is")
    explain(
        """The frame's record says that the page is mapped there, the page table says it is not: somebody cleared
        the entry behind the frame's back. It happened to be the interrupt table's, so the first exception could not
        be delivered, nor the double fault that follows, nor anything after that."""
    )
    show(check, got.text(check))
    check_total(checks, got.text(check), violations=True)
    address = re.search(r"cr2\s+0x([0-9a-f]+)", got.text(registers))
    page = int(address[1], 16) & ~0xFFF if address else 0
    bad = got.json("ktf-pt-check --json").get("violations", [])
    here = [v for v in bad if v.get("va") and int(v["va"], 16) & ~0xFFF == page]
    checks.expect(
        bool(here),
        f"it names the page of CR2, 0x{page:x}, by rule {', '.join(v['rule'] for v in here)}",
    )

    heading("3c. ktf-postmortem: all of that in a sentence")
    show(why, got.text(why))
    checks.expect(
        re.search(
            r"^#BP \(int3\) in triple_fault at \S+:\d+; #BP can't be delivered: the IDT at .*overwritten",
            got.text(why).strip(),
        )
        is not None,
        "its first line names the instruction, the IDT, and the entry that was overwritten",
    )


def main() -> int:
    """Entry."""
    start = time.monotonic()
    checks = Checks()
    print(f"kernel: {BUILD / 'kernel.elf'}, booted from {BUILD / 'ktf.iso'}")
    for step in (healthy, planted, triple_fault):
        try:
            step(checks)
        except GuestError as e:
            checks.expect(False, f"{step.__name__}: {e}")
    heading("Done" if not checks.failed else "FAILED")
    for what in checks.failed:
        print("  not as it should be: " + what)
    print(
        f"{time.monotonic() - start:.1f} s. `make debug` gives you such a guest to look at yourself."
    )
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
