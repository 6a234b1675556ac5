# SPDX-License-Identifier: BSD-2-Clause
"""What a test said, judged: text and status of a host program, a guest, a GDB run become results. No I/O here."""

from __future__ import annotations

import re
from dataclasses import dataclass

EXIT_SUCCESS = 33  # of QEMU, by isa-debug-exit; every other status is a failure

OK_LINE = re.compile(r"^(ok|not ok) (\S+)\s*(.*)$")
GUEST_LINE = re.compile(r"^test (\S+): (ok|FAILED)\b\s*(.*)$")
GUEST_START = re.compile(r"^test (\S+)$")
TOTAL_LINE = re.compile(r"^(\d+) passed, (\d+) failed$")
UNITTEST_LINE = re.compile(r"^Ran (\d+) tests? in ")
# unittest's last line where it is not just OK: a skipped test, or one that may fail, was not passed.
UNITTEST_BUT = re.compile(r"^OK \((.+)\)$")
# GDB's own words at the end of a batch run, behind the script's last.
GDB_TAIL = re.compile(r"^(Detaching from|Ending remote|\[Inferior .* (detached|killed)\])")


@dataclass(frozen=True)
class Result:
    """One test: passed, or why not."""

    name: str
    passed: bool
    why: str = ""


def failed(name: str, why: str) -> list[Result]:
    """A single failure."""
    return [Result(name, False, why)]


def lines_of(text: str) -> list[str]:
    """Lines without carriage returns and blanks at their ends; terminal control sequences taken out."""
    text = re.sub(r"\x1b(\[[0-9;?=]*[A-Za-z]|c)", "", text)
    return [line.strip() for line in text.replace("\r", "\n").splitlines()]


def host_results(text: str, status: int | str) -> list[Result]:
    """Of `ok NAME` and `not ok NAME why` lines, and the program's status (a text says why there is none)."""
    results = []
    for line in lines_of(text):
        if match := OK_LINE.match(line):
            results.append(Result(match[2], match[1] == "ok", match[3]))
    if isinstance(status, str):
        results += failed("end", status)
    elif status != 0 and all(r.passed for r in results):
        results += failed("end", f"exit status {status} and no line that says why")
    elif not results:
        results += failed("end", "it ran no test")
    return results


def guest_results(text: str, status: int | str) -> list[Result]:
    """Of a guest's serial line and QEMU's status (a text says why there is none)."""
    results, total = [], None
    started = ""  # the test that runs
    said: list[str] = []  # what it has said
    for line in lines_of(text):
        if match := GUEST_LINE.match(line):
            results.append(Result(match[1], match[2] == "ok", match[3] or "; ".join(said[:5])))
            started, said = "", []
        elif match := GUEST_START.match(line):
            started, said = match[1], []
        elif line:
            said.append(line)
        if match := TOTAL_LINE.match(line):
            total = (int(match[1]), int(match[2]))
    passed = sum(r.passed for r in results)
    where = f" (in test {started})" if started else ""
    if isinstance(status, str):
        results += failed("end", status + where)
    elif not results:
        results += failed("end", f"it ran no test (status {status})")
    elif total is None:
        results += failed("end", f"no line 'N passed, N failed' (status {status})" + where)
    elif total != (passed, len(results) - passed):
        results += failed(
            "end", f"it counts {total[0]} passed, {total[1]} failed; its lines are others"
        )
    elif status != EXIT_SUCCESS and all(r.passed for r in results):
        results += failed("end", f"status {status}, success is {EXIT_SUCCESS}")
    elif "PANIC:" in text:
        results += failed("end", "the kernel panicked")
    return results


def gdb_results(out: str, err: str, status: int | str) -> list[Result]:
    """Of a GDB script. GDB's status says nothing (0 after a crashed script): PASS must be the script's last line."""
    if isinstance(status, str):
        return failed("end", status)
    for label, text in (("output", out), ("stderr", err)):
        if "Traceback (most recent call last)" in text:
            return failed("end", f"a Python traceback in its {label}")
    if "Python Exception" in err:
        return failed("end", "a Python exception")
    lines = [line for line in lines_of(out) if line]
    while lines and GDB_TAIL.match(lines[-1]):
        lines.pop()
    if not lines or lines[-1] != "PASS":
        return failed("end", "no PASS at its end")
    return [Result("PASS", True)]


def unit_results(out: str, err: str, status: int | str) -> list[Result]:
    """Of a Python program: a unittest run, or one that prints `ok NAME` lines. A skipped test is a failure."""
    lines = lines_of(out + "\n" + err)
    counts = [int(m[1]) for line in lines if (m := UNITTEST_LINE.match(line))]
    if not counts:
        return host_results(out, status)
    if isinstance(status, str) or status != 0:
        return failed("end", status if isinstance(status, str) else f"exit status {status}")
    if counts[-1] == 0:
        return failed("end", "it ran no test")
    for line in lines:
        if match := UNITTEST_BUT.match(line):
            return failed("end", f"not every test was run and passed: {match[1]}")
    return [Result(f"test{i}", True) for i in range(counts[-1])]
