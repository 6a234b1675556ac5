# SPDX-License-Identifier: BSD-2-Clause
# Reads of the stub that are under way at once: every answer is taken in, whatever happens.
"""Tests of ktf.stub against a stub that answers in odd ways; the real one is tried by readers_same.py."""

from __future__ import annotations

import os
import contextlib
import re
import signal
import socket
import tempfile
import threading
import time
import unittest

from ktf.memory import stub
from ktf.errors import KtfError, NoGuest, Unreadable

MEMORY = bytes(range(256)) * 4096


class FakeStub(threading.Thread):
    """Answers `m` packets from MEMORY, in pieces; refuses what lies at `refused`; closes after `ends` answers."""

    def __init__(self, sock: socket.socket, refused: int = -1, ends: int = -1) -> None:
        super().__init__(daemon=True)
        self.sock, self.refused, self.ends = sock, refused, ends
        self.answered = self.most = self.settled = 0
        self.interrupts = -1  # Ctrl-C before that answer, and slowly after it

    def run(self) -> None:
        """Until one of the sides closes."""
        with contextlib.suppress(OSError):  # ours, at the end of the test
            self.talk()

    def talk(self) -> None:
        """Answers all that is asked."""
        taken = b""
        while data := self.sock.recv(4096):
            taken += data
            asked = re.findall(rb"\$m(\w+),(\w+)#\w\w", taken)
            self.most = max(self.most, len(asked))
            taken = taken[taken.rfind(b"#") + 3 :] if asked else taken
            for at, size in asked:
                if self.answered == self.ends:
                    self.sock.close()
                    return
                self.answer(int(at, 16), int(size, 16))
            if taken == b"+":
                self.settled, taken = self.answered, b""

    def answer(self, at: int, size: int) -> None:
        """One answer, in two pieces."""
        if self.answered == self.interrupts:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        elif 0 <= self.interrupts < self.answered:
            time.sleep(0.001)
        text = b"E14" if at <= self.refused < at + size else MEMORY[at : at + size].hex().encode()
        data = b"+$%s#%02x" % (text, sum(text) & 0xFF)
        self.answered += 1
        self.sock.sendall(data[: size + 1])
        self.sock.sendall(data[size + 1 :])


