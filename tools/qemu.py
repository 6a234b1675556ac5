#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Starts guests in QEMU: for the tests and the demo as a class, for `make run` and `make debug` as a program."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Iterator, Sequence

from monitor import GuestError as GuestError  # part of what a guest promises
from monitor import Monitor

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / os.environ.get("BUILD", "build")
OVMF = "/usr/share/ovmf/OVMF.fd"
KILLED = "Terminated via GDBstub"  # QEMU's word for GDB's `kill`
GUEST_SHUTDOWN = "guest-shutdown"  # QMP's word for an end that the guest asked for
PANICKED = "GUEST_PANICKED"  # the event of pvpanic
WITH_US = ["setpriv", "--pdeathsig", "KILL"]  # the kernel ends the command when we end, however
EXIT_SUCCESS = 33  # isa-debug-exit makes 2c + 1 of the kernel's c = 16
EXIT_FAILURE = 35


def size_bytes(text: str) -> int:
    """Bytes of a QEMU size such as 128M or 4G."""
    unit = {"K": 10, "M": 20, "G": 30}.get(text[-1].upper())
    return int(text) << 20 if unit is None else int(text[:-1]) << unit


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def private_dir(path: Path) -> Path:
    """The directory, made if need be, for this user alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def private_file(path: Path, size: int = 0) -> Path:
    """A new (emptied) file of that many bytes, for this user alone."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)
    return path


def machine_args(
    mem: str,
    smp: int,
    machine: str,
    cpu: str | None,
    uefi: bool,
    cmdline: str,
    ramfile: Path | None,
) -> list[str]:
    """QEMU's arguments for what the guest sees, all but the disk it boots from."""
    args = ["qemu-system-x86_64", "-accel", "tcg", "-m", mem, "-smp", str(smp)]
    if ramfile is not None:
        machine += ",memory-backend=ram"
        args += ["-object", f"memory-backend-file,id=ram,size={mem},mem-path={ramfile},share=on"]
    args += ["-machine", machine, "-nic", "none"]
    if cpu:
        args += ["-cpu", cpu]
    if uefi:
        args += ["-bios", OVMF]
    if cmdline:
        args += ["-fw_cfg", "name=opt/ktf/cmdline,string=" + cmdline.replace(",", ",,")]
    args += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "pvpanic"]
    args += ["-no-reboot", "-no-shutdown"]
    return args


def boot_args() -> list[str]:
    """QEMU's arguments to boot our kernel through GRUB2."""
    return ["-cdrom", str(BUILD / "ktf.iso")]


