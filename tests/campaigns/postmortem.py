#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""tests/campaigns/postmortem.py [--uefi] [--answers=FILE] SMP KIND...: ktf-postmortem of each crash=KIND, attached before, attached after, and of a core.

Prints `ok NAME`, or `not ok NAME why`, for each that has the right first line, CPU, source line, chain and rule, the same three ways, each
within LIMIT seconds. After a triple fault also the same without QEMU's log.

--answers: for the same build on several releases. The first run writes its answers there, later ones must give the same.
Without ACPI, whose tables differ from one QEMU to the next and with them the numbers of frames.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu import BUILD, ROOT, Guest, GuestError, gdb_command

LIMIT = 2.0  # seconds of GDB's own time for the command; its start is not counted
TIMEOUT = 60.0
CRASH, MEMORY = "tests/guest/crash.c", "tests/guest/crash_mm.c"
CRASH_CPU, CRASH_PANIC = "tests/guest/crash_cpu.c", "tests/guest/crash_panic.c"
GAVE_BACK = r"unmapped by give_buffer_back at tests/guest/crash_mm\.c:\d+, [23],\d{3} events ago"
UNMAPPED = r"unmapped by crash_unmap at tests/guest/crash_mm\.c:\d+, \d+ events? ago"


LAST = -1


@dataclass(frozen=True)
class Expected:
    """What the command must say of a kind. line: text of the source line, in file; cause: a pattern for the first line.

    cpu: None if chance decides which CPU has the panic, LAST for the one with the highest number.
    chain: how it begins, and ends, unless another CPU may add to it (more). unlogged: a pattern for the first line without
    QEMU's log, where it tells less.
    """

    cause: str
    symbol: str
    file: str
    line: str
    chain: tuple[str, ...] = ("#PF",)
    rule: str | None = None
    stop: str = "panic"
    cpu: int | None = 0
    more: bool = False
    unlogged: str = ""


