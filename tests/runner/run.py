#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""`make check`: runs every test, two or more at once, and ends with the line `N passed, N failed`.

A test that hangs, panics, reboots, ends too early or runs nothing has failed. What each said stays in
build/check/NAME.log.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import fnmatch
import os
import re
import shlex
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator, Sequence

sys.path.append(str(Path(__file__).resolve().parents[2] / "gdb"))

from gdb_jobs import gdb_jobs
from job import PYTHON, Job, execute
from ktf.rules.table import RULES
from packages import restricted_path
from postmortem import CPUS, KINDS
from qemu import BUILD, ROOT, Guest, GuestError
from results import Result, failed, guest_results, host_results, unit_results

LOGS = BUILD / "check"
TAIL = 25  # lines of a failed test's log that are printed

# What each machine gives the kernel to chew on: keyword arguments of Guest.
GUESTS: dict[str, dict[str, Any]] = {
    f"{mem}-{machine}": {"mem": mem, "machine": machine}
    for mem in ("4G", "1G", "128M")
    for machine in ("pc", "q35")
}
GUESTS["128M-q35-uefi"] = {"machine": "q35", "uefi": True}
GUESTS["128M-pc-qemu64"] = {"cpu": None}  # QEMU's default CPU: no 1G pages, no SMEP, no SMAP
GUESTS["128M-pc-check-every"] = {"cmdline": "test=all check-every=499"}
# With a second PCI bus, which acpi_pci wants to see then.
GUESTS["128M-pc-smp2"] = {
    "smp": 2,
    "cmdline": "test=all pci-bridge",
    "extra": "-device pci-bridge,chassis_nr=1,id=b -device virtio-rng-pci,bus=b,addr=1".split(),
}
GUESTS["128M-q35-smp4"] = {
    "smp": 4,
    "machine": "q35",
    "cmdline": "test=all pci-bridge",
    "extra": "-device pcie-root-port,id=b -device virtio-rng-pci,bus=b".split(),
}
# Numbers on the bus with a hole: 0, 1, 2, 4, 5, 6. The first three run.
GUESTS["128M-pc-cores3"] = {"smp": "6,sockets=2,cores=3", "cmdline": "test=shootdown_unmap"}
GUEST_TIMEOUT = 480.0

# Each rule has its plant (unit/rules holds the kernel's list against ours), and there is a guest without.
PLANTS = ["", *RULES]

# What must not go unnoticed: a part of the kernel that is broken on purpose, and what is said of it.
BROKEN: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "shootdown": (
        {"smp": 2, "cmdline": "test=shootdown_unmap break=shootdown"},
        ("watch.stale == 0", "mm_check: B1:"),
    ),
    "shootdown_run": (
        {"smp": 2, "cmdline": "test=shootdown_run break=shootdown"},
        ("watch.stale == 0", "mm_check: B1:"),
    ),
    "lock": (
        {"smp": 4, "cmdline": "test=stress break=lock stress-ops=20000"},
        ("PANIC: map_lock is broken: CPU ",),
    ),
    "frame_lock": (
        {"smp": 4, "cmdline": "test=stress break=frame_lock stress-ops=200000"},
        ("PANIC: frame_lock is broken: CPU ",),
    ),
    "order": (
        {"cmdline": "test=stress break=order"},
        ("PANIC: wrong order of locks: CPU 0 takes map_lock, and holds frame_lock",),
    ),
    "twice": (
        {"cmdline": "test=stress break=twice"},
        ("PANIC: wrong order of locks: CPU 0 takes map_lock, and holds map_lock already",),
    ),
    "unlock": (
        {"cmdline": "test=stress break=unlock"},
        ("PANIC: map_lock is broken: CPU 0 gives it back, nobody has it",),
    ),
}

# --- the kinds of test ----------------------------------------------------------------------------------


