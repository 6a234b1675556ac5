#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Holds tools/packages.txt against what the Makefile and the tests call, and tries tools/packages.sh."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from glob import glob
from pathlib import Path

from packages import files, installed, listed, restricted_path, with_dependencies
from qemu import BUILD, ROOT

SCRIPT = ROOT / "tools/packages.sh"


class Provided(unittest.TestCase):
    """What the list says of packages is true."""

    def test_each_thing_comes_from_its_package(self) -> None:
        have = installed()
        for package, things in listed().items():
            if package not in have:
                continue  # a group that was not asked for
            held = {
                os.path.realpath(path)
                for path in files(*with_dependencies(package))
                if os.path.lexists(path)
            }
            for thing in things:
                with self.subTest(package=package, thing=thing):
                    if paths := self.paths_of(thing):
                        self.assertTrue(held & paths, f"{paths} come from elsewhere")

    def paths_of(self, thing: str) -> set[str]:
        """The file behind a word of the list, those of a pattern; none for a compiler's option: packages.sh tries it itself."""
        if thing.startswith(("cc:", "clang:")):
            return set()
        if thing.startswith("/"):
            found = [path for pattern in thing.split("|") for path in glob(pattern)]
            return {os.path.realpath(path) for path in found or [thing]}
        if module := thing.removeprefix("python:") if ":" in thing else "":
            command = ["/usr/bin/python3", "-c", f"import {module}; print({module}.__file__)"]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            return {os.path.realpath(out.strip())}
        candidates = [f"{d}/{thing}" for d in ("/usr/bin", "/bin", "/usr/sbin", "/sbin")]
        path = next((p for p in candidates if os.path.exists(p)), None)
        self.assertIsNotNone(path, f"no command {thing}")
        return {os.path.realpath(str(path))}

    def test_a_path_of_listed_commands_alone(self) -> None:
        """As `make check` builds with it, and run.py runs with it: what no package of ours brings is not there."""
        with tempfile.TemporaryDirectory(prefix="pk-", dir=BUILD) as tmp:
            command = ["/usr/bin/python3", "tools/packages.py", f"{tmp}/bin"]
            path = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            here = path.stdout.strip()
            self.assertEqual(here, f"{Path(tmp).resolve()}/bin")
            for name in ("gcc", "make", "grub-mkrescue", "qemu-system-x86_64", "sed"):
                self.assertTrue(shutil.which(name, path=here), name)
            for name in ("git", "cmake", "wget"):  # of packages that we don't list
                self.assertFalse(shutil.which(name, path=here), name)

    def test_the_check_builds_with_them_alone(self) -> None:
        env = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"}
        command = ["make", "-n", f"BUILD={BUILD.relative_to(ROOT)}", "check"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        builds = re.findall(r"^.*\bmake .*\ball\b.*$", done.stdout, re.MULTILINE)
        self.assertEqual(len(builds), 2, done.stdout + done.stderr)
        for build in builds:
            self.assertRegex(
                build, r'^PATH="\$\(tests/python tools/packages.py build/check/bin\)" make '
            )

    def test_no_acpica_there(self) -> None:
        """A wrong ACPICA_SRC is named before anything is built."""
        env = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"}
        command = ["make", "-s", "BUILD=/nonexistent/b", "ACPICA_SRC=/nonexistent", "all"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("ACPICA_SRC=/nonexistent: no drivers/acpi/acpica there", done.stderr)


class Script(unittest.TestCase):
    """tools/packages.sh among fake package tools that write down how they were called."""

    def setUp(self) -> None:
        self.tmp = tempfile.TemporaryDirectory(prefix="ktf-packages-")
        self.addCleanup(self.tmp.cleanup)
        self.bin = Path(self.tmp.name) / "bin"
        self.calls = Path(self.tmp.name) / "calls"
        self.calls.touch()
        self.bin.mkdir()
        for directory in os.environ["PATH"].split(":"):
            for path in Path(directory).glob("*"):
                if not (self.bin / path.name).is_symlink():
                    (self.bin / path.name).symlink_to(path)

    def fake(self, name: str, text: str) -> None:
        """Puts a script in the place of a command."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def recorder(self, name: str, then: str = "exit 0") -> None:
        """A fake that writes down its name and arguments first."""
        self.fake(name, f'echo "{name} $*" >>{self.calls}\n{then}')

    def run_script(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs the script with only self.bin in PATH."""
        env = {**os.environ, "PATH": str(self.bin)}
        return subprocess.run(
            ["/bin/bash", str(SCRIPT), *args], env=env, capture_output=True, text=True
        )

    def dpkg(self, *missing: str) -> None:
        """A dpkg-query that knows every package but those."""
        cases = "".join(f"*' {name}') exit 1;; " for name in missing)
        self.fake("dpkg-query", f'case "$*" in {cases} *) echo "install ok installed";; esac')

    def test_nothing_missing_asks_nothing_of_the_network(self) -> None:
        self.dpkg()
        for name in ("apt-get", "sudo"):
            self.recorder(name)
        done = self.run_script("build", "check")
        self.assertEqual((done.returncode, self.calls.read_text()), (0, ""), done.stderr)

    def test_missing_ones_are_installed_as_root(self) -> None:
        self.dpkg("xorriso", "gdb")
        self.fake("id", "echo 0")
        self.recorder("apt-get", f'echo "env $DEBIAN_FRONTEND" >>{self.calls}')
        self.recorder("sudo")
        done = self.run_script("build", "check")
        self.assertEqual(done.returncode, 0, done.stderr)
        calls = self.calls.read_text().splitlines()
        self.assertEqual(
            calls[0::2],
            ["apt-get update -q", "apt-get install -q -y --no-install-recommends xorriso gdb"],
        )
        self.assertEqual(calls[1::2], ["env noninteractive"] * 2)

    def test_with_sudo_when_not_root(self) -> None:
        self.dpkg("ovmf")
        self.fake("id", "echo 1000")
        self.recorder("sudo", '"$@"')
        self.recorder("apt-get")
        done = self.run_script("check")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(
            "sudo env DEBIAN_FRONTEND=noninteractive apt-get install", self.calls.read_text()
        )

    def test_neither_root_nor_sudo(self) -> None:
        self.dpkg("ovmf")
        self.fake("id", "echo 1000")
        (self.bin / "sudo").unlink(missing_ok=True)
        self.recorder("apt-get")
        done = self.run_script("check")
        self.assertEqual((done.returncode, self.calls.read_text()), (1, ""))
        self.assertIn("run as root: env DEBIAN_FRONTEND=noninteractive apt-get", done.stderr)

    def test_a_failed_install_is_a_failure(self) -> None:
        self.dpkg("gdb")
        self.fake("id", "echo 0")
        self.recorder("apt-get", "exit 100")
        self.assertEqual(self.run_script("check").returncode, 100)

    def test_another_system(self) -> None:
        (self.bin / "dpkg-query").unlink(missing_ok=True)
        self.assertEqual(self.run_script("build").returncode, 0)
        (self.bin / "xorriso").unlink()
        done = self.run_script("build")
        self.assertEqual(done.returncode, 1)
        self.assertIn("xorriso (xorriso)", done.stderr)
        self.assertIn("no Debian system", done.stderr)

    def test_bare_make_says_what_to_do(self) -> None:
        (self.bin / "grub-mkrescue").unlink()
        env = {**os.environ, "PATH": str(self.bin)}
        env.pop("MAKEFLAGS", None)
        command = ["make", f"BUILD={self.tmp.name}/b"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("grub2-common (grub-mkrescue)", done.stderr)
        self.assertIn("`make packages`", done.stderr)


if __name__ == "__main__":
    unittest.main()
