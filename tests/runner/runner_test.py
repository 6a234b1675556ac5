#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The tests' own tests: what hangs, panics, reboots, crashes or runs nothing must count as a failure."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import demo
import run
from gdb_jobs import gdb_jobs, guest_lines, parse_guest
from job import PYTHON, Job, execute
from linux_guest import newest_kernel
from qemu import (
    BUILD,
    EXIT_FAILURE,
    ROOT,
    Guest,
    GuestError,
    free_port,
    listens,
    parse,
    size_bytes,
)
from results import Result, gdb_results, guest_results, host_results, unit_results

GOOD_GUEST = "test a\r\ntest a: ok\r\ntest b\r\ntest b: ok\r\n2 passed, 0 failed\r\n"


def verdict(results: list[Result]) -> tuple[int, int]:
    """Passed and failed."""
    return sum(r.passed for r in results), sum(not r.passed for r in results)


class Judges(unittest.TestCase):
    """results.py"""

    def test_guest(self) -> None:
        self.assertEqual(verdict(guest_results(GOOD_GUEST, 33)), (2, 0))
        self.assertEqual(verdict(guest_results("\x1b[2Jx\x1b[01;01H\n" + GOOD_GUEST, 33)), (2, 0))
        cases: dict[str, tuple[str, int | str]] = {
            "wrong status": (GOOD_GUEST, 35),
            "status of a reset without -no-shutdown": (GOOD_GUEST, 0),
            "time-out after the last line": (GOOD_GUEST, "time-out"),
            "no total": (GOOD_GUEST.replace("2 passed, 0 failed", ""), 33),
            "cut off": (GOOD_GUEST[:30], 33),
            "total of others": (GOOD_GUEST.replace("2 passed", "3 passed"), 33),
            "a test failed": (
                GOOD_GUEST.replace("b: ok", "b: FAILED").replace("2 passed, 0", "1 passed, 1"),
                33,
            ),
            "a test failed, uncounted": (GOOD_GUEST.replace("b: ok", "b: FAILED"), 33),
            "no test": ("0 passed, 0 failed\n", 33),
            "silence": ("", 33),
            "panic": ("PANIC: x\n" + GOOD_GUEST, 33),
        }
        for name, (text, status) in cases.items():
            with self.subTest(name):
                self.assertGreater(verdict(guest_results(text, status))[1], 0)

    def test_guest_names_the_test_that_ran_last(self) -> None:
        results = guest_results("test a\ntest a: ok\ntest b\nPANIC: oops\n", "the kernel panicked")
        self.assertEqual(results[-1].why, "the kernel panicked (in test b)")

    def test_guest_says_what_the_test_said(self) -> None:
        results = guest_results(
            "test a\n  a.c:3: failed: x\ntest a: FAILED\n0 passed, 1 failed\n", 35
        )
        self.assertEqual(results, [Result("a", False, "a.c:3: failed: x")])

    def test_host(self) -> None:
        self.assertEqual(verdict(host_results("seed 1\nok a\nok b\n", 0)), (2, 0))
        self.assertEqual(verdict(host_results("ok a\nnot ok b boom\n", 1)), (1, 1))
        self.assertEqual(verdict(host_results("ok a\nnot ok b boom\n", 0)), (1, 1))
        self.assertEqual(verdict(host_results("ok a\n", 1)), (1, 1))
        self.assertEqual(verdict(host_results("", 0)), (0, 1))
        self.assertEqual(verdict(host_results("ok a\n", -6)), (1, 1))
        self.assertEqual(verdict(host_results("ok a\n", "time-out")), (1, 1))

    def test_gdb(self) -> None:
        self.assertEqual(verdict(gdb_results("x\nPASS\n", "", 0)), (1, 0))
        tail = "PASS\nDetaching from program: /k, process 1\nEnding remote debugging.\n[Inferior 1 (process 1) detached]\n"
        self.assertEqual(verdict(gdb_results(tail, "warning: x", 0)), (1, 0))
        cases: list[tuple[str, str, int | str]] = [
            ("", "", 0),
            ("PASS\nmore\n", "", 0),
            ("PASSED\n", "", 0),
            ("not PASS\n", "", 0),
            ("PASS\n", "", "time-out"),
            ("PASS\n", "Traceback (most recent call last):\n", 0),
            ("Traceback (most recent call last):\nPASS\n", "", 0),
            ("PASS\n", "Python Exception <class 'NameError'>: x\n", 0),
        ]
        for out, err, status in cases:
            with self.subTest(out=out, err=err):
                self.assertEqual(verdict(gdb_results(out, err, status)), (0, 1))

    def test_unit(self) -> None:
        self.assertEqual(verdict(unit_results("", "..\nRan 2 tests in 0.1s\n\nOK\n", 0)), (2, 0))
        self.assertEqual(verdict(unit_results("", "Ran 2 tests in 0.1s\n\nFAILED\n", 1)), (0, 1))
        self.assertEqual(verdict(unit_results("", "Ran 0 tests in 0.0s\n\nOK\n", 0)), (0, 1))
        for but in ("skipped=1", "expected failures=1", "skipped=2, expected failures=1"):
            said = f"s.\nRan 2 tests in 0.1s\n\nOK ({but})\n"
            self.assertEqual(verdict(unit_results("", said, 0)), (0, 1), but)
        self.assertEqual(verdict(unit_results("ok a\n", "", 0)), (1, 0))
        self.assertEqual(verdict(unit_results("", "", 0)), (0, 1))


