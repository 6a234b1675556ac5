# SPDX-License-Identifier: BSD-2-Clause
# What GDB itself asks QEMU's stub too slowly, or not without end: over the socket that GDB has to it.
"""read_blocks(sock, blocks, packet): physical memory, in the stub's physical mode, by `m` packets.
monitor(sock, command): what a command of QEMU's monitor prints.

GDB's own way of sending a packet waits for each answer, and takes it in character by character: 2 KiB need 0.2 ms of
GDB's time and two changes of process. Here GDB's socket is borrowed while GDB itself waits for us: requests are sent
ahead of the answers, which QEMU gives in their order. Whatever happens, every answer that was asked for is taken in
before GDB has its socket back.

The monitor's answer is a packet for each line, and GDB acknowledges each. QEMU takes no acknowledgement in before it
has written the last line: from some 550 lines on a unix socket is full in both directions, and both wait for ever.
Here nothing is sent until the answer is complete.
"""

from __future__ import annotations

import binascii
import os
import re
import select
import signal
import socket
from collections import deque
from contextlib import suppress
from itertools import islice
from threading import Event, Thread

from ktf.errors import KtfError, NoGuest, Unreadable

AHEAD = 128  # requests under way, at most
AHEAD_BYTES = 1 << 18  # of memory under way; two requests are, however much they ask for
PAGE = 4096
SILENCE = 30.0  # seconds without a byte, after which the connection counts as lost
TAKEN = 1 << 20  # bytes taken in at once


def borrow(details: str) -> socket.socket | None:
    """GDB's socket to what stands behind `target remote`; None if it is none, or can't be told from others.

    The descriptor is a copy; closing it leaves GDB's open.
    """
    port, path = _place(details)
    found: dict[int, socket.socket] = {}  # by inode
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        inode = os.fstat(sock.fileno()).st_ino
        if inode not in found and _leads_to(sock, port, path):
            found[inode] = sock
        else:
            sock.close()
    if len(found) == 1:
        return found.popitem()[1]
    for sock in found.values():
        sock.close()
    return None


def _place(details: str) -> tuple[int | None, str]:
    """A TCP port, or the path of a unix socket."""
    if details.startswith(("|", "udp")):
        return None, ""
    end = details.rpartition(":")[2]
    if end.isdigit() and "/" not in details:
        return int(end), ""
    return None, details.removeprefix("unix:")


def _leads_to(sock: socket.socket, port: int | None, path: str) -> bool:
    try:
        peer = sock.getpeername()
    except OSError:
        return False
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return port is not None and sock.type == socket.SOCK_STREAM and peer[1] == port
    if sock.family == socket.AF_UNIX and isinstance(peer, str) and path:
        return os.path.basename(peer) == os.path.basename(path)
    return False


def memory_of(supported: str) -> int:
    """Bytes of memory that fit in an answer, whole pages if a page fits; 0 if the answer to qSupported names no size."""
    found = re.search(r"(?:^|;)PacketSize=([0-9a-fA-F]+)(?:;|$)", supported)
    size = int(found[1], 16) // 2 if found else 0
    return size // PAGE * PAGE or size


