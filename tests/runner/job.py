# SPDX-License-Identifier: BSD-2-Clause
"""What `make check` runs: a job with a log of its own, and how a program is run for one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

from qemu import ROOT
from results import Result

PYTHON = str(ROOT / "tests/python")
LEASH = [PYTHON, "-SE", str(ROOT / "tests/runner/leash.py")]

Judge = Callable[[str, str, "int | str"], "list[Result]"]


@dataclass(frozen=True)
class Job:
    """Something to run, with a log of its own. run() gives the results."""

    name: str
    run: Callable[[Path], "list[Result]"]
    weight: float = 1.0  # about its seconds: long ones start first


def execute(
    command: Sequence[str], log: Path, timeout: float, judge: Judge, **env: str
) -> list[Result]:
    """Runs a program in a process group of its own, judges what it said. The group ends at the time-out, and with us.

    Ctrl-C reaches it, though a check that was started in the background ignores it (POSIX: 2.11, asynchronous lists).
    """
    out, err = log.with_suffix(".out"), log.with_suffix(".err")
    with out.open("wb") as o, err.open("wb") as e:
        process = subprocess.Popen(
            [*LEASH, str(os.getpid()), "env", "--default-signal=INT", *command],
            stdin=subprocess.DEVNULL,
            stdout=o,
            stderr=e,
            cwd=ROOT,
            env={**os.environ, **env},
            start_new_session=True,
        )
        status: int | str
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = f"time-out ({timeout:g} s)"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    texts = [path.read_text(errors="replace") for path in (out, err)]
    log.write_text(
        "$ " + shlex.join(command) + "\n" + "".join(texts) + f"\n[exit status: {status}]\n"
    )
    for path in (out, err):
        path.unlink()
    return judge(texts[0], texts[1], status)
