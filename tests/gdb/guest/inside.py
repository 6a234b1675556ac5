# SPDX-License-Identifier: BSD-2-Clause
# What the scripts that run inside GDB share: commands as functions, checks that say what differed.
"""run(), json_of(), error_of(), check(): a script that reaches its end prints PASS itself."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import gdb

PORT = os.environ.get("KTF_PORT", "")


def run(command: str) -> str:
    """What a command prints; its error ends the test."""
    text: str = gdb.execute(command, to_string=True)
    return text


def json_of(command: str) -> dict[str, Any]:
    """The one object that a command with --json prints, on its one line."""
    text = run(command + " --json")
    check(text.count("\n") == 1 and text.endswith("\n"), f"{command}: not one line: {text[:200]!r}")
    found: dict[str, Any] = json.loads(text)
    check(found.get("schema") == 1 and found.get("command") == command.split()[0], f"{found}"[:200])
    return found


def error_of(command: str) -> str:
    """The one line in which a command refuses; it must refuse."""
    try:
        text = run(command)
    except gdb.error as e:
        message = str(e)
        check("\n" not in message.strip(), f"{command}: more than one line: {message!r}")
        check("Traceback" not in message and "internal error" not in message, message)
        return message
    raise AssertionError(f"{command} did not fail; it printed {text[:200]!r}")


def check(condition: object, message: str = "") -> None:
    """Ends the test unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def equal(found: object, expected: object, what: str = "") -> None:
    """Ends the test unless both are the same, and says what both are."""
    if found != expected:
        raise AssertionError(f"{what}: {str(found)[:500]} is not {str(expected)[:500]}")


def interrupt_after(seconds: float) -> threading.Timer:
    """Ctrl-C in so many seconds, to the main thread as the terminal's would be: GDB 18 aborts where another one gets it."""
    main = threading.main_thread().ident or 0
    timer = threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    return timer


def connect(port: int | str = PORT) -> None:
    """Attaches to the guest of this test, or another one, which stops it. A stub that does not answer in time is asked again."""
    for last in (False, False, True):
        try:
            gdb.execute(f"target remote 127.0.0.1:{port}", to_string=True)
            return
        except gdb.error as e:
            if last or "timeout" not in str(e):
                raise


def run_for(seconds: float) -> None:
    """Lets the guest run for a while; stopped and attached again afterwards."""
    gdb.execute("detach", to_string=True)
    time.sleep(seconds)
    connect()


def info_tlb() -> list[str]:
    """QEMU's own list of what is mapped."""
    return [line.strip() for line in run("monitor info tlb").splitlines() if line.strip()]


def leaves(option: str = "") -> list[str]:
    """Ours, cut to the columns of info tlb."""
    lines = run(f"ktf-maps --leaves {option}").splitlines()
    return [line[:44] for line in lines if line[16:18] == ": "]


def same_lines(ours: list[str], theirs: list[str]) -> None:
    """Ends the test at the first line that differs."""
    for number, (a, b) in enumerate(zip(ours, theirs)):
        equal(a, b, f"line {number}")
    equal(len(ours), len(theirs), "number of lines")


def physical_mode() -> str:
    """The stub's physical mode: "0" unless somebody left it on."""
    answer: bytes = gdb.selected_inferior().connection.send_packet("qqemu.PhyMemMode")
    return answer.decode()


def passed() -> None:
    """The last line of every script."""
    print("PASS")
