# SPDX-License-Identifier: BSD-2-Clause
# ktf-acpi on a live guest whose tables are damaged: each fault is reported with its place, by each reader; no device is read.
# guest: mem=128M machine=pc smp=1 ramfile=1 timeout=240
# guest: mem=128M machine=pc smp=1 ramfile=1 stop=reset
import mmap
import os
import random
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import gdb
from inside import check, equal, error_of, json_of, passed, physical_mode, run
from reads import Reads

with open(os.environ["KTF_RAMFILE"], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)  # the guest's: physical address = offset
reads = Reads()


@contextmanager
def damaged(at: int, form: str, *values: int | bytes) -> Iterator[None]:
    """Other bytes there for a while."""
    size = struct.calcsize(form)
    before = memory[at : at + size]
    memory[at : at + size] = struct.pack(form, *values)
    try:
        yield
    finally:
        memory[at : at + size] = before


def told(*words: str, readers: bool = False) -> None:
    """These words are said, and no other table goes missing; readers: the other readers say the same, and so does the JSON."""
    text = run("ktf-acpi")
    for word in words:
        check(word in text, f"{word!r} is not told: {text}")
    check(re.search(r": \d problems?$", text.strip(), re.M), text)
    if not readers:
        return
    with reads:
        for reader in ("gdbstub", "procmem"):
            gdb.execute(f"set ktf reader {reader}")
            equal(run("ktf-acpi"), text, reader)
    gdb.execute("set ktf reader auto")
    equal(physical_mode(), "0")
    found = json_of("ktf-acpi")
    check(found["ok"] and found["problems"], str(found)[:300])


if int(gdb.parse_and_eval("$pc")) < 1 << 32:  # the firmware has not run
    message = error_of("ktf-acpi")
    check("no RSDP with a good checksum" in message and "has the firmware run?" in message, message)
    check("boot_info.rsdp is 0" in message, message)
    check("outside the guest's RAM" in error_of("ktf-acpi --rsdp 0xfee00000"))
    check("no RSDP at 0x1000" in error_of("ktf-acpi --rsdp 0x1000"))
    passed()
else:
    good = run("ktf-acpi")
    rows = {t["name"]: int(t["pa"], 16) for t in json_of("ktf-acpi")["tables"]}
    rsdt, fadt, apic, dsdt = (rows[name] for name in ("RSDT", "FACP", "APIC", "DSDT"))
    entry = rsdt + 36 + 4  # entry 1, that of the APIC

    for bad in (0xFEE00000, 0xFEC00000, 0x8000000, 0xC0000000):
        with damaged(entry, "<I", bad):
            told(f"RSDT entry 1): physical address {bad:#x}", "RSDT at", readers=True)
    for bad in (0, 35, 0x20000, 0x7FFFFFFF, 0xFFFFFFFF):
        with damaged(apic + 4, "<I", bad):
            told(f"APIC at {apic:#x} (RSDT entry 1): its length is {bad}", "HPET", readers=bad > 35)
            check("can't be dumped" in error_of("ktf-acpi APIC --dump never"))
    with damaged(apic + 30, "<B", 0x77):
        told(f"APIC at {apic:#x} (RSDT entry 1): checksum wrong", "HPET")
    for loop in (rsdt, fadt, dsdt):
        with damaged(entry, "<I", loop):
            told(f"RSDT entry 1 leads to {loop:#x}, as ")
    with damaged(fadt + 40, "<I", 0xFEE00000):
        told("(FACP): physical address 0xfee00000 is outside the guest's RAM", readers=True)
    with damaged(fadt + 40, "<I", apic):
        told(f"APIC at {apic:#x} (FACP): APIC stands there, not DSDT")
    with damaged(rsdt + 4, "<I", 36 + 4 * 4 + 1):
        told("1 bytes behind its entries")
    with damaged(rsdt + 4, "<I", 3):
        told(f"RSDT at {rsdt:#x} (the RSDP): its length is 3")

    # The root pointer: the kernel's copy, then the firmware's own.
    copy = int(gdb.parse_and_eval("boot_info.rsdp.v"))
    with damaged(copy + 9, "<B", 0):
        text = run("ktf-acpi")
        check(f"! RSDP at {copy:#x} (boot_info.rsdp): checksum wrong" in text, text)
        check("(the BIOS's memory): no problem" in text, text)
        check("checksum wrong" in run(f"ktf-acpi --rsdp {copy:#x}"))
    for pointer in (0, 0xFEE00000, 0xFFFFFFFFFFFFFFF0):
        gdb.execute(f"set var boot_info.rsdp.v = {pointer}")
        text = run("ktf-acpi")
        check("(the BIOS's memory): no problem" in text and "! boot_info.rsdp" in text, text)
    gdb.execute(f"set var boot_info.rsdp.v = {copy}")
    reads.only_ram(100)

    # The frame database full of random bytes: the tables are read all the same, and no error is ours.
    chosen = random.Random(os.environ["KTF_QEMU_PID"])
    pages = [int(gdb.parse_and_eval("$ktf_paddr(&mm)")) // 4096 * 4096]
    for r in json_of("ktf-maps --space kernel")["ranges"]:
        if r["kind"] in ("metadata", "table"):
            pages += range(int(r["pa"], 16), int(r["pa"], 16) + r["size"], 4096)
    for page in [pages[0], *chosen.sample(pages, 4)]:
        with damaged(page, "4096s", chosen.randbytes(4096)):
            for command in ("ktf-acpi", "ktf-acpi DSDT", "ktf-acpi --json"):
                text = run(command)
                check("error" not in text, f"{page:#x}: {command}: {text}")
                check("checksum good" in text or f"{dsdt:#x}"[2:] in text, f"{page:#x}: {text}")

    # Undamaged again, in every language and form.
    expected = {c: run(c) for c in ("ktf-acpi", f"ktf-acpi {apic:#x}")}
    equal(expected["ktf-acpi"], good)
    languages = "ada asm c++ d fortran go modula-2 objective-c opencl pascal rust minimal".split()
    for setting in [
        *(f"language {name}" for name in languages),
        "output-radix 16",
        "input-radix 16",
    ]:
        gdb.execute(f"set {setting}", to_string=True)
        for command, text in expected.items():
            equal(run(command), text, f"set {setting}: {command}")
    passed()