class Guest:
    """A running guest; ends with the `with` block, with its time-out, or with this process, whatever comes first.

    ramfile: the RAM is a shared file (self.ramfile). stopped: halted before the first instruction. log: QEMU writes
    exceptions and resets (-d int,cpu_reset) to self.log. boot: QEMU's arguments for another disk than our ISO. Every
    file lies in self.dir, a directory of its own.
    """

    def __init__(
        self,
        mem: str = "128M",
        smp: int = 1,
        machine: str = "pc",
        uefi: bool = False,
        cmdline: str = "",
        ramfile: bool = False,
        stopped: bool = True,
        cpu: str | None = "max",
        log: bool = False,
        timeout: float = 60,
        boot: Sequence[str] | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.timed_out = False
        base = private_dir(BUILD / "guests")
        self.dir = Path(tempfile.mkdtemp(prefix="guest-", dir=base))
        self.serial = private_file(self.dir / "serial")
        self.stderr = private_file(self.dir / "qemu.err")
        self.log = private_file(self.dir / "qemu.log") if log else None
        self.ramfile = private_file(self.dir / "ram", size_bytes(mem)) if ramfile else None
        args = machine_args(mem, smp, machine, cpu, uefi, cmdline, self.ramfile)
        args += [
            "-display",
            "none",
            "-serial",
            "file:serial",
            "-qmp",
            "unix:qmp,server=on,wait=off",
        ]
        args += ["-S"] if stopped else []
        args += ["-d", "int,cpu_reset", "-D", "qemu.log"] if log else []
        self.args = args + (boot_args() if boot is None else list(boot)) + list(extra)
        self._monitor: Monitor | None = None
        self._output: str | None = None
        self._watchdog = threading.Timer(timeout, self._expire)
        self._watchdog.daemon = True
        try:
            self._start()
        except GuestError:
            self.close()
            raise
        self._watchdog.start()

    def _start(self) -> None:
        """Starts QEMU; again with another port when somebody else was quicker to take the one chosen."""
        for _ in range(5):
            self.port = free_port()
            with self.stderr.open("w") as err:
                self.process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL"]
                    + self.args
                    + ["-gdb", f"tcp:127.0.0.1:{self.port}"],
                    stdin=subprocess.DEVNULL,
                    stdout=err,
                    stderr=err,
                    cwd=self.dir,
                    umask=0o077,
                    start_new_session=True,
                )
            if self._connect():
                return
            if "in use" not in self.stderr.read_text():
                break
        # It may have ended already because it had so little to do; that is for wait() to judge.
        if self.process.returncode not in (EXIT_SUCCESS, EXIT_FAILURE):
            raise GuestError(
                f"QEMU did not start ({self.process.returncode}): {self.stderr.read_text().strip()}"
            )

    def _connect(self) -> bool:
        """Opens the monitor. It answers when all of QEMU is set up, the stub's port included; False if QEMU ended."""
        while self.process.poll() is None and time.monotonic() < self.deadline:
            try:
                self._monitor = Monitor(
                    self.dir / "qmp", max(1.0, self.deadline - time.monotonic())
                )
                return True
            except (OSError, GuestError):
                time.sleep(0.005)  # not there yet, or no longer
        self.process.kill()
        self.process.wait()
        return False

    def _expire(self) -> None:
        self.timed_out = self.process.poll() is None
        if self.timed_out:
            self.process.kill()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends QEMU and removes its files; what the guest said can still be read."""
        self._watchdog.cancel()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.dir.exists():
            self._output = self.output()
            shutil.rmtree(self.dir)

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self.process.pid

    def qmp(self, name: str, **arguments: Any) -> Any:
        """Runs a command of the machine-readable monitor."""
        if self._monitor is None:
            raise GuestError(f"no monitor (QEMU's status: {self.process.poll()})")
        return self._monitor.command(name, **arguments)

    def end_events(self) -> list[dict[str, Any]]:
        """Of a guest that has ended: the monitor's events."""
        return [] if self._monitor is None else self._monitor.rest()

    def hmp(self, command: str) -> str:
        """Runs a command of the human monitor (`info tlb`, `xp`, ...) and returns its text."""
        text: str = self.qmp("human-monitor-command", **{"command-line": command})
        return text

    def status(self) -> str:
        """running, paused, shutdown (as after a triple fault), ..., or 'exited N'."""
        if self.process.poll() is not None:
            return f"exited {self.process.returncode}"
        status: str = self.qmp("query-status")["status"]
        return status

    def output(self) -> str:
        """What the guest has said on its serial line so far."""
        if self._output is None:
            return self.serial.read_text(errors="replace").replace("\r", "")
        return self._output

    def tail(self, lines: int = 15) -> str:
        """The last lines of that."""
        return "\n".join(self.output().splitlines()[-lines:])

    def _poll(self, what: str) -> Iterator[None]:
        """Yields until the caller has what it waits for; raises at the end of the guest or of its time."""
        pause = 0.005
        while True:
            alive = self.process.poll() is None
            yield
            if self.timed_out or time.monotonic() > self.deadline:
                raise GuestError(
                    f"time-out ({self.timeout:g} s) waiting for {what}; serial:\n{self.tail()}"
                )
            if not alive:
                raise GuestError(
                    f"guest ended ({self.process.returncode}) before {what}; serial:\n{self.tail()}"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def wait_serial(self, text: str) -> str:
        """Waits until the guest has said the text; returns all it has said."""
        for _ in self._poll(f"the line {text!r}"):
            if text in (output := self.output()):
                return output
        raise AssertionError("unreachable")

    def wait_status(self, *wanted: str) -> str:
        """Waits until status() is one of these ('shutdown' after a triple fault) and returns it."""
        for _ in self._poll("status " + " or ".join(wanted)):
            if self.process.poll() is None and (status := self.status()) in wanted:
                return status
        raise AssertionError("unreachable")

    def wait(self) -> int:
        """Waits for the guest to end by itself; its status, of which only EXIT_SUCCESS is success.

        A guest that was reset is not one that ended: QEMU stays, with the registers as they were. Then, and when the
        kernel panicked or switched the machine off, this raises at once.
        """
        for _ in self._poll("its end"):
            if self.process.poll() is not None and not self.timed_out:
                return self._own_end(self.process.returncode)
            if self.process.poll() is None:
                if "PANIC:" in self.output():
                    time.sleep(0.2)  # the backtrace
                    raise GuestError(f"the kernel panicked; serial:\n{self.tail(40)}")
                try:
                    status = self.status()
                except GuestError:
                    continue  # it is about to end
                if self.process.poll() is not None:
                    continue  # it ended in between
                # Whatever the status: a halted guest that GDB kills keeps its own.
                if self.reason() == GUEST_SHUTDOWN:
                    return self._exit_status()
                if status == "shutdown" and not self.reason():
                    continue  # the event that says why is on its way
                if status == "guest-panicked":
                    raise GuestError(f"the kernel panicked; serial:\n{self.tail(40)}")
                if status not in ("running", "paused", "prelaunch"):
                    how = "was reset, by a triple fault or itself" if self.reason() else "stopped"
                    raise GuestError(f"the guest {how} (status {status}); serial:\n{self.tail()}")
        raise AssertionError("unreachable")

    def reason(self) -> str:
        """Why QEMU says that the machine went down: "guest-shutdown", "guest-reset", ...; "" if it has not."""
        events = [] if self._monitor is None else self._monitor.events
        return next((e["data"]["reason"] for e in events if e["event"] == "SHUTDOWN"), "")

    def _exit_status(self) -> int:
        """Of a guest that asked for its end, and whose QEMU waits in `shutdown` with the status that it will end with.

        QEMU 7.2 ends at isa-debug-exit whatever -no-shutdown says; 10.0 keeps that status. A power-off has none, nor has
        GDB's `kill`, for which 10.0 gives the same reason.
        """
        with contextlib.suppress(GuestError):
            self.qmp("quit")  # it may end before it has answered
        status = self.process.wait(max(1.0, self.deadline - time.monotonic()))
        if self._own_end(status) == 0:
            raise GuestError(f"the guest switched the machine off; serial:\n{self.tail()}")
        return status

    def _own_end(self, status: int) -> int:
        """The status, unless it was not the guest that ended QEMU."""
        if KILLED in self.stderr.read_text(errors="replace"):
            raise GuestError("GDB's `kill` ended the machine")
        return status

    def cont(self) -> None:
        """Lets a stopped guest run."""
        self.qmp("cont")


def gdb_command(port: int | None, *more: str, symbols: bool = True) -> list[str]:
    """GDB with the kernel and the commands loaded, connected to the stub on that port (None: not connected).

    symbols: without them the commands alone.
    """
    # It ends with us; and nothing may wait for an answer: no debuginfod, no paging, no questions.
    command = [*WITH_US, "gdb", "-q", "-nx", "-iex", "set debuginfod enabled off"]
    command += ["-iex", "set pagination off", "-iex", "set confirm off"]
    if symbols:
        # kernel.elf-gdb.py lies beside the ELF and loads the commands, once GDB may.
        command += ["-iex", f"add-auto-load-safe-path {BUILD}", str(BUILD / "kernel.elf")]
    else:
        command += ["-ex", f"source {ROOT / 'gdb/ktf-gdb.py'}"]
    if port is not None:
        command += ["-ex", f"target remote 127.0.0.1:{port}"]
    return command + list(more)


def run_console(args: argparse.Namespace) -> int:
    """`make run`: the guest on this terminal, until it ends. The status is the guest's, 0 for success."""
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=private_dir(BUILD / "guests")))
    private_file(directory / "qemu.log")
    command = machine_args(
        args.mem, args.smp, args.machine, args.cpu, args.uefi, args.cmdline, None
    )
    # Where -qmp is given, -nographic alone has no Ctrl-a x and no monitor on the console.
    command += boot_args() + ["-nographic", "-serial", "mon:stdio"]
    command += ["-qmp", "unix:qmp,server=on,wait=off"]
    command += ["-d", "int,cpu_reset", "-D", "qemu.log"]
    try:
        qemu = subprocess.Popen(WITH_US + command, cwd=directory, umask=0o077)
        event = wait_end(qemu, directory / "qmp")
        status = qemu.wait()
        text = what_ended(event, status, directory / "qemu.log", args.cmdline)
        if text:
            print(f"\n{text}", file=sys.stderr)
        if event is not None and event["event"] in (PANICKED, "SHUTDOWN") and status == 0:
            return 0 if event.get("data", {}).get("reason") == GUEST_SHUTDOWN else 1
        return 0 if status in (0, EXIT_SUCCESS) else status  # 0: the user quit
    finally:
        shutil.rmtree(directory)