KINDS = {
    "null-call": Expected(
        r"^#PF executing 0x0, called in null_call at .*: a null pointer",
        "null_call",
        CRASH,
        "    nobody();",
    ),
    "use-after-unmap": Expected(
        rf"^#PF reading 0xffffc06000000000 in read_buffer at .*: {GAVE_BACK} \(frame 0x[0-9a-f]+, since "
        r"handed out to crash_page",
        "read_buffer",
        MEMORY,
        "    return *buffer;",
    ),
    "write-text": Expected(
        r"^#PF writing 0x[0-9a-f]+ in write_text at .*: a .* page r-x- of text, which may not be written",
        "write_text",
        CRASH,
        "    *(volatile uint32_t *)(uintptr_t)&null_call = 0xcccccccc;",
    ),
    "exec-data": Expected(
        r"^#PF executing 0xffffc06000000000, called in exec_data at .*: a 4K page rw-- .* may not be executed",
        "exec_data",
        CRASH,
        "    ((void (*)(void))vaddr_ptr(CRASH_VA))();",
    ),
    "smap": Expected(
        r"^#PF writing 0x10000000 in smap at .*: a user 4K page rw-u .*SMAP is on",
        "smap",
        CRASH,
        "    *(volatile uint64_t *)vaddr_ptr(CRASH_USER) = 1;",
    ),
    "stack-overflow": Expected(
        r"^#PF writing 0x[0-9a-f]+ in stack_overflow at .*: stack 'cpu0' has overflowed into its guard page",
        "stack_overflow",
        CRASH,
        "    fill[0] = 1;",
        ("#PF", "#DF"),
    ),
    "stack-full": Expected(
        r"^#PF writing 0x[0-9a-f]+ in trap_common at .*: stack 'cpu0' has overflowed into its guard page",
        "trap_common",
        "kernel/traps.S",
        "",
        ("#PF", "#DF"),
    ),
    "reserved-bit": Expected(
        r"^#PF writing 0xffffc06000000000 in reserved_bit at .*: the level 1 entry of table 0x[0-9a-f]+ is "
        r"0x[0-9a-f]+ \(reserved bits 0x[0-9a-f]+ are set\)",
        "reserved_bit",
        CRASH,
        "    *(volatile uint64_t *)vaddr_ptr(CRASH_VA) = 1;",
        rule="T5",
    ),
    "table-reuse": Expected(
        r"^#PF reading 0x[0-9a-f]+ in read_buffer at .*: its level 1 table 0x[0-9a-f]+ can be written at "
        r"0xffffc060000[0-4][0-9a-f]000, though put back by give_buffer_back at .*; the entry is 0x5a5a5a5a5a5a5a5a",
        "read_buffer",
        MEMORY,
        "    return *buffer;",
        rule="T4",
    ),
    "idt-unmapped": Expected(
        rf"^#BP \(int3\) in idt_unmapped at .*; #BP can't be delivered: the IDT at 0x[0-9a-f]+: {UNMAPPED}",
        "idt_unmapped",
        CRASH,
        '    __asm__ volatile("int3");',
        ("#BP", "#PF", "#DF"),
        stop="triple-fault",
    ),
    "ist-unmapped": Expected(
        r"^#PF writing 0x[0-9a-f]+ in stack_overflow at .*: stack 'cpu0' has overflowed into its guard page; #DF "
        rf"can't be delivered: the IST 1 stack 'cpu0 #DF' at 0x[0-9a-f]+: {UNMAPPED}",
        "stack_overflow",
        CRASH,
        "    fill[0] = 1;",
        ("#PF", "#DF"),
        stop="triple-fault",
    ),
    "dead-cr3": Expected(
        r"^#PF executing 0x[0-9a-f]+ in load_cr3 at .*: CR3 is 0x[0-9a-f]+, which is no address space's root: .*; "
        r"given up as the root of a space that was destroyed by crash_dead_cr3 at ",
        "load_cr3",
        MEMORY,
        "",
        ("#PF", "#DF"),
        "C1",
        "triple-fault",
    ),
    "wild-store": Expected(
        r"^#PF reading 0xffffc06000000000 in read_buffer at .*: the level 1 entry of table 0x[0-9a-f]+ is "
        r"0x6b6b6b6a \(not present\): overwritten",
        "read_buffer",
        MEMORY,
        "    return *buffer;",
        rule="P5",
    ),
    "cpu2": Expected(
        rf"^#PF reading 0xffffc06000000000 in read_buffer at .*: {GAVE_BACK}",
        "read_buffer",
        MEMORY,
        "    return *buffer;",
        cpu=2,
    ),
    "no-idt": Expected(
        r"^#DE in divide_without_idt at .*; #DE can't be delivered: the IDT's limit is 0$",
        "divide_without_idt",
        CRASH_CPU,
        "    one = one / zero;",
        ("#DE", "#DF"),
        "C2",
        "triple-fault",
        cpu=LAST,
    ),
    "dead-report": Expected(
        r"^#PF reading 0x10 in put_string at .*: a null pointer: .*; #PF can't be delivered: the IDT at "
        rf"0x[0-9a-f]+: {UNMAPPED}",
        "put_string",
        "lib/printk.c",
        "",
        ("#PF", "#DF"),
        stop="triple-fault",
    ),
    "root-entry": Expected(
        r"^#PF executing 0x[0-9a-f]+ in (write_cr3|crash_root_entry) at .*: entry 511 of the kernel's root table "
        r"0x[0-9a-f]+ is 0x0 \(not present\)$",
        "crash_root_entry",
        CRASH_CPU,
        "",
        ("#PF", "#DF"),
        "C2",
        "triple-fault",
    ),
    "poison-call": Expected(
        r"^#GP executing 0x6b6b6b6b6b6b6b6b, called in crash_poison_call at .*: not a canonical address$",
        "crash_poison_call",
        CRASH_CPU,
        "    junk();",
        ("#GP",),
    ),
    "triple-fault": Expected(
        r"^#BP \(int3\) in triple_fault at .*; #BP can't be delivered: the IDT at 0x[0-9a-f]+: the level 1 entry "
        r"of table 0x[0-9a-f]+ is 0x0 \(not present\): overwritten",
        "triple_fault",
        CRASH,
        '    __asm__ volatile("int3");',
        ("#BP", "#PF", "#DF"),
        "P5",
        "triple-fault",
    ),
    "panic": Expected(
        r"^panic in give_up at .*: crash=panic was asked for",
        "give_up",
        CRASH,
        '    panic("crash=panic was asked for");',
        (),
    ),
    "page-fault": Expected(
        r"^#PF writing 0x10 in page_fault at .*: a null pointer: page 0 is never mapped$",
        "page_fault",
        CRASH,
        "    *nowhere = 1;",
    ),
    "two-faults": Expected(
        r"^#PF writing 0x10 in write_nowhere at .*: a null pointer: page 0 is never mapped$",
        "write_nowhere",
        CRASH_PANIC,
        "    *nowhere = 1;",
    ),
    "panic-in-panic": Expected(
        r"^panic in panic_badly at .*: crash: it is called ; telling that met #PF reading 0x10 in put_string at .*: a null "
        r"pointer",
        "panic_badly",
        CRASH_PANIC,
        '    panic("crash: it is called %s", (const char *)arg);',
        cpu=None,
    ),
    "nmi-stack": Expected(
        r"^#PF writing 0x[0-9a-f]+ while an NMI was delivered in \w+ at .*: " + UNMAPPED,
        "crash_nmi_stack",
        CRASH_CPU,
        '    __asm__ volatile("movl %0, %c2(%4)\\n\\tmovl %1, %c3(%4)\\n1:\\tpause\\n\\tjmp 1b"',
    ),
    "panic-state": Expected(
        r"^#PF writing 0x10 in write_nowhere at .*: a null pointer: .*; handling that met #PF (reading|writing) 0x[0-9a-f]+ "
        rf"in panic_begin at kernel/panic_report\.c:\d+: {UNMAPPED}",
        "write_nowhere",
        CRASH_PANIC,
        "    *nowhere = 1;",
        ("#PF", "#PF", "#PF", "#PF"),
        more=True,  # another CPU that has come so far sends this one an NMI
    ),
    "apic-unmapped": Expected(
        r"^#PF writing 0x10 in write_nowhere at .*: a null pointer: .*; handling that met #PF writing 0x[0-9a-f]+ "
        rf"in apic_send at arch/x86/apic\.c:\d+: {UNMAPPED}",
        "write_nowhere",
        CRASH_PANIC,
        "    *nowhere = 1;",
        ("#PF", "#PF"),
    ),
}
CPUS = (1, 4)  # that `make check` tries
NEEDS_CPUS = {"two-faults": 2, "cpu2": 3}
NOT_TOLD = r"^panic in crash_dead_report at .*, before it could say why; "
# With several CPUs it is another story: the panic's NMI to the others is what nobody takes.
OF_MANY = {
    "dead-report": Expected(
        rf"{NOT_TOLD}NMI can't be delivered: the IDT at 0x[0-9a-f]+: {UNMAPPED}",
        "crash_dead_report",
        CRASH_CPU,
        '    panic("it is %s", (const char *)16);',
        ("NMI", "#PF", "#DF"),
        stop="triple-fault",
        unlogged=rf"{NOT_TOLD}#DF can't be delivered: the IDT at 0x[0-9a-f]+: {UNMAPPED}",
    )
}