class Demo(unittest.TestCase):
    """The demo's judgement."""

    def test_totals(self) -> None:
        line = "144 entries, 137 frames, 86 mappings: 0 violations"
        self.assertEqual(demo.totals("P2: x\n" + line), (144, 137, 86, 0))
        for text in ("", line + "\nmore", "x" + line, line.replace("86", "some")):
            self.assertIsNone(demo.totals(text), text)

    def test_expectations_are_counted(self) -> None:
        checks = demo.Checks()
        with contextlib.redirect_stdout(io.StringIO()):
            demo.check_total(
                checks, "1 entries, 1 frames, 1 mappings: 0 violations", violations=False
            )
            self.assertEqual(checks.failed, [])
            demo.check_total(
                checks, "1 entries, 1 frames, 1 mappings: 0 violations", violations=True
            )
            demo.check_total(
                checks, "0 entries, 1 frames, 1 mappings: 0 violations", violations=False
            )
            demo.check_total(checks, "Undefined command", violations=False)
        self.assertEqual(len(checks.failed), 3)

    def test_results(self) -> None:
        good = "\n[ok]    a\n[ok]    b\n=== Done ===\n"
        self.assertEqual(verdict(run.demo_results(good, "", 0)), (2, 0))
        self.assertEqual(verdict(run.demo_results(good, "", 1)), (2, 1))
        self.assertEqual(verdict(run.demo_results("\n[ok]    a\n", "", 0)), (1, 1))


class WithFiles(unittest.TestCase):
    """A directory for logs and scripts."""

    def setUp(self) -> None:
        tmp = tempfile.TemporaryDirectory(prefix="runner-", dir=BUILD)
        self.addCleanup(tmp.cleanup)
        self.dir = Path(tmp.name)
        self.log = self.dir / "log"

    def script(self, text: str) -> Path:
        """A file with that text."""
        path = self.dir / "script.py"
        path.write_text(text)
        return path