def host_jobs() -> Iterator[Job]:
    """The programs of tests/host: mm/ on fake memory, with sanitizers."""
    for source in sorted((ROOT / "tests/host").glob("test_*.c")):
        program = BUILD / "host" / source.stem

        def run(log: Path, program: Path = program) -> list[Result]:
            return execute(
                [str(program)], log, 240, lambda out, _, status: host_results(out, status)
            )

        yield Job(f"host/{source.stem}", run, 60)


def fuzz_jobs() -> Iterator[Job]:
    """The fuzzer's kept inputs, and a short run of it."""
    command = [PYTHON, "tests/fuzz/run.py", "--check"]

    def run(log: Path) -> list[Result]:
        return execute(command, log, 240, lambda out, _, status: host_results(out, status))

    yield Job("fuzz/mm", run, 40)


def guest_jobs() -> Iterator[Job]:
    """The kernel's own tests, in QEMU, on each machine of GUESTS."""
    if not any((ROOT / "tests/guest").glob("*.c")):
        yield Job("guest", lambda log: failed("end", "tests/guest holds no test"))
        return
    for name, config in GUESTS.items():

        def run(log: Path, config: dict[str, Any] = config) -> list[Result]:
            return run_guest(log, {"cmdline": "test=all", **config}, GUEST_TIMEOUT)

        yield Job(f"guest/{name}", run, 100 if config.get("mem") == "4G" else 40)


def broken_jobs() -> Iterator[Job]:
    """Tests of the tests: with a part broken on purpose the guest's own tests must fail."""
    for name, (config, said) in BROKEN.items():

        def run(
            log: Path,
            config: dict[str, Any] = config,
            said: tuple[str, ...] = said,
        ) -> list[Result]:
            results = run_guest(log, config, 60)
            text = log.read_text(errors="replace")
            missed = [words for words in said if words not in text]
            if all(r.passed for r in results) or "broken: " not in text:
                return failed("notice", "nothing was noticed")
            return failed("say", f"not said: {missed}") if missed else [Result("noticed", True)]

        yield Job(f"broken/{name}", run, 40)


def plant_jobs() -> Iterator[Job]:
    """The guest's own mm_check() names each planted bug by its rule, as ktf-pt-check does (gdb/check_plants)."""
    for half in (0, 1):

        def run(log: Path, half: int = half) -> list[Result]:
            said: list[str] = []
            results = [plant_named(rule, said) for rule in sorted(PLANTS)[half::2]]
            log.write_text("\n".join(said))
            return results

        yield Job(f"plants/mm_check.{half + 1}", run, 15)


def plant_named(rule: str, said: list[str]) -> Result:
    """One plant, or none for "": what mm_check() says of it."""
    line = f"plant={rule} check" if rule else "check"
    try:
        with Guest(stopped=False, timeout=60, cmdline=line) as guest:
            status = guest.wait()
            output = guest.output()
    except GuestError as e:
        return Result(rule, False, str(e))
    found = [line for line in output.splitlines() if line.startswith("mm_check")]
    said += [f"plant={rule}: exit status {status}", *found]
    if not rule:
        return Result("healthy", found == ["mm_check(): 0 violations"], f"said: {found}")
    named = f"mm_check: {rule}: " in output and "\nmm_check(): 0 violations" not in output
    return Result(rule, named, f"not named by mm_check(), which said: {found}")


def run_guest(log: Path, config: dict[str, Any], timeout: float) -> list[Result]:
    """Boots a guest, waits for its end, judges its serial line."""
    status: int | str
    try:
        with Guest(stopped=False, timeout=timeout, **config) as guest:
            try:
                status = guest.wait()
            except GuestError as e:
                status = str(e).split("; serial:")[0]
            output = guest.output()
            log.write_text(f"$ {shlex.join(guest.args)}\n{output}\n[status: {status}]\n")
    except GuestError as e:
        return failed("start", str(e))
    return guest_results(output, status)