def runs(kind: str, smp: int) -> bool:
    """Whether that kind is tried with so many CPUs."""
    return NEEDS_CPUS.get(kind, 1) <= smp


def expected(kind: str, smp: int) -> Expected:
    """What is to be said of it with so many CPUs."""
    return OF_MANY.get(kind, KINDS[kind]) if smp > 1 else KINDS[kind]


class Wrong(Exception):
    """The command said something else."""


def gdb(port: int, *commands: str) -> str:
    """What GDB prints; a GDB that hangs or a traceback is wrong."""
    command = gdb_command(port, "-batch")
    for one in commands:
        command += ["-ex", one]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as e:
        raise Wrong(f"GDB hangs in {commands}") from e
    text = done.stdout + done.stderr
    if "Traceback" in text:
        raise Wrong(f"a traceback: {text[-1500:]}")
    return text


TIMED = "python import time; ktf_start = time.process_time()"
TOOK = 'python print("TOOK", time.process_time() - ktf_start)'
ASK = (TIMED, "ktf-postmortem --json", TOOK, "thread apply all -q bt")
UNLOGGED, CORE = ">>> without the log", ">>> the core"  # lines between what one GDB is asked
LOGGED = "         (as in QEMU's log)"
FETCHES = ("null-call", "exec-data", "poison-call")  # the innermost code is where no code is
LIVE = ("attached before", "attached after")
# CR3 leads nowhere: GDB reads no memory of a live guest, nor of a core without mapped ranges. Of the CPU that failed
# (dead-cr3), or of all, which share the table (root-entry).
UNREADABLE = {"dead-cr3": LIVE, "root-entry": (*LIVE, "core")}
SHARED = ("root-entry",)
ENTRY = {"stack-full": ("stack_full",)}  # entry code fails: who was interrupted by it
HANDLER = "<signal handler called>"
TROUBLE = ("corrupt stack", "previous frame", "Backtrace stopped", "Cannot access memory")
FRAME = re.compile(r"^#\d+ +(?:0x([0-9a-f]+) in )?(\S.*?)(?: \(.*\))?(?: at (\S+:\d+))?$")


