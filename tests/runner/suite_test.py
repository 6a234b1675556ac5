#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""tests/runner/suite.py: what it says where it can't run, and that it leaves nothing behind, on a small system made of this one's bash."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import suite
from packages import listed, mirror
from qemu import BUILD, ROOT

# In the place of mmdebstrap: a system of bash, env and a make that the test has written. TARGET is its last word but one or two.
MMDEBSTRAP = """#!/bin/bash
for word; do case $word in *.part) target=$word;; esac; done
echo "$*" >>"$FAKE/mmdebstrap.calls"
. "$FAKE/mmdebstrap.does"
root=$TMPDIR/root
mkdir -p "$root"/{proc,dev,etc,usr/bin,var/cache/apt/archives}
ln -s usr/bin "$root/bin"
for program in bash env sleep; do
    cp "$(command -v $program)" "$root/usr/bin/"
    for lib in $(ldd "$(command -v $program)" | grep -o '/[^ ]*'); do
        mkdir -p "$root$(dirname "$lib")"
        cp -L "$lib" "$root$lib"
    done
done
cp "$FAKE/make" "$root/usr/bin/make"
tar -cf "$target" -C "$root" .
"""
KINDS = "packages) echo installed;; demo) exit $DEMO;; check) echo \"only: $2\"; echo '7 passed, 0 failed';;"