def postmortem_jobs() -> Iterator[Job]:
    """ktf-postmortem of each crash=KIND, attached before, attached after, and of a core."""
    kinds = list(KINDS)
    parts = {
        f"{smp}cpu.{at // 4 + 1}": [str(smp), *kinds[at : at + 4]]
        for smp in CPUS
        for at in range(0, len(kinds), 4)
    }
    parts["uefi"] = ["--uefi", "2", "use-after-unmap", "ist-unmapped"]
    for name, words in parts.items():
        command = [PYTHON, "tests/campaigns/postmortem.py", *words]

        def run(log: Path, command: Sequence[str] = command) -> list[Result]:
            return execute(command, log, 240, lambda out, _, status: host_results(out, status))

        yield Job(f"postmortem/{name}", run, 15)


def python_jobs() -> Iterator[Job]:
    """Programs in Debian's Python: the debugger's analysis without a debugger, and the tests of the tests."""
    units = sorted((ROOT / "tests/gdb/unit").glob("test_*.py"))
    own = sorted((ROOT / "tests").rglob("*_test.py"))
    for script in units + own:
        name = (
            ("unit/" + script.stem.removeprefix("test_"))
            if script in units
            else "tests/" + script.stem
        )

        def run(log: Path, script: Path = script) -> list[Result]:
            return execute(
                [PYTHON, str(script)], log, 400, unit_results, PYTHONPATH=str(ROOT / "gdb")
            )

        yield Job(name, run, 60 if name in ("tests/docs_test", "tests/suite_test") else 20)
    for name in ("bench", "bench_debugger"):
        bench = [PYTHON, f"tests/bench/{name}.py", "--check", "--timeout=200"]

        def figures(log: Path, bench: Sequence[str] = bench) -> list[Result]:
            return execute(bench, log, 240, unit_results, BUILD=str(BUILD / "bench"))

        yield Job(f"tests/{name}", figures, 20)
    # Short forms of `make bitflip` and `make stops`.
    flips = [
        PYTHON,
        "tests/campaigns/bitflip.py",
        "--flips=800",
        "--values=200",
        "--pages=40",
        "--real=8",
        "--jobs=1",
    ]
    yield Job("tests/bitflip", lambda log: execute(flips, log, 400, unit_results), 60)
    stops = [PYTHON, "tests/campaigns/stops.py", "--stops=20", "--guests=1", "--ops=30000"]
    yield Job("tests/stops", lambda log: execute(stops, log, 240, unit_results), 20)
    demo = [PYTHON, "tools/demo.py"]
    yield Job("tests/demo", lambda log: execute(demo, log, 240, demo_results), 20)
    yield Job(
        "tests/style",
        lambda log: execute([PYTHON, "tests/runner/style.py"], log, 180, unit_results),
        20,
    )


def demo_results(out: str, _: str, status: int | str) -> list[Result]:
    """Of the demo: one test for each thing it expects to see."""
    results = [Result(f"step{i}", True) for i in range(out.count("\n[ok]"))]
    if status != 0 or "\n=== Done ===\n" not in out:
        results += failed("end", f"exit status {status}")
    return results


# --- running them ---------------------------------------------------------------------------------------


class Report:
    """Counts and prints what comes in, from several threads."""

    def __init__(self, width: int) -> None:
        self.lock = threading.Lock()
        self.passed = self.failed = 0
        self.width = width

    def add(self, job: Job, results: Sequence[Result], seconds: float) -> None:
        """Prints one job's line, and why it failed if it did."""
        bad = [r for r in results if not r.passed]
        with self.lock:
            self.passed += len(results) - len(bad)
            self.failed += len(bad)
            good = f"{len(results) - len(bad)} passed" + (f", {len(bad)} FAILED" if bad else "")
            print(
                f"{'FAIL' if bad else 'ok':4} {job.name:{self.width}} {seconds:6.1f} s  {good}",
                flush=True,
            )
            if bad:
                self.explain(job, bad)

    def explain(self, job: Job, bad: Sequence[Result]) -> None:
        """Which of its tests failed, the end of its log, and how to run it alone."""
        for result in bad[:20]:
            print(f"     {result.name}: {result.why or 'failed'}")
        log = log_path(job.name)
        if log.exists():
            print(f"     --- the end of {os.path.relpath(log)} ---")
            for line in log.read_text(errors="replace").splitlines()[-TAIL:]:
                print(f"     | {line}")
        print(f"     --- again: make check ONLY={shlex.quote(job.name)}", flush=True)