def answer(text: str, how: str) -> dict[str, Any]:
    """The object that the command printed, within the limit."""
    line = next((t for t in text.splitlines() if t.startswith('{"schema":1')), None)
    took = re.search(r"^TOOK ([\d.]+)", text, re.MULTILINE)
    if line is None or took is None:
        raise Wrong(f"{how}: no answer: {text[-1500:]}")
    if float(took[1]) > LIMIT:
        raise Wrong(f"{how}: it took {float(took[1]):.2f} s")
    found: dict[str, Any] = json.loads(line)
    return found


def check(kind: str, found: dict[str, Any], how: str, smp: int) -> None:
    """Wrong unless all of it is as expected."""
    want = expected(kind, smp)
    names = tuple(f["name"] for f in found["chain"])
    names = names[: len(want.chain)] if want.more else names
    got = {"stop": found["stop"], "cpu": found["cpu"], "symbol": found["symbol"]}
    cpu = found["cpu"] if want.cpu is None else want.cpu % smp
    right = {"stop": want.stop, "cpu": cpu, "symbol": want.symbol}
    if got != right or names != want.chain or found["rule"] != want.rule:
        raise Wrong(f"{how}: {got} {names} {found['rule']}, should be {want}")
    if not re.search(want.cause, found["cause"]):
        raise Wrong(f"{how}: the cause is {found['cause']!r}, should match {want.cause!r}")
    file, _, number = (found["line"] or ":0").rpartition(":")
    lines = (ROOT / want.file).read_text().splitlines()
    if file != want.file or want.line and lines[int(number) - 1] != want.line:
        raise Wrong(f"{how}: the line is {found['line']}, should be {want.line.strip()!r}")


def backtraces(text: str) -> list[list[tuple[str, str]]]:
    """Of each CPU, in their order: function and line of each frame, innermost first."""
    found: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        frame = FRAME.match(line)
        if frame:
            if line.startswith("#0 "):
                found.append([])
            found[-1].append((frame[2], frame[3] or ""))
    return found[::-1]  # GDB begins with the last thread


def ends_at(kind: str, how: str, cpu: int, failed: int) -> str:
    """The function at the end of that CPU's backtrace: where its stack begins, or can't be read any more."""
    if how in UNREADABLE.get(kind, ()):
        if cpu == failed:
            return KINDS[kind].symbol
        if kind in SHARED:
            return "cpu_park"
    return "ap_high" if cpu else "stack_switch"


def check_backtrace(kind: str, text: str, found: dict[str, Any], how: str) -> None:
    """bt of the CPU that failed goes through the exception to the line; that of each CPU ends where its stack begins."""
    stacks = backtraces(text.split("\nTOOK ")[1])
    text = re.sub(r"<error: [^>]*>", "", text)  # an argument that is a bad pointer
    if how not in UNREADABLE.get(kind, ()) and any(words in text for words in TROUBLE):
        raise Wrong(f"{how}: a backtrace breaks off: {text[-1500:]}")
    for cpu, stack in enumerate(stacks):
        if stack[-1][0] != ends_at(kind, how, cpu, found["cpu"]):
            raise Wrong(f"{how}: the stack of CPU {cpu} ends at {stack[-1]}: {text[-2500:]}")
    if len(stacks) <= found["cpu"]:
        raise Wrong(f"{how}: no backtrace of CPU {found['cpu']}: {text[-1500:]}")
    stack = stacks[found["cpu"]]
    if KINDS[kind].stop == "panic" and found["cause"].startswith("#"):
        stack = stack[
            1 + max((i for i, f in enumerate(stack) if f[0] == HANDLER), default=len(stack)) :
        ]
    elif found["cause"].startswith("panic in"):
        # Others may wait in panic(), too.
        reports = [i for i, s in enumerate(stacks) if "report" in [f[0] for f in s]]
        if reports != [found["cpu"]] and KINDS[kind].stop == "panic":
            raise Wrong(f"{how}: the panic is told of CPU {found['cpu']}, CPUs {reports} report")
        stack = stack[1 + [f[0] for f in stack].index("panic") :]
    stack = stack[1:] if kind in FETCHES else stack
    # Entry code itself is but a line "<signal handler called>" there.
    place = ENTRY.get(kind, (found["symbol"], found["line"]))
    if not stack or stack[0][: len(place)] != place:
        raise Wrong(f"{how}: bt does not lead to {found['line']}: {text[-2500:]}")


def mark(line: str) -> str:
    """The command that prints it, on a line of its own."""
    return f"echo \\n{line}\\n"


