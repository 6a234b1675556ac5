# SPDX-License-Identifier: BSD-2-Clause
"""The scripts of tests/gdb, each run inside GDB on a guest that its head describes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Callable, Iterator

import linux_guest
from job import Job, execute
from qemu import ROOT, Guest, GuestError, gdb_command
from results import Result, failed, gdb_results


def guest_lines(script: Path) -> list[dict[str, str]]:
    """The configurations in a GDB script's head: lines `# guest: KEY=VALUE ...`, one run each."""
    configs = []
    for line in script.read_text().splitlines():
        if line.startswith("# guest:"):
            words = shlex.split(line.removeprefix("# guest:"))
            configs.append(dict(word.split("=", 1) for word in words))
    return configs


def gdb_jobs() -> Iterator[Job]:
    """The scripts tests/gdb/*/NAME.py, each run inside GDB on guests of its own.

    A script is one by its `# guest:` lines; other files are modules that scripts import.
    """
    for script in sorted((ROOT / "tests/gdb").glob("*/*.py")):
        configs = guest_lines(script)
        for i, config in enumerate(configs):
            suffix = f".{i + 1}" if len(configs) > 1 else ""

            def run(
                log: Path, script: Path = script, config: dict[str, str] = config
            ) -> list[Result]:
                return run_gdb(log, script, config)

            yield Job(
                f"gdb/{script.stem.removeprefix('test_')}{suffix}",
                run,
                float(config.get("timeout", 60)) / 4,
            )


def parse_guest(config: dict[str, str]) -> dict[str, Any]:
    """Keyword arguments of Guest from the words of a `# guest:` line."""
    known: dict[str, Callable[[str], Any]] = {
        "mem": str,
        "machine": str,
        "cmdline": str,
        "smp": str,
        "uefi": lambda s: bool(int(s)),
        "ramfile": lambda s: bool(int(s)),
        "log": lambda s: bool(int(s)),
        "cpu": lambda s: None if s == "default" else s,
        "extra": shlex.split,
        "boot": linux_guest.boot_args,
    }
    unknown = set(config) - set(known) - {"stop", "timeout", "symbols"}
    if unknown:
        raise GuestError(f"unknown word in the `# guest:` line: {', '.join(sorted(unknown))}")
    return {key: known[key](value) for key, value in config.items() if key in known}


def runs_on(stop: str) -> bool:
    """Whether a guest with that `stop=` runs by itself until GDB attaches."""
    return stop in ("shutdown", "panic") or stop.startswith("said:")


def wait_stop(guest: Guest, stop: str) -> None:
    """Waits until a guest that runs by itself is where `stop=` says."""
    if stop == "shutdown":
        guest.wait_status("shutdown")
    elif stop == "panic":
        guest.wait_serial("PANIC:")
    elif stop.startswith("said:"):
        guest.wait_serial(stop.removeprefix("said:"))


def run_gdb(log: Path, script: Path, config: dict[str, str]) -> list[Result]:
    """Runs a script inside GDB on a fresh guest that stands where `stop=` says.

    ready (default): attached and stopped at ktf_ready(). reset: attached, at the first instruction. shutdown: the guest
    ran into a triple fault, GDB attached afterwards. panic: the same after a panic. said:WORD: attached when the guest
    has said the word. none: the guest halted at its first instruction and GDB not attached; the script finds the port in
    KTF_PORT. symbols=0: without the kernel's.
    """
    timeout, stop = float(config.get("timeout", 60)), config.get("stop", "ready")
    try:
        with Guest(stopped=not runs_on(stop), timeout=timeout, **parse_guest(config)) as guest:
            wait_stop(guest, stop)
            symbols = config.get("symbols", "1") != "0"
            port = None if stop == "none" else guest.port
            command = gdb_command(port, "-batch", symbols=symbols)
            if stop == "ready":
                command += ["-ex", "hbreak ktf_ready", "-ex", "continue"]
            command += ["-x", str(script)]
            env = {
                "KTF_PORT": str(guest.port),
                "KTF_QEMU_PID": str(guest.pid),
                "KTF_SERIAL": str(guest.serial),
            }
            env["KTF_RAMFILE"] = str(guest.ramfile or "")
            env["KTF_LOG"] = str(guest.log or "")
            results = execute(command, log, timeout, gdb_results, **env)
            with log.open("a") as f:
                f.write(f"[guest: {shlex.join(guest.args)}]\n[serial:]\n{guest.output()}\n")
            return results
    except GuestError as e:
        log.write_text(str(e) + "\n")
        return failed("start", str(e))