def read_blocks(sock: socket.socket, blocks: list[tuple[int, int]], packet: int) -> list[bytes]:
    """The blocks (address, size), read `packet` bytes at a time; Unreadable if the stub refuses a part.

    A thread of its own does it: there Ctrl-C can't fall between bytes that are taken in and their being noted.
    """
    reads = [
        (at, min(packet, start + size - at))
        for start, size in blocks
        for at in range(start, start + size, packet)
    ]
    pipeline = Pipeline(sock, reads, max(2, min(AHEAD, AHEAD_BYTES // packet)))
    pipeline.complete()
    if len(pipeline.parts) != len(reads):
        raise KtfError("reading through the stub has failed")  # its thread has said why
    parts = iter(pipeline.parts)
    return [b"".join(islice(parts, -(-size // packet))) for _, size in blocks]


def monitor(sock: socket.socket, command: str) -> str:
    """What the command prints; KtfError if the stub has no monitor."""
    question = Question(sock, command)
    question.complete()
    if not question.ended:
        raise KtfError("the stub has not answered")  # its thread has said why
    return b"".join(question.parts).decode("utf-8", "replace")


class Exchange(Thread):
    """Packets and their answers, in a thread of its own. problem: why it did not come to its end."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(daemon=True)
        self.sock = sock
        self.problem: KtfError | None = None
        self.begun = self.stopped = False
        self.done = Event()  # join() is not to be interrupted in all versions of Python
        self._taken = bytearray()
        self._answers: deque[bytes] = deque()

    def complete(self) -> None:
        """Runs it; raises what went wrong. Ctrl-C ends it where nothing is under way."""
        try:
            self._start_deaf()
            while not self.done.wait(0.1):
                pass  # a signal that came just before a wait began is seen when the wait ends
        finally:
            self.stopped = True  # one that has not begun yet sends nothing then
            while self.begun and not self.done.is_set():
                with suppress(KeyboardInterrupt):
                    self.done.wait(0.1)
        if self.problem is not None:
            raise self.problem

    def _start_deaf(self) -> None:
        """Starts the thread with all signals blocked, from its first instruction on: they are GDB's own thread's."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self) -> None:
        """talk(), and what became of it."""
        self.begun = True
        try:
            self.talk()
        except KtfError as e:
            self.problem = e
        except OSError as e:
            self.problem = NoGuest(f"the connection to the guest fails: {e.strerror}")
        finally:
            self.done.set()

    def talk(self) -> None:
        """Sends, and takes in all answers."""
        raise NotImplementedError

    def _next(self) -> bytes:
        """The next answer, without its frame."""
        while not self._answers:
            self._take()
        return self._answers.popleft()

    def _take(self) -> None:
        """Waits for bytes; whole answers go to the queue."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if not poll.poll(SILENCE * 1000):
            raise NoGuest("QEMU's stub does not answer: `disconnect`, then `target remote` again")
        data = self.sock.recv(TAKEN)
        if not data:
            raise NoGuest("QEMU has closed the connection")
        self._taken += data
        at = 0
        while True:
            start = self._taken.find(b"$", at)
            end = self._taken.find(b"#", start) if start >= 0 else -1
            if end < 0 or end + 3 > len(self._taken):
                break
            self._answers.append(bytes(self._taken[start + 1 : end]))
            at = end + 3
        del self._taken[:at]


class Question(Exchange):
    """A command of the monitor; parts: what it prints, ended: whether that is all."""

    def __init__(self, sock: socket.socket, command: str) -> None:
        super().__init__(sock)
        self.command = command
        self.parts: list[bytes] = []
        self.ended = False

    def talk(self) -> None:
        """One packet; each line of the answer is one, with an O at its head, and the last is OK."""
        if self.stopped:
            return
        self.sock.sendall(packet(b"qRcmd," + binascii.hexlify(self.command.encode())))
        while (answer := self._next()) != b"OK":
            if answer[:1] != b"O":
                self.sock.sendall(b"+")
                raise KtfError("the stub has no monitor: it is not QEMU's")
            self.parts.append(_text(answer[1:]))
        self.ended = True
        self.sock.sendall(b"+")


def _text(digits: bytes) -> bytes:
    try:
        return binascii.unhexlify(digits)
    except binascii.Error:
        return b"?"


class Pipeline(Exchange):
    """Reads (address, size), of which some are sent ahead; parts: what came of them, problem: why not of all."""

    def __init__(self, sock: socket.socket, reads: list[tuple[int, int]], ahead: int) -> None:
        super().__init__(sock)
        self.reads = reads
        self.ahead = ahead
        self.parts: list[bytes] = []
        self._sent = self._count = 0  # requests, answers

    def talk(self) -> None:
        """To the end, to the first part that the stub refuses, or until it is stopped."""
        while self._count < len(self.reads) and self.problem is None and not self.stopped:
            if self._sent - self._count <= self.ahead // 2:
                self._send()
            self._judge(self._answer())
        while self._count < self._sent:
            self._answer()
        if self._sent:
            self.sock.sendall(b"+")

    def _judge(self, answer: bytes) -> None:
        at, size = self.reads[self._count - 1]
        if len(answer) == 2 * size:
            self.parts.append(binascii.unhexlify(answer))
        else:
            self.problem = Unreadable(f"the stub can't read physical address {at:#x}", at)

    def _send(self) -> None:
        """The next requests. So few bytes always find room: QEMU takes in what it is sent before it answers."""
        ahead = self.reads[self._sent : self._count + self.ahead]
        self.sock.sendall(b"".join(request(at, size) for at, size in ahead))
        self._sent += len(ahead)

    def _answer(self) -> bytes:
        """The next answer."""
        answer = self._next()
        self._count += 1
        return answer


def packet(text: bytes) -> bytes:
    """The packet, with an acknowledgement of what came before it."""
    return b"+$%s#%02x" % (text, sum(text) & 0xFF)


def request(at: int, size: int) -> bytes:
    """To read memory."""
    return packet(b"m%x,%x" % (at, size))