def twice(kind: str, guest: Guest) -> list[str]:
    """After a triple fault: asks with QEMU's log, then takes it away and asks again."""
    if KINDS[kind].stop != "triple-fault":
        return []
    remove = f"python import os; os.unlink({str(guest.log)!r})"
    return [mark(UNLOGGED), "ktf-postmortem", remove, mark(UNLOGGED), "ktf-postmortem"]


def check_unlogged(text: str, want: Expected) -> None:
    """The answer with QEMU's log, and once more without: the same but for the line that names the log."""
    _, logged, derived = (part.splitlines() for part in text.split(f"\n{UNLOGGED}\n"))
    if LOGGED not in logged:
        raise Wrong(f"QEMU's log was not used: {logged[:12]}")
    logged.remove(LOGGED)
    if want.unlogged and LOGGED not in derived and re.search(want.unlogged, derived[0]):
        return
    if derived[: len(logged)] != logged:
        differ = [(a, b) for a, b in zip(logged, derived) if a != b]
        raise Wrong(f"without QEMU's log: {differ[:5]}"[:2000])


def check_alarm(triple: bool, text: str) -> None:
    """GDB that was attached says what happened, and refuses `continue` where QEMU would never answer it."""
    if f"The guest {'is down, by a triple fault' if triple else 'has panicked'}: " not in text:
        raise Wrong(f"it was not said what happened: {text[-1500:]}")
    if triple != ("GDB would wait for ever" in text):
        raise Wrong(f"`continue` is {'not ' * triple}refused: {text[-1500:]}")


def three_ways(kind: str, smp: int, uefi: bool, words: str = "") -> dict[str, Any]:
    """One guest: GDB attached before; another one afterwards, which then opens the core. The answer of all three."""
    core = BUILD / "guests" / f"postmortem-{kind}-{smp}{'-uefi' * uefi}.core"
    machine = "q35" if uefi else "pc"
    core.unlink(missing_ok=True)
    try:
        with Guest(
            smp=smp,
            machine=machine,
            uefi=uefi,
            cmdline=f"{words}crash={kind}",
            ramfile=True,
            log=True,
            timeout=TIMEOUT,
        ) as guest:
            # After a panic QEMU goes on if it is asked to.
            last = ("continue",) * (KINDS[kind].stop == "triple-fault")
            text = gdb(guest.port, "continue", *ASK, f"ktf-core {core}", *last, "disconnect")
            check_alarm(KINDS[kind].stop == "triple-fault", text)
            said = {"attached before": text}
            open_core = ("disconnect", mark(CORE), f"core-file {core}")
            text = gdb(guest.port, *ASK, *twice(kind, guest), *open_core, *ASK)
            said["attached after"], _, said["core"] = text.partition(f"\n{CORE}\n")
    finally:
        core.unlink(missing_ok=True)
    before = answer(text, "attached before")
    for how, text in said.items():
        found = answer(text, how)
        check(kind, found, how, smp)
        check_backtrace(kind, text, found, how)
        if f"\n{UNLOGGED}\n" in text:
            check_unlogged(text, expected(kind, smp))
        if found != before:
            parts = [k for k in before if found.get(k) != before[k]]
            raise Wrong(
                f"{how}: {parts} differ: {[(before[k], found.get(k)) for k in parts]}"[:2000]
            )
    return before


def same_again(file: Path, name: str, found: dict[str, Any]) -> None:
    """Wrong if the file has another answer of that name; one that it has not is added."""
    known = json.loads(file.read_text()) if file.exists() else {}
    mine = {key: found[key] for key in ("cause", "cpu", "line", "symbol", "stop", "rule", "chain")}
    if known.setdefault(name, mine) != mine:
        raise Wrong(f"{file} has {known[name]}, this is {mine}")
    file.write_text(json.dumps(known, indent=1))


def main() -> int:
    """Entry."""
    uefi = "--uefi" in sys.argv
    answers = [word.partition("=")[2] for word in sys.argv if word.startswith("--answers=")]
    smp, *kinds = [word for word in sys.argv[1:] if not word.startswith("--")]
    bad = 0
    for kind in kinds or list(KINDS):
        if not runs(kind, int(smp)):
            continue
        name, start = f"{kind}-{smp}{'-uefi' * uefi}", time.monotonic()
        try:
            found = three_ways(kind, int(smp), uefi, "acpi=off " * bool(answers))
            for file in answers:
                same_again(Path(file), name, found)
            print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
        except (Wrong, GuestError) as e:
            bad += 1
            print(f"not ok {name} {' '.join(str(e).split())}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