def wait_end(qemu: subprocess.Popen[bytes], path: Path) -> dict[str, Any] | None:
    """Waits until the guest is at its end, and ends QEMU. QMP's event of that end; None if QEMU ended without, or by the user."""
    monitor = None
    while monitor is None and qemu.poll() is None:
        try:
            monitor = Monitor(path, 10)
        except (OSError, GuestError):
            time.sleep(0.01)
    if monitor is None:
        return None
    try:
        event = monitor.wait_event("SHUTDOWN", PANICKED)
        if event is not None and event["data"].get("guest", True):
            with contextlib.suppress(GuestError):
                monitor.sock.settimeout(10)
                monitor.command("quit")
            return event
    except OSError:
        pass  # it has ended in the midst of a word
    finally:
        monitor.close()
    return None


def what_ended(event: dict[str, Any] | None, status: int, log: Path, cmdline: str) -> str:
    """A line on the end, "" for one by success or by the user."""
    debug = shlex.join(["make", "debug", f"CMDLINE={cmdline}"] if cmdline else ["make", "debug"])
    ask = f"`{debug}`, then `continue` and `ktf-postmortem`, says why"
    if event is not None and event["event"] == PANICKED:
        return f"The guest has panicked: {ask}."
    if event is not None and event["data"]["reason"] != GUEST_SHUTDOWN:
        triple = "Triple fault" in log.read_text(errors="replace")
        return f"The guest was reset{', by a triple fault' * triple}: {ask}."
    if event is not None and status == 0:
        return "The guest switched the machine off."
    if status not in (0, EXIT_SUCCESS):
        return f"The guest ended with status {status} ({EXIT_SUCCESS} is success)."
    return ""


