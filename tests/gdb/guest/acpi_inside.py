# SPDX-License-Identifier: BSD-2-Clause
# Stopped before ACPI, inside its methods and after it: no violation; a table's frame tells who maps it, how often.
# guest: mem=128M machine=pc smp=2 cmdline="test=acpi,acpi_restart" ramfile=1 stop=none timeout=120
# guest: mem=128M machine=q35 uefi=1 smp=4 cmdline="test=acpi,acpi_restart" ramfile=1 stop=none timeout=180
import re

import gdb
from inside import check, connect, equal, json_of, passed, run


WINDOW = range(0xFFFF800000000000, 0xFFFFC00000000000)  # AcpiOsMapMemory()'s, arch/x86/layout.h


def healthy(where: str) -> None:
    """No violation here."""
    equal(json_of("ktf-pt-check")["violations"], [], where)


def stop_at(*functions: str) -> str:
    """Goes on to the first of these functions to be called, and says which; no breakpoint stays."""
    points = [gdb.Breakpoint(f, type=gdb.BP_HARDWARE_BREAKPOINT) for f in functions]
    gdb.execute("continue")
    name: str = gdb.selected_frame().name()
    check(name in functions, f"it stopped in {name}, not in {functions}")
    for point in points:
        point.delete()
    return name


def window() -> list[tuple[int, int]]:
    """What AcpiOsMapMemory() has mapped: virtual and physical address of each range."""
    ranges = json_of(f"ktf-maps --range {WINDOW.start:#x} {WINDOW.stop:#x}")["ranges"]
    found = [(int(r["va"], 16), int(r["pa"], 16)) for r in ranges]
    check(all(va - pa == WINDOW.start for va, pa in found), f"not each at its place: {found}")
    return found


def tables() -> dict[bytes, int]:
    """The physical address of each table, from ACPICA's own list."""
    root = gdb.parse_and_eval("acpi_gbl_root_table_list")
    found = [root["tables"][i] for i in range(int(root["current_table_count"]))]
    return {int(t["signature"]["integer"]).to_bytes(4, "little"): int(t["address"]) for t in found}


def of_acpi(pa: int) -> int:
    """References of ACPI's mapping of that page, by its frame; all must add up."""
    answer = json_of(f"ktf-frame --pa {pa:#x}")
    frame = answer["frame"]
    equal(sum(m["refs"] for m in frame["mappings"]), frame["mapcount"], "refs")
    equal(answer["details"]["unrecorded"], [], "unrecorded")
    vas = {int(m["va"], 16): m["refs"] for m in frame["mappings"]}
    refs: int = vas.get(WINDOW.start + (pa & ~0xFFF), 0)
    return refs


def in_method(where: str) -> None:
    """A method runs, so what it is made of is mapped."""
    healthy(where)
    check(of_acpi(tables()[b"DSDT"]) > 0, f"{where}: the DSDT is not mapped")
    check(window(), f"{where}: nothing is mapped")


def says(pa: int, what: str, who: str = r"acpi_(?!os_)\w+") -> None:
    """The frame's journal names the function of ACPICA that asked for it, not ours that did it."""
    text = run(f"ktf-frame --pa {pa:#x}")
    check(
        re.search(rf"^ +{what}(?: in a range)? by {who} at (?!acpi/)\S+\.c:\d+", text, re.M),
        text,
    )


connect()
stop_at("ktf_acpi_start")
healthy("before")
equal(int(gdb.parse_and_eval("uncached_count")), 0, "before")
equal(window(), [], "before")

# PCI's registers in memory are known as a device before AML is there.
stop_at("acpi_load_tables")
equal(int(gdb.parse_and_eval("uncached_count")), int(b"MCFG" in tables()), "PCI's registers")

# Which methods run while ACPI starts is the firmware's affair, none or many; then come those of the devices.
METHOD = "acpi_ds_begin_method_execution"
at_boot = 0
while stop_at(METHOD, "ktf_ready") == METHOD:
    at_boot += 1
    if at_boot < 4:
        in_method(f"method {at_boot} at boot")
healthy("ktf_ready")
for i in range(2):
    stop_at(METHOD)
    in_method(f"method {i}")

# What is asked for is counted up, and down again; who did it stands in the journal.
stop_at("acpi_os_map_memory")
pa = int(gdb.parse_and_eval("where"))
gdb.execute("finish", to_string=True)
check(of_acpi(pa) > 0, f"{pa:#x} is not mapped")
says(pa, "mapped")
healthy("mapped")

# The DSDT, which ACPICA has mapped, twice more.
stop_at("acpi_map_twice")
dsdt = tables()[b"DSDT"]
before = of_acpi(dsdt)
check(before > 0, "the DSDT is not mapped")
for function, step in (("map", 1), ("unmap", -1)):
    for _ in range(2):
        stop_at(f"acpi_os_{function}_memory")
        gdb.execute("finish", to_string=True)
        before += step
        equal(of_acpi(dsdt), before, function)
        what = "mapped" if step > 0 else f"put down to {before} references"
        says(dsdt, what, "acpi_map_twice")
        healthy(function)

# Taken down (the test stops it before it starts it again) nothing is left.
for i in range(3):
    stop_at("ktf_acpi_start")
    healthy(f"stopped {i}")
    equal(window(), [], f"stopped {i}")
    equal(of_acpi(dsdt), 0, f"stopped {i}")
passed()
