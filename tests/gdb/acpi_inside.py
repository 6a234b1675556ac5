# SPDX-License-Identifier: BSD-2-Clause
# Stopped before ACPI, inside its methods and after it: no violation; a table's frame tells who maps it, how often.
# guest: mem=128M machine=pc smp=2 cmdline="test=acpi,acpi_restart" ramfile=1 stop=none timeout=120
import re

import gdb
from inside import check, connect, equal, json_of, passed, run


WINDOW = range(0xFFFF800000000000, 0xFFFFC00000000000)  # AcpiOsMapMemory()'s, arch/x86/layout.h


def healthy(where: str) -> None:
    """No violation here."""
    equal(json_of("ktf-pt-check")["violations"], [], where)


def stop_at(function: str) -> None:
    """Goes on to the function; no other breakpoint stays."""
    point = gdb.Breakpoint(function, type=gdb.BP_HARDWARE_BREAKPOINT, temporary=True)
    gdb.execute("continue")
    equal(gdb.selected_frame().name(), function, "where it stopped")
    check(not point.is_valid(), "another breakpoint was hit")


def window() -> list[tuple[int, int]]:
    """What AcpiOsMapMemory() has mapped: virtual and physical address of each range."""
    ranges = json_of(f"ktf-maps --range {WINDOW.start:#x} {WINDOW.stop:#x}")["ranges"]
    found = [(int(r["va"], 16), int(r["pa"], 16)) for r in ranges]
    check(all(va - pa == WINDOW.start for va, pa in found), f"not each at its place: {found}")
    return found


def table(signature: bytes) -> int:
    """The physical address of a table, from ACPICA's own list."""
    tables = gdb.parse_and_eval("acpi_gbl_root_table_list")
    for i in range(int(tables["current_table_count"])):
        one = tables["tables"][i]
        if int(one["signature"]["integer"]).to_bytes(4, "little") == signature:
            return int(one["address"])
    raise AssertionError(f"no {signature!r}")


def of_acpi(pa: int) -> int:
    """References of ACPI's mapping of that page, by its frame; all must add up."""
    answer = json_of(f"ktf-frame --pa {pa:#x}")
    frame = answer["frame"]
    equal(sum(m["refs"] for m in frame["mappings"]), frame["mapcount"], "refs")
    equal(answer["details"]["unrecorded"], [], "unrecorded")
    vas = {int(m["va"], 16): m["refs"] for m in frame["mappings"]}
    refs: int = vas.get(WINDOW.start + (pa & ~0xFFF), 0)
    return refs


def says(pa: int, what: str) -> None:
    """The frame's journal names the function of ACPICA that asked for it, not ours that did it."""
    text = run(f"ktf-frame --pa {pa:#x}")
    check(
        re.search(
            rf"^ +{what}(?: in a range)? by acpi_(?!os_)\w+ at (?!acpi/)\S+\.c:\d+", text, re.M
        ),
        text,
    )


connect()
stop_at("ktf_acpi_start")
healthy("before")
equal(window(), [], "before")

for i in range(3):  # at boot there is one method, then those of the devices
    stop_at("acpi_ds_begin_method_execution")
    healthy(f"method {i}")
    dsdt = table(b"DSDT")
    check(of_acpi(dsdt) > 0, "a method runs, and the DSDT is not mapped")
    check(window(), "a method runs, and nothing is mapped")
    if i == 0:
        stop_at("ktf_ready")
        healthy("ktf_ready")

# What is asked for is counted up, and down again; who did it stands in the journal.
stop_at("acpi_os_map_memory")
pa = int(gdb.parse_and_eval("where"))
gdb.execute("finish", to_string=True)
check(of_acpi(pa) > 0, f"{pa:#x} is not mapped")
says(pa, "mapped")
healthy("mapped")
before, pa = 0, 0
for _ in range(40):
    stop_at("acpi_os_unmap_memory")
    va = int(gdb.parse_and_eval("logical_address"))
    pa = int(gdb.parse_and_eval(f"$ktf_paddr({va:#x})"))
    equal(va - pa, WINDOW.start, "where it is mapped")
    before = of_acpi(pa)
    check(before > 0, f"{va:#x} is to be unmapped, and is not mapped")
    if before > 1:
        break
check(before > 1, "no table was mapped twice")
gdb.execute("finish", to_string=True)
equal(of_acpi(pa), before - 1, "after the unmap")
says(pa, "unmapped")
healthy("unmapped")

# Taken down (the test stops it before it starts it again) nothing is left.
for i in range(3):
    stop_at("ktf_acpi_start")
    healthy(f"stopped {i}")
    equal(window(), [], f"stopped {i}")
    equal(of_acpi(dsdt), 0, f"stopped {i}")
passed()