def run_debug(args: argparse.Namespace) -> int:
    """`make debug`: the guest halted at its first instruction, GDB attached to it on this terminal."""
    directory = private_dir(BUILD / f"run-{args.port}")
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(
            f"port {args.port} is another guest's; take your own: make debug GDB_PORT=NNNN",
            file=sys.stderr,
        )
        return 1
    ramfile = private_file(directory / "ram", size_bytes(args.mem))
    for name in ("serial", "qemu.log"):
        private_file(directory / name)
    with contextlib.suppress(FileNotFoundError):
        (directory / "monitor").unlink()
    command = machine_args(
        args.mem, args.smp, args.machine, args.cpu, args.uefi, args.cmdline, ramfile
    )
    command += boot_args() + [
        "-display",
        "none",
        "-serial",
        "file:serial",
        "-monitor",
        "unix:monitor,server=on,wait=off",
        "-S",
    ]
    command += ["-d", "int,cpu_reset", "-D", "qemu.log", "-gdb", f"tcp:127.0.0.1:{args.port}"]
    qemu = subprocess.Popen(
        WITH_US + command,
        stdin=subprocess.DEVNULL,
        cwd=directory,
        umask=0o077,
        start_new_session=True,  # Ctrl-C is for GDB
    )
    try:
        if not wait_listening(qemu, args.port):
            print(f"QEMU did not start on port {args.port} (GDB_PORT= changes it)", file=sys.stderr)
            return 1
        print(
            f"In {directory}: serial (the guest's output), monitor (a socket), qemu.log (its exceptions)."
        )
        print(
            "The guest is halted at its first instruction: `break ktf_ready`, `continue`, then the ktf- commands."
        )
        with ignoring_interrupts():
            return subprocess.call(gdb_command(args.port) + args.gdb)
    finally:
        qemu.kill()
        qemu.wait()
        ramfile.unlink()
        os.close(lock)


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Ctrl-C at the terminal is GDB's while GDB is in front."""
    old = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def listens(pid: int, port: int) -> bool:
    """Whether that process itself listens there on loopback (asked of /proc: a connection would stop the guest)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {
        f"socket:[{row[9]}]" for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"
    }
    with contextlib.suppress(FileNotFoundError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(fd) in inodes:
                    return True
    return False


def wait_listening(process: subprocess.Popen[bytes], port: int, seconds: float = 10) -> bool:
    """Whether that process came to listen there."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if listens(process.pid, port):
            return True
        time.sleep(0.01)
    return False