class Run(unittest.TestCase):
    """`tests/runner/suite.py trixie` among fakes."""

    def setUp(self) -> None:
        BUILD.mkdir(exist_ok=True)
        self.tmp = tempfile.TemporaryDirectory(prefix="suite-", dir=BUILD)
        self.addCleanup(self.tmp.cleanup)
        self.fake = Path(self.tmp.name) / "fake"
        self.fake.mkdir()
        self.place = Path(self.tmp.name) / "b/suites/trixie"
        self.write("mmdebstrap", MMDEBSTRAP)
        self.write("mmdebstrap.does", "")
        self.make("DEMO=0", KINDS)

    def write(self, name: str, text: str) -> None:
        """A program of the fake system, or of this one's PATH."""
        (self.fake / name).write_text(text)
        (self.fake / name).chmod(0o755)

    def make(self, before: str, cases: str) -> None:
        """The make of the small system."""
        self.write("make", f"#!/bin/bash\n{before}\ncase $1 in {cases} esac\n")

    def command(self, *words: str) -> tuple[list[str], dict[str, str]]:
        """The program, and its environment."""
        build = os.path.relpath(Path(self.tmp.name) / "b", ROOT)
        env = {**os.environ, "FAKE": str(self.fake), "BUILD": build}
        env["PATH"] = f"{self.fake}:{os.environ['PATH']}"
        return ["/usr/bin/python3", str(ROOT / "tests/runner/suite.py"), *words], env

    def run_suite(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        command, env = self.command(*words)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

    def nothing_left(self) -> None:
        """No mount, no archive that is half there."""
        self.assertEqual([m for m in suite.mounts() if self.tmp.name in m], [])
        self.assertFalse((self.place / "bare.tar.part").exists())

    def test_passes(self) -> None:
        """The closing line is that of the check; the second run does without mmdebstrap."""
        for _ in range(2):
            done = self.run_suite("trixie", "--only=gdb/a,unit")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertEqual(done.stdout.splitlines()[-1], "7 passed, 0 failed")
            self.assertIn("only: ONLY=gdb/a,unit", done.stdout)
            self.assertTrue((self.place / "root/ktf/tests/runner/suite.py").exists())
            self.assertFalse((self.place / "root/ktf/build").exists())
            self.nothing_left()
        calls = (self.fake / "mmdebstrap.calls").read_text().splitlines()
        self.assertEqual(len(calls), 1)
        self.assertIn("--include=ca-certificates,git,make trixie", calls[0])
        self.assertNotIn("Check-Valid-Until", calls[0])

    def test_failures_count(self) -> None:
        """A demo that fails, a check that fails, one that does not end with its line."""
        for demo, check, closing in (
            ("3", "echo '7 passed, 0 failed'", "7 passed, 1 failed"),
            ("0", "echo '7 passed, 2 failed'; exit 1", "7 passed, 2 failed"),
            ("0", "echo '7 passed, 0 failed'; exit 1", "7 passed, 1 failed"),
            ("0", "echo it begins; exit 2", "0 passed, 1 failed"),
        ):
            self.make(f"DEMO={demo}", f"packages) ;; demo) exit $DEMO;; check) {check};;")
            shutil.rmtree(self.place, ignore_errors=True)
            done = self.run_suite("trixie")
            self.assertEqual(done.stdout.splitlines()[-1], closing, done.stderr)
            self.assertEqual(done.returncode, 1)

    def test_no_answer(self) -> None:
        """Nobody reached, by mmdebstrap or by the packages: a status of its own, and the way out."""
        said = "Could not resolve 'x'"
        self.write("mmdebstrap.does", f'echo "E: {said}" >&2; exit 25')
        self.refused(suite.UNREACHED, "can't be reached: try again with a network")
        (self.place / "bare.tar").unlink()
        self.make("", f'packages) echo "E: {said}"; exit 100;;')
        self.refused(
            suite.UNREACHED, "trixie: `make packages`: its packages can't be reached", False
        )

    def test_full_disk(self) -> None:
        self.write("mmdebstrap.does", 'echo "tar: x: No space left on device" >&2; exit 2')
        self.refused(suite.HERE, "the disk is full: make room under ")

    def test_other_failure(self) -> None:
        """What mmdebstrap itself says."""
        self.write("mmdebstrap.does", 'echo "E: cannot do this" >&2; exit 2')
        self.refused(suite.HERE, "no bare trixie: cannot do this (")

    def test_cut_archive(self) -> None:
        """It is removed, and made again the next time."""
        self.assertEqual(self.run_suite("trixie").returncode, 0)
        with (self.place / "bare.tar").open("r+b") as f:
            f.truncate(100_000)  # within bash
        self.refused(suite.HERE, "the bare system was removed, then again")

    def refused(self, status: int, words: str, made: bool = True) -> None:
        """One line on stderr and that status; nothing is left, and the next run is as the first.

        made: the bare system is as it shall be, or is not there."""
        done = self.run_suite("trixie")
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertIn(words, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.nothing_left()
        self.write("mmdebstrap.does", "")
        self.make("DEMO=0", KINDS)
        shutil.rmtree(self.place / "root", ignore_errors=True)
        if not made:
            (self.place / "bare.tar").unlink()
        self.assertEqual(self.run_suite("trixie").returncode, 0)

    def test_ended_by_a_signal(self) -> None:
        """In the midst of the bootstrap, of the check: no process, no mount; then a clean run."""
        wait = f'touch "{self.fake}/there"; echo half >"$target"; sleep 3421'
        for signum in (signal.SIGINT, signal.SIGKILL):
            self.write("mmdebstrap.does", wait)
            self.ended(signum, self.fake / "there")
        self.write("mmdebstrap.does", "")
        self.make("", "packages) echo >/there; sleep 3421;;")
        for signum in (signal.SIGTERM, signal.SIGKILL):
            self.ended(signum, self.place / "root/there")
        (self.place / "bare.tar").unlink()  # its make sleeps
        self.make("DEMO=0", KINDS)
        done = self.run_suite("trixie")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.nothing_left()

    def ended(self, signum: int, there: Path) -> None:
        """Starts it, waits for the file, ends it."""
        command, env = self.command("trixie")
        process = subprocess.Popen(
            ["env", "--default-signal=INT", *command],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 60
        while not there.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        self.assertTrue(there.exists(), "it did not get there")
        there.unlink()
        process.send_signal(signum)
        process.wait(30)
        time.sleep(0.3)
        self.assertEqual([m for m in suite.mounts() if self.tmp.name in m], [])
        self.assertEqual(self.sleepers(), [])

    def sleepers(self) -> list[str]:
        """The fakes that still wait."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", b"3421"]:
                found.append(str(path))
        return found

    def test_impossible(self) -> None:
        """A wrong word, nobody's root, no mmdebstrap."""
        self.says("SUITE=buster: bookworm, trixie or sid is wanted", "buster")
        (self.fake / "mmdebstrap").unlink()
        path = os.environ["PATH"]
        try:
            os.environ["PATH"] = "/nonexistent"
            self.says("no mmdebstrap: apt-get install mmdebstrap", "trixie")
        finally:
            os.environ["PATH"] = path
        command, env = self.command("trixie")
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = subprocess.run([*user, *command], env=env, capture_output=True, text=True)
        self.assertIn("needs root: sudo make check SUITE=trixie", done.stderr)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (suite.HERE, 1))

    def says(self, words: str, *arguments: str) -> None:
        """One line, and the status of what can't be tried here."""
        done = self.run_suite(*arguments)
        self.assertEqual((done.returncode, done.stderr), (suite.HERE, f"suite: {words}\n"))

    def test_two_at_once(self) -> None:
        self.place.mkdir(parents=True)
        with suite.alone(self.place):
            done = self.run_suite("trixie")
        self.assertIn("another run of trixie is under way", done.stderr)


class Releases(unittest.TestCase):
    """The package list on each release, by apt-get's own solver on that release's index."""

    def test_each_release_has_them(self) -> None:
        for name in suite.SUITES:
            with self.subTest(name), tempfile.TemporaryDirectory(prefix="apt-") as tmp:
                self.solve(name, Path(tmp))

    def solve(self, name: str, tmp: Path) -> None:
        """Every package can be installed there. Where its index can't be reached, that is said."""
        uri = mirror()
        if not uri:
            print(f"{name}: not tried: this machine has no Debian packages")
            return
        for folder in ("state/lists/partial", "cache/archives/partial", "etc"):
            (tmp / folder).mkdir(parents=True)
        (tmp / "status").touch()
        keys = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        (tmp / "etc/sources.list").write_text(f"deb {keys} {uri[0]} {name} main\n")
        (tmp / "etc/preferences").touch()
        options = {
            "Dir::State": tmp / "state",
            "Dir::State::status": tmp / "status",
            "Dir::Cache": tmp / "cache",
            "Dir::Etc": tmp / "etc",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": "-",
            "Acquire::Languages": "none",
            "Acquire::Check-Valid-Until": "false",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
        done = subprocess.run([*apt, "update"], capture_output=True, text=True, timeout=200)
        said = done.stdout + done.stderr
        if suite.NO_ANSWER.search(said):
            print(f"{name}: not tried: its index can't be reached")
            return
        self.assertEqual(done.returncode, 0, said)
        wanted = [*listed(), *suite.INCLUDE.split(",")]
        install = [*apt, "install", "-s", "--no-install-recommends", *wanted]
        done = subprocess.run(install, capture_output=True, text=True, timeout=200)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for package in wanted:
            self.assertIn(f"\nInst {package} ", done.stdout, name)


if __name__ == "__main__":
    unittest.main()