def log_path(name: str) -> Path:
    """Where a test's output is kept."""
    return LOGS / (re.sub(r"[^\w.-]", "-", name) + ".log")


def run_job(job: Job, report: Report) -> None:
    """Runs one; whatever goes wrong in here is a failure of that one test."""
    start = time.monotonic()
    try:
        log_path(job.name).unlink(missing_ok=True)
        results = job.run(log_path(job.name)) or failed("end", "it ran no test")
    except Exception as e:  # the runner's last resort: it must count, not end
        results = failed("runner", f"{type(e).__name__}: {e}")
    report.add(job, results, time.monotonic() - start)


def select(jobs: Sequence[Job], only: str) -> list[Job]:
    """Those whose name holds one of the words, divided by commas, or matches it as a shell pattern; all for ''."""
    words = [word for word in only.split(",") if word]
    return [
        j
        for j in jobs
        if not words or any(w in j.name or fnmatch.fnmatchcase(j.name, w) for w in words)
    ]


def run_all(jobs: Sequence[Job], workers: int) -> Report:
    """Runs them, the longest first."""
    report = Report(max((len(j.name) for j in jobs), default=0))
    with ThreadPoolExecutor(workers) as pool:
        for job in sorted(jobs, key=lambda j: -j.weight):
            pool.submit(run_job, job, report)
    return report


def summary(report: Report) -> int:
    """The last line, and the exit status that goes with it."""
    print(f"{report.passed} passed, {report.failed} failed", flush=True)
    return 0 if report.failed == 0 and report.passed > 0 else 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keeps a second whole check out of the same logs."""
    LOGS.mkdir(parents=True, exist_ok=True)
    fd = os.open(LOGS, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another check is running here: waiting for its end", flush=True)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def stress(words: str) -> int:
    """One run of the stress test on four CPUs and one that watches; no time-out but two hours."""
    operations, seed = words.split(",")
    line = f"test=stress stress-ops={operations} stress-seed={seed}"
    os.umask(0o077)
    LOGS.mkdir(parents=True, exist_ok=True)
    job = Job(
        f"stress/seed-{seed}",
        lambda log: run_guest(log, {"smp": 5, "cmdline": line}, 7200),
    )
    report = Report(len(job.name))
    run_job(job, report)
    return summary(report)


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only",
        default="",
        help="names that contain one of these (a,b), or match it as a shell pattern",
    )
    parser.add_argument("--jobs", default="", help="tests at once")
    parser.add_argument("--stress", default="", help="OPERATIONS,SEED: the long stress run alone")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    args = parser.parse_args()
    if args.stress:
        return stress(args.stress)
    jobs = select(
        [
            *guest_jobs(),
            *broken_jobs(),
            *plant_jobs(),
            *host_jobs(),
            *fuzz_jobs(),
            *gdb_jobs(),
            *postmortem_jobs(),
            *python_jobs(),
        ],
        args.only,
    )
    if args.list:
        print("\n".join(j.name for j in jobs))
        return 0
    os.umask(0o077)  # logs are this user's
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    LOGS.mkdir(parents=True, exist_ok=True)
    with contextlib.nullcontext() if args.only else alone():
        # Nothing but what the packages of our list provide can be called from here on.
        os.environ["PATH"] = restricted_path(LOGS / "bin")
        return summary(run_all(jobs, int(args.jobs or os.cpu_count() or 2)))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        os._exit(130)  # what we started ends with us (tests/runner/leash.py)