class Reads(unittest.TestCase):
    """read_blocks()."""

    def start(self, refused: int = -1, ends: int = -1) -> tuple[socket.socket, FakeStub]:
        """Our end, and the stub at the other."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        fake = FakeStub(theirs, refused, ends)
        fake.start()
        return ours, fake

    def settled(self, fake: FakeStub, count: int) -> None:
        """All that was asked for was answered and taken in."""
        until = time.monotonic() + 10
        while fake.settled < count and time.monotonic() < until:
            time.sleep(0.005)
        self.assertEqual((fake.settled, fake.answered), (count, count))

    def test_packet_size(self) -> None:
        """What a stub announces, in whole pages where one fits; nothing where it says nothing."""
        for text, size in (
            ("PacketSize=1000;qXfer:features:read+", 2048),
            ("qXfer:features:read+;PacketSize=20020", 65536),
            ("PacketSize=2001", 4096),
            ("QPacketSize=2000", 0),
            ("", 0),
        ):
            self.assertEqual(stub.memory_of(text), size, text)

    def test_blocks(self) -> None:
        """Blocks of any size in any order; many reads are under way at once, but not too many."""
        ours, fake = self.start()
        blocks = [(i * 3000 % 900_000, 1 + i * 37 % 5000) for i in range(300)]
        found = stub.read_blocks(ours, blocks, 2048)
        self.assertEqual(found, [MEMORY[at : at + size] for at, size in blocks])
        self.settled(fake, sum(-(-size // 2048) for _, size in blocks))
        self.assertTrue(8 < fake.most <= stub.AHEAD, fake.most)
        self.assertEqual(stub.read_blocks(ours, [], 2048), [])

    def test_refused(self) -> None:
        """The place that the stub refuses is named, and what was asked for behind it is taken in."""
        ours, fake = self.start(refused=10 * 2048 + 5)
        with self.assertRaisesRegex(Unreadable, "can't read physical address 0x5000") as caught:
            stub.read_blocks(ours, [(0, 100 * 2048)], 2048)
        self.assertEqual(caught.exception.pa, 0x5000)
        self.settled(fake, fake.answered)
        self.assertEqual(stub.read_blocks(ours, [(3, 4)], 2048), [MEMORY[3:7]])

    def test_closed(self) -> None:
        """QEMU ends in between."""
        with self.assertRaisesRegex(NoGuest, "closed the connection|fails"):
            stub.read_blocks(self.start(ends=3)[0], [(0, 100 * 2048)], 2048)

    def test_interrupted(self) -> None:
        """Ctrl-C comes through, once everything that was asked for has been taken in."""
        for before in (0, 1, 20, 200):
            ours, fake = self.start()
            fake.interrupts = before
            with self.assertRaises(KeyboardInterrupt):
                stub.read_blocks(ours, [(0, 4000 * 256)], 256)
            self.settled(fake, fake.answered)
            self.assertLess(fake.answered, 4000)
            fake.interrupts = -1
            self.assertEqual(stub.read_blocks(ours, [(3, 4)], 2048), [MEMORY[3:7]])


class Questions(unittest.TestCase):
    """monitor()."""

    def ask(self, *answers: bytes) -> tuple[str, bytes]:
        """What comes of these answers, and what was sent to the stub by then."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"+" + b"".join(b"$%s#%02x" % (a, sum(a) & 0xFF) for a in answers))
            return stub.monitor(ours, "info status"), theirs.recv(4096)

    def test_answer(self) -> None:
        """Lines, without any, and with bytes that are no line. One acknowledgement at the end."""
        lines = [
            b"O" + text.hex().encode() for text in (b"VM status: ", "paused \u00e4\r\n".encode())
        ]
        text, sent = self.ask(*lines, b"OK")
        self.assertEqual(text, "VM status: paused \u00e4\r\n")
        self.assertEqual(sent, stub.packet(b"qRcmd," + b"info status".hex().encode()) + b"+")
        self.assertEqual(self.ask(b"OK")[0], "")
        self.assertEqual(self.ask(b"O414", b"OK")[0], "?")

    def test_no_monitor(self) -> None:
        """An error, or the empty answer of a stub that knows no such packet."""
        for answer in (b"E01", b""):
            with self.assertRaisesRegex(KtfError, "has no monitor"):
                self.ask(answer)

    def test_nothing_is_sent_before_the_end(self) -> None:
        """A stub that writes a long answer does not read: what is sent to it would fill the socket."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        sent = []

        def serve() -> None:
            theirs.recv(4096)
            for _ in range(5000):
                theirs.sendall(b"$O%s#00" % (b"41" * 70))
            theirs.setblocking(False)
            try:
                sent.append(theirs.recv(4096))
            except BlockingIOError:
                sent.append(b"")
            theirs.setblocking(True)
            theirs.sendall(b"$OK#9a")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.assertEqual(stub.monitor(ours, "info mtree -f"), "A" * 70 * 5000)
        thread.join(10)
        self.assertEqual(sent, [b""])


class Borrow(unittest.TestCase):
    """borrow()."""

    def test_sockets(self) -> None:
        """The one socket of this process that leads there, by TCP and by path; None if there is none, or two."""
        with tempfile.TemporaryDirectory() as folder:
            with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(
                socket.AF_UNIX
            ) as local:
                port = server.getsockname()[1]
                path = f"{folder}/gdb"
                local.bind(path)
                local.listen()
                self.assertIsNone(stub.borrow(f":{port}"))
                with socket.create_connection(("127.0.0.1", port)) as one, socket.socket(
                    socket.AF_UNIX
                ) as other:
                    other.connect(path)
                    for form in (f":{port}", f"localhost:{port}", f"tcp:127.0.0.1:{port}"):
                        self.same(stub.borrow(form), one)
                    for form in (path, f"unix:{path}"):
                        self.same(stub.borrow(form), other)
                    for form in (f"| nc {port}", f"udp:localhost:{port}", "/dev/ttyS0", ""):
                        self.assertIsNone(stub.borrow(form), form)
                    with socket.create_connection(("127.0.0.1", port)):
                        self.assertIsNone(stub.borrow(f":{port}"), "two of them")

    def same(self, found: socket.socket | None, wanted: socket.socket) -> None:
        """The same socket, by another descriptor."""
        assert found is not None
        with found:
            self.assertNotEqual(found.fileno(), wanted.fileno())
            self.assertEqual(os.fstat(found.fileno()).st_ino, os.fstat(wanted.fileno()).st_ino)


if __name__ == "__main__":
    unittest.main()