def memory(text: str) -> str:
    """A size of RAM as MEM= has it."""
    if not re.fullmatch("[1-9][0-9]*[KMG]?", text):
        raise argparse.ArgumentTypeError(f"MEM={text}: a size is wanted, such as 128M or 4G")
    return text


def cpus(text: str) -> int:
    """A number of CPUs as SMP= has it."""
    if not re.fullmatch("[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"SMP={text}: a number of CPUs is wanted, from 1 on")
    return int(text)


def flag(text: str) -> bool:
    """UEFI=0 or UEFI=1."""
    if text not in ("0", "1"):
        raise argparse.ArgumentTypeError(f"UEFI={text}: 0 (BIOS) or 1 is wanted")
    return text == "1"


def guest_options(parser: argparse.ArgumentParser) -> None:
    """What the Makefile's variables say of the guest. CMDLINE comes by the environment: its quotes are nobody's."""
    parser.add_argument("--mem", type=memory, default="128M")
    parser.add_argument("--smp", type=cpus, default=2)
    parser.add_argument("--machine", choices=("pc", "q35"), default="pc")
    parser.add_argument("--cpu", default="max")
    parser.add_argument("--uefi", type=flag, default=False)
    parser.add_argument("--cmdline", default=os.environ.get("CMDLINE", ""))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; arguments after `--` go to GDB."""
    argv, gdb = (
        (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    )
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage="make run|debug [MEM=] [SMP=] [MACHINE=] [CPU=] [UEFI=] [CMDLINE=]",
    )
    parser.add_argument("what", choices=["run", "debug"])
    guest_options(parser)
    parser.add_argument("--port", type=int, default=1234)
    args = parser.parse_args(argv)
    args.gdb = list(gdb)
    return args


def main() -> int:
    """Entry."""
    args = parse(sys.argv[1:])
    return run_console(args) if args.what == "run" else run_debug(args)


if __name__ == "__main__":
    sys.exit(main())
