# SPDX-License-Identifier: BSD-2-Clause
"""A guest that is not ours: Debian's kernel and an initramfs of one program, tests/gdb/linux_*.c."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

from qemu import BUILD, ROOT, GuestError, private_dir
from qemu import boot_args as our_disc

# Where linux-image-cloud-amd64, or what it depends on, puts a kernel; a copy in /boot is made when it is installed.
KERNELS = ("boot/vmlinuz-*-cloud-amd64", "usr/lib/modules/*-cloud-amd64/vmlinuz")
READY = "ktf-linux-ready"  # what the program says when it has done what it is for
PROGRAMS = {
    "linux": "linux_init",  # maps memory of all sorts
    "linux-acpi": "linux_acpi",  # says what Linux sees of ACPI; our disc is in the drive, as on our kernel's machine
}


def boot_args(kind: str = "linux") -> list[str]:
    """QEMU's arguments to boot it with the program of that kind (PROGRAMS); GuestError if there is no such kernel."""
    kernel = newest_kernel()
    directory = private_dir(BUILD / "linux")
    words = "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable"
    args = [
        "-kernel",
        str(kernel),
        "-initrd",
        str(initramfs(directory, PROGRAMS[kind])),
        "-append",
        words,
    ]
    return args + (our_disc() if kind == "linux-acpi" else [])


def newest_kernel(root: Path = Path("/")) -> Path:
    """Of the cloud kernels that are installed the one with the highest version; GuestError if there is none."""
    found = [path for pattern in KERNELS for path in root.glob(pattern)]
    if not found:
        places = " and no ".join(str(root / pattern) for pattern in KERNELS)
        raise GuestError(f"no {places}: `make packages` installs linux-image-cloud-amd64")
    return max(found, key=release)


def release(kernel: Path) -> list[tuple[int, ...]]:
    """A kernel's version as something that can be compared: the numbers of each part between dashes."""
    name = (
        kernel.name.removeprefix("vmlinuz-") if kernel.parent.name == "boot" else kernel.parent.name
    )
    return [tuple(map(int, re.findall(r"\d+", part))) for part in name.split("-")]


def initramfs(directory: Path, program: str) -> Path:
    """Compiles the program and packs it; two tests at once make two, the last one stays."""
    mine = directory / f"init.{os.getpid()}.{os.urandom(4).hex()}"
    source = ROOT / f"tests/gdb/linux/{program}.c"
    command = ["gcc", "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]
    command += ["-Wall", "-Wextra", "-Werror", "-o", str(mine), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise GuestError(f"{source}: {done.stderr}")
    data = mine.read_bytes()
    archive = entry("dev", stat.S_IFDIR | 0o755) + entry("sys", stat.S_IFDIR | 0o755)
    archive += entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive += entry("init", stat.S_IFREG | 0o755, data) + entry("TRAILER!!!", 0)
    mine.write_bytes(archive)
    return mine.rename(directory / f"{program}.cpio")


def entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """A file in the cpio format "newc": 13 numbers of 8 digits, name, data, each padded to 4 bytes."""
    numbers = [0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + "".join(f"{n:08x}" for n in numbers).encode() + name.encode() + b"\0"
    return padded(head) + padded(data)


def padded(data: bytes) -> bytes:
    """The bytes, and zeros up to a multiple of 4."""
    return data + bytes(-len(data) % 4)
