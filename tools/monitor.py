# SPDX-License-Identifier: BSD-2-Clause
"""QEMU's monitor (QMP) on a unix socket, and the error of all that has to do with a guest."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import IO, Any


class GuestError(Exception):
    """The guest did not do what was asked of it; the text says what it did instead."""


class Monitor:
    """QEMU's monitor on a unix socket. One client at a time."""

    def __init__(self, path: Path, timeout: float) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        # Through the directory's descriptor: a socket's name may have 107 bytes, a checkout's path may have more.
        fd = os.open(path.parent, os.O_PATH)
        try:
            self.sock.connect(f"/proc/self/fd/{fd}/{path.name}")
        except OSError:
            self.sock.close()
            raise
        finally:
            os.close(fd)
        self.file: IO[str] = self.sock.makefile("rw", encoding="utf-8", errors="replace")
        self.events: list[dict[str, Any]] = []
        try:
            self._reply()  # the greeting
            self.command("qmp_capabilities")
        except (OSError, GuestError):
            self.close()
            raise

    def _reply(self) -> dict[str, Any]:
        while line := self.file.readline():
            try:
                message: dict[str, Any] = json.loads(line)
            except ValueError:
                break  # cut off: it ended in the middle of a line
            if "event" not in message:
                return message
            self.events.append(message)
        raise GuestError("QEMU closed its monitor")

    def command(self, name: str, **arguments: Any) -> Any:
        """Runs a QMP command and returns what it returned."""
        try:
            self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
            self.file.flush()
            reply = self._reply()
        except OSError as e:
            raise GuestError(f"monitor: {name}: {e}") from e
        if "error" in reply:
            raise GuestError(f"monitor: {name}: {reply['error'].get('desc', reply['error'])}")
        return reply.get("return")

    def wait_event(self, *names: str) -> dict[str, Any] | None:
        """The next event of these, however long that takes; None if QEMU ended without."""
        self.sock.settimeout(None)
        seen = 0
        while True:
            for event in self.events[seen:]:
                if event["event"] in names:
                    return event
            seen = len(self.events)
            line = self.file.readline()
            with contextlib.suppress(ValueError):
                message = json.loads(line) if line else None
                if message is None:
                    return None
                self.events.append(message)

    def rest(self) -> list[dict[str, Any]]:
        """All events so far, those included that QEMU sent before it ended; waits for its end."""
        with contextlib.suppress(OSError, GuestError):
            self._reply()
        return self.events

    def close(self) -> None:
        """Ends the connection; QEMU goes on, or is gone already."""
        with contextlib.suppress(OSError):  # what was not sent can't be
            self.file.close()
        self.sock.close()
