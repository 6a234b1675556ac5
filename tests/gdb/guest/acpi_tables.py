# SPDX-License-Identifier: BSD-2-Clause
# ktf-acpi: the same tables by every reader, on cores, and without our symbols; files of them; nothing but RAM is read.
# guest: mem=128M machine=pc smp=2 ramfile=1 timeout=120
# guest: mem=128M machine=q35 uefi=1 smp=1 ramfile=1 timeout=180
import json
import os
import stat
from typing import Any

import gdb
from inside import check, equal, error_of, json_of, passed, physical_mode, run
from reads import Reads

folder = os.path.dirname(os.environ["KTF_SERIAL"])
FRAMES = ("mfn", "kind", "mappings")  # what only our symbols tell


def tables(command: str = "ktf-acpi") -> list[dict[str, Any]]:
    """What of the tables every guest tells."""
    found = json_of(command)
    equal(found["problems"], [], command)
    return [{k: v for k, v in t.items() if k not in FRAMES} for t in found["tables"]]


# Our kernel, with its symbols: the firmware's own tables, each with its frame.
first = json_of("ktf-acpi")
expected, text = tables(), run("ktf-acpi")
uefi = first["rsdp"]["xsdt"] is not None
equal(first["rsdp"]["found"], "boot_info.rsdp")
equal(first["rsdp"]["pa"], hex(int(gdb.parse_and_eval("boot_info.rsdp.v"))))
names = [t["name"] for t in first["tables"]]
equal(names[0], "XSDT" if uefi else "RSDT")
for name in ("FACP", "FACS", "DSDT", "APIC", "HPET", *(["MCFG"] if uefi else [])):
    check(name in names, f"no {name}: {names}")
for table in first["tables"]:
    good = "none" if table["name"] == "FACS" else "good"
    equal(table["checksum"], good, table["name"])
    kinds = ("acpi", "nvs") if uefi else ("reserved",)
    check(table["kind"] in kinds, f"{table['name']} is held by {table['kind']}")
dsdt = next(t for t in first["tables"] if t["name"] == "DSDT")
check(len(dsdt["mappings"]) > 1, f"the DSDT's pages are not mapped: {dsdt}")
for mapping in dsdt["mappings"]:
    frame = json_of(f"ktf-frame --mfn {mapping['mfn']}")["frame"]
    same = [m for m in frame["mappings"] if m["va"] == mapping["va"]]
    equal([m["refs"] for m in same], [mapping["refs"]], "ktf-frame says otherwise")
refs = sum(m["refs"] for m in dsdt["mappings"])
row = next(line.split() for line in text.splitlines() if line.startswith("DSDT "))
equal(row[-2:], [str(len(dsdt["mappings"])), str(refs)], "maps and refs in the list")
check(text.splitlines()[-1].endswith("(boot_info.rsdp): no problem"), text[-200:])

# One table: by signature, as people spell it, by an address in it, by a kernel address.
shown = run("ktf-acpi DSDT")
for word in (
    "dsdt",
    "DSDT:1",
    dsdt["pa"],
    f"{dsdt['pa']} + 5",
    dsdt["mappings"][0]["va"] + " + 0x80",
):
    equal(run(f"ktf-acpi {word}"), shown, word)
equal(run("ktf-acpi FADT"), run("ktf-acpi FACP"))
equal(run("ktf-acpi MADT"), run("ktf-acpi APIC"))
equal(run("ktf-acpi RSDP"), run("ktf-acpi boot_info.rsdp.v"))
equal(len(shown.splitlines()) < 24, True, "more than a screen")
lines = run("ktf-acpi DSDT --all").splitlines()
data = bytes.fromhex("".join(line[14:63] for line in lines if line.startswith("0x")))
equal(len(data), dsdt["length"], "--all")
equal(json_of("ktf-acpi DSDT --all")["tables"][0]["data"], data.hex(), "--all --json")

# Files, for their owner alone; none is overwritten.
path = f"{folder}/a dsdt.dat"
check(f"iasl -d '{path}'" in run(f'ktf-acpi DSDT --dump "{path}"'))
equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "mode")
with open(path, "rb") as f:
    equal(f.read(), data, "--dump")
check("is kept" in error_of(f"ktf-acpi APIC --dump '{path}'"))
check("is kept" in error_of(f"ktf-acpi APIC --dump {folder}"))
check("No such file" in error_of(f"ktf-acpi APIC --dump {folder}/none/apic"))
with open(path, "rb") as f:
    equal(f.read(), data, "overwritten")
os.unlink(path)
listed = run(f"ktf-acpi --dump-all {folder}/all")
equal(sorted(os.listdir(f"{folder}/all")), sorted(f"{n}.dat" for n in names), listed)
for name in names:
    status = os.stat(f"{folder}/all/{name}.dat")
    equal(stat.S_IMODE(status.st_mode), 0o600, name)
check("already: kept" in error_of(f"ktf-acpi --dump-all {folder}/all"))

# Every reader says the same; the stub is asked for RAM alone.
reads = Reads()


def every_reader(what: str, known: str) -> None:
    """The list by each of the ways."""
    with reads:
        for reader in ("gdbstub", "procmem", "ramfile"):
            gdb.execute(f"set ktf reader {reader}")
            equal(run("ktf-acpi"), known, f"{what}, {reader}")
    equal(physical_mode(), "0", what)
    gdb.execute("set ktf reader auto")


every_reader("our kernel", text)

# Without our symbols the root pointer is found in another way.
core, ours = f"{folder}/core", f"{folder}/ours"
run(f"monitor dump-guest-memory {core}")
run(f"ktf-core {ours}")
gdb.execute("file", to_string=True)
gdb.execute("symbol-file", to_string=True)
equal(tables(), expected, "without symbols")
bare = run("ktf-acpi")
found = json_of("ktf-acpi")["rsdp"]["found"]
equal(found, "EFI's configuration table" if uefi else "the BIOS's memory")
check(all(t["mappings"] is None for t in json_of("ktf-acpi")["tables"]), "mappings of what?")
every_reader("without symbols", bare)
reads.only_ram(10)

# Cores, QEMU's and ours.
gdb.execute("disconnect", to_string=True)
for file in (core, ours):
    gdb.execute(f"core-file {file}", to_string=True)
    equal(tables(), expected, f"{file} without symbols")
    equal(run("ktf-acpi"), bare, f"{file} without symbols")
    gdb.execute("file build/kernel.elf", to_string=True)
    equal(run("ktf-acpi"), text, file)
    gdb.execute("file", to_string=True)
    gdb.execute("symbol-file", to_string=True)
    gdb.execute("core-file", to_string=True)
    os.unlink(file)
message = error_of("ktf-acpi")
check("no guest" in message, message)
equal(json.loads(run("ktf-acpi --json"))["ok"], False)
passed()