class Execute(WithFiles):
    """Programs that end badly."""

    def host(self, text: str, timeout: float = 20) -> list[Result]:
        """Runs a shell text as if it were a host test."""
        return execute(
            ["sh", "-c", text], self.log, timeout, lambda out, _, status: host_results(out, status)
        )

    def test_good(self) -> None:
        self.assertEqual(verdict(self.host("echo ok a")), (1, 0))
        self.assertIn("ok a", self.log.read_text())

    def test_hang(self) -> None:
        start = time.monotonic()
        results = self.host("echo ok a; sleep 100 & sleep 100", 0.5)
        self.assertLess(time.monotonic() - start, 10)
        self.assertEqual(verdict(results), (1, 1))
        self.assertIn("time-out", results[-1].why)

    def test_killed_and_missing(self) -> None:
        self.assertEqual(verdict(self.host("echo ok a; kill -SEGV $$")), (1, 1))
        self.assertEqual(verdict(self.host("no-such-command")), (0, 1))

    def test_interrupted_though_the_check_ignores_it(self) -> None:
        old = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            results = self.host("echo ok a; kill -INT $$; echo ok b")
        finally:
            signal.signal(signal.SIGINT, old)
        self.assertEqual([r.name for r in results], ["a", "end"])

    def test_runner_counts_what_it_could_not_run(self) -> None:
        def broken(log: Path) -> list[Result]:
            raise OSError("no disk")

        jobs = [Job("self/broken", broken), Job("self/empty", lambda log: [])]
        jobs.append(Job("self/good", lambda log: [Result("x", True)]))
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = run.summary(run.run_all(jobs, 2))
        self.assertEqual((status, out.getvalue().splitlines()[-1]), (1, "1 passed, 2 failed"))
        self.assertIn("again: make check ONLY=self/broken", out.getvalue())

    def test_nothing_run_is_no_success(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(run.summary(run.run_all([], 2)), 1)
        self.assertEqual(out.getvalue(), "0 passed, 0 failed\n")

    def test_select(self) -> None:
        jobs = [Job(name, lambda log: []) for name in ("guest/4G-pc", "gdb/maps.1", "gdb/maps.2")]
        for only, count in (
            ("", 3),
            ("gdb", 2),
            ("gdb/maps.1", 1),
            ("gdb/*.2", 1),
            ("nothing", 0),
            ("nothing,gdb/*.2,4G", 2),
        ):
            self.assertEqual(len(run.select(jobs, only)), count, only)


class Unittest(WithFiles):
    """Real programs of unittest, as python_jobs() runs them."""

    def test_skipped(self) -> None:
        text = """
import unittest
class A(unittest.TestCase):
    def test_a(self): pass
    %s
    def test_b(self): %s
unittest.main()
"""
        skip = '@unittest.skip("no tool")'
        for decorator, body, expected in (
            ("", "pass", (2, 0)),
            ("", "self.fail()", (0, 1)),
            (skip, "pass", (0, 1)),
            ("", 'self.skipTest("no tool")', (0, 1)),
            ("@unittest.expectedFailure", "self.fail()", (0, 1)),
        ):
            with self.subTest(decorator=decorator, body=body):
                command = [PYTHON, str(self.script(text % (decorator, body)))]
                self.assertEqual(verdict(execute(command, self.log, 30, unit_results)), expected)


class Gdb(WithFiles):
    """Scripts inside a real GDB, without a guest."""

    def gdb(self, text: str, timeout: float = 30) -> list[Result]:
        """Runs a script as the last of GDB's arguments, as run_gdb does."""
        command = ["gdb", "-q", "-nx", "-batch", "-x", str(self.script(text))]
        return execute(command, self.log, timeout, gdb_results)

    def test_scripts(self) -> None:
        good = "import gdb\ngdb.execute('p 1')\nprint('PASS')\n"
        self.assertEqual(verdict(self.gdb(good)), (1, 0))
        for text in (
            "import gdb\ngdb.execute('no-such-command')\nprint('PASS')\n",
            "print('PASS')\nundefined_name\n",
            "import gdb\ngdb.execute('quit 0')\nprint('PASS')\n",
            "import gdb\nraise gdb.GdbError('x')\nprint('PASS')\n",
            "syntax error\n",
            "",
        ):
            with self.subTest(text):
                self.assertEqual(verdict(self.gdb(text)), (0, 1))

    def test_hang(self) -> None:
        self.assertEqual(verdict(self.gdb("while True: pass\n", 2)), (0, 1))

    def test_unknown_word_in_the_guest_line(self) -> None:
        script = self.script(
            '# guest: mem=1G cmdline="plant=P2 test=a" stop=reset\n# guest: nonsense=1\n'
        )
        first, second = guest_lines(script)
        self.assertEqual(parse_guest(first), {"mem": "1G", "cmdline": "plant=P2 test=a"})
        with self.assertRaises(GuestError):
            parse_guest(second)


def boot_sector(text: str, end: bytes) -> bytes:
    """A disk whose boot sector says the text on the first serial port, then does what the code at its end does."""
    code = bytes.fromhex("31c08ed8 be0000 fc ac 84c0 7406 baf803 ee ebf5".replace(" ", "")) + end
    message = 0x7C00 + len(code)
    code = code.replace(bytes.fromhex("be0000"), b"\xbe" + message.to_bytes(2, "little"), 1)
    return (code + text.encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"


EXIT = bytes.fromhex("baf400 b0%02x ee f4ebfd".replace(" ", "").replace("%02x", "10"))  # status 33
EXIT_BADLY = EXIT.replace(b"\xb0\x10", b"\xb0\x11")  # status 35
HANG = bytes.fromhex("fa f4 ebfd".replace(" ", ""))
REBOOT = bytes.fromhex(
    "0f011e007e cc"
)  # an empty interrupt table (zeros behind the sector), then int3: triple fault
RESET = bytes.fromhex("b0fe e664 ebfa".replace(" ", ""))  # by the keyboard controller


class Boot(WithFiles):
    """Real guests that are nothing but a boot sector."""

    def guest(self, text: str, end: bytes, timeout: float = 30) -> list[Result]:
        """Runs a guest as guest tests are run."""
        disk = self.dir / "disk"
        disk.write_bytes(boot_sector(text, end))
        boot = ["-drive", f"file={disk},format=raw,if=ide"]
        return run.run_guest(self.log, {"boot": boot}, timeout)

    def test_good(self) -> None:
        self.assertEqual(verdict(self.guest(GOOD_GUEST, EXIT)), (2, 0))

    def test_bad_status(self) -> None:
        self.assertEqual(verdict(self.guest(GOOD_GUEST, EXIT_BADLY)), (2, 1))

    def test_hang(self) -> None:
        results = self.guest("test a\ntest a: ok\ntest b\n", HANG, 4)
        self.assertEqual(verdict(results), (1, 1))
        self.assertIn("time-out (4 s)", results[-1].why)
        self.assertIn("in test b", results[-1].why)

    def test_reboot(self) -> None:
        for end in (REBOOT, RESET):
            results = self.guest("test a\n", end)
            self.assertEqual(verdict(results), (0, 1))
            self.assertIn("was reset", results[-1].why)

    def test_panic(self) -> None:
        results = self.guest("test a\ntest a: ok\nPANIC: fake\n", HANG)
        self.assertEqual(verdict(results), (1, 1))
        self.assertIn("panicked", results[-1].why)


class Kernel(WithFiles):
    """The real kernel, made to go wrong."""

    def why(self, cmdline: str, timeout: float = 60) -> str:
        """Why a guest with that command line failed."""
        results = run.run_guest(self.log, {"cmdline": cmdline}, timeout)
        self.assertGreater(verdict(results)[1], 0)
        return results[-1].why

    def test_panic(self) -> None:
        self.assertIn("panicked", self.why("crash=panic"))

    def test_triple_fault(self) -> None:
        self.assertIn("was reset", self.why("crash=triple-fault"))

    def test_no_such_test(self) -> None:
        self.why("test=no-such-test")

    def test_debug(self) -> None:
        port = free_port()
        command = [PYTHON, "tools/qemu.py", "debug", f"--port={port}", "--", "-batch"]
        command += ["-ex", "hbreak ktf_ready", "-ex", "continue", "-ex", "ktf-pt-check --quit"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        directory = BUILD / f"run-{port}"
        modes = {path.stat().st_mode & 0o77 for path in [directory, *directory.iterdir()]}
        shutil.rmtree(directory)
        self.assertIn("mappings: 0 violations\n", done.stdout)
        self.assertEqual((done.returncode, modes), (0, {0}))

    def test_run(self) -> None:
        command = [PYTHON, "tools/qemu.py", "run", "--cmdline"]
        for word, status in (("test=all", 0), ("test=no-such-test", EXIT_FAILURE)):
            done = subprocess.run(
                [*command, word],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=120,
            )
            self.assertEqual(done.returncode, status, word)
            self.assertIn(b" passed, ", done.stdout)

    def test_tests_that_were_not_run(self) -> None:
        self.why("", 3)


class Launcher(unittest.TestCase):
    """qemu.py"""

    def test_bad_values(self) -> None:
        for word in ("--smp=0", "--smp=two", "--mem=", "--mem=128X", "--uefi=2", "--machine=x"):
            with contextlib.redirect_stderr(io.StringIO()) as said:
                with self.assertRaises(SystemExit, msg=word):
                    parse(["run", word])
            self.assertIn(word.partition("=")[2], said.getvalue())

    def test_quotes_are_the_kernels(self) -> None:
        done = subprocess.run(
            ["make", "-n", "run", "CMDLINE=a='b \"c"], cwd=ROOT, capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("a='b", done.stdout)

    def test_sizes(self) -> None:
        self.assertEqual(
            [size_bytes(s) for s in ("1", "4K", "128M", "4G")], [1 << 20, 4096, 128 << 20, 4 << 30]
        )

    def test_bad_arguments(self) -> None:
        with self.assertRaisesRegex(GuestError, "QEMU did not start.*invalid option"):
            Guest(boot=[], extra=["-bogus"])

    def test_files_are_private_and_go(self) -> None:
        with Guest(boot=[], ramfile=True, log=True) as guest:
            self.assertEqual(guest.dir.stat().st_mode & 0o77, 0)
            for path in guest.dir.iterdir():
                self.assertEqual(path.stat().st_mode & 0o77, 0, path)
            self.assertEqual(guest.status(), "prelaunch")
            self.assertIn("CR3=", guest.hmp("info registers"))
            assert guest.ramfile is not None
            self.assertEqual(guest.ramfile.stat().st_size, 128 << 20)
        self.assertFalse(guest.dir.exists())

    def test_listens_on_loopback_only(self) -> None:
        with Guest(boot=[]) as guest:
            sockets = [
                line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            ]
            sockets += [
                line.split()[1] for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]
            ]
            self.assertEqual(
                [s for s in sockets if s.endswith(f":{guest.port:04X}")],
                [f"0100007F:{guest.port:04X}"],
            )

    def test_a_port_that_is_taken(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.assertTrue(listens(os.getpid(), port))
            self.assertFalse(listens(os.getppid(), port))
            command = [PYTHON, "tools/qemu.py", "debug", f"--port={port}"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"QEMU did not start on port {port}", done.stderr)
        shutil.rmtree(BUILD / f"run-{port}")

    def test_two_side_by_side(self) -> None:
        with Guest(boot=[]) as a, Guest(boot=[]) as b:
            self.assertNotEqual((a.port, a.dir, a.pid), (b.port, b.dir, b.pid))
            a.close()
            self.assertEqual(b.status(), "prelaunch")

    def test_ends_with_its_script(self) -> None:
        text = "import os, sys\nfrom qemu import Guest\ng = Guest(boot=[])\nprint(g.pid, g.dir, flush=True)\nos.kill(os.getpid(), 9)\n"
        command = [PYTHON, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
        pid, directory = done.stdout.split()
        for _ in range(100):
            if not self.alive(int(pid)):
                break
            time.sleep(0.05)
        self.assertFalse(self.alive(int(pid)))
        for path in Path(directory).iterdir():
            path.unlink()
        Path(directory).rmdir()

    def alive(self, pid: int) -> bool:
        """Whether the process runs (a zombie whose parent has not asked does not)."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] not in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return False


class Linux(WithFiles):
    """Which of the installed kernels the foreign guest boots."""

    def test_newest(self) -> None:
        """By its version, in whichever place it lies."""
        with self.assertRaisesRegex(GuestError, "make packages"):
            newest_kernel(self.dir)
        for name in (
            "boot/vmlinuz-6.1.0-9-cloud-amd64",
            "boot/vmlinuz-6.1.0-50-cloud-amd64",
            "usr/lib/modules/6.12.9+deb13-cloud-amd64/vmlinuz",
            "boot/vmlinuz-6.12.117+deb13-cloud-amd64",
            "usr/lib/modules/6.12.117+deb13.1-cloud-amd64/vmlinuz",
            "boot/vmlinuz-7.2-cloud-amd64",
            "usr/lib/modules/7.2.1+deb14-cloud-amd64/vmlinuz",
            "boot/vmlinuz-10.0.1-cloud-amd64",
        ):
            path = self.dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self.assertEqual(newest_kernel(self.dir), path)
        (self.dir / "boot/vmlinuz-99.0-amd64").touch()
        self.assertEqual(newest_kernel(self.dir), path, "that is no cloud kernel")


class Fixture(unittest.TestCase):
    """The tests' list itself."""

    def test_names_are_unique(self) -> None:
        jobs: list[Any] = [*run.guest_jobs(), *run.host_jobs(), *gdb_jobs(), *run.python_jobs()]
        self.assertEqual(len({run.log_path(j.name) for j in jobs}), len(jobs))


if __name__ == "__main__":
    BUILD.mkdir(exist_ok=True)
    unittest.main()
