# SPDX-License-Identifier: BSD-2-Clause
"""What bench.json holds: every key, what its figures are keyed by, and that each is a number. No I/O here."""

from __future__ import annotations

from typing import Any

BOOT_KEYS = ("boot_frames", "metadata_boot_bytes")
BOOT_MEM = ("128M", "1G", "4G", "16G")
FLAT = ("get_frame", "put_frame", "find_mfn_frame", "find_paddr_frame", "find_kern_va_frame")
BY_MAPPINGS = ("vmap_aliased", "vunmap_aliased", "acpi_map_unmap")
HELD = tuple(str(10**n) for n in range(1, 7))
OBJECTS = ("results", "results_no_journal")
READERS = ("ramfile", "procmem", "gdbstub", "core")

Shape = dict[str, tuple[str, ...]]  # by key: what its figures are keyed by (nothing: a number)

# All that both objects have.
SHAPE: Shape = {
    **dict.fromkeys(("vmap_4k", "vmap_4k_new_table", "vunmap_4k", "vmap_again", "vput"), ()),
    **dict.fromkeys(("vmap_2m", "vunmap_2m", "range_map_4k", "range_unmap_4k"), ()),
    **dict.fromkeys(("range_map_2m", "range_unmap_2m", "metadata_full_percent"), ()),
    **dict.fromkeys(FLAT, HELD),
    **dict.fromkeys(("vmap_aliased", "vunmap_aliased"), ("0", "100", "100000")),
    "acpi_map_unmap": ("0", "100", "1000"),
    **dict.fromkeys(BOOT_KEYS, BOOT_MEM),
}
DEBUGGER: Shape = {
    **dict.fromkeys(("leaves", "info_tlb_s"), ()),
    **dict.fromkeys(("maps_s", "pt_check_s", "maps_cpu_s", "pt_check_cpu_s"), READERS),
    **dict.fromkeys(("yardstick_cpu_s", "gdb_rss_mb"), READERS),
}
# What a guest of 128M has: no block of 1 GiB, and no room for more frames.
SMALL_HELD = HELD[:4]
SMALL_LACKS = ("range_map_2m", "range_unmap_2m", *BOOT_KEYS)


def small_shape(acpi: bool) -> Shape:
    """Of what a guest of 128M measures; ACPI is built in only where its source is."""
    lacks = SMALL_LACKS if acpi else (*SMALL_LACKS, "acpi_map_unmap")
    shape = {key: keyed for key, keyed in SHAPE.items() if key not in lacks}
    return shape | dict.fromkeys(FLAT, SMALL_HELD)


def misshapen(name: str, figures: Any, shape: Shape) -> list[str]:
    """What one object should have and has not, or has otherwise."""
    if not isinstance(figures, dict):
        return [f"{name} is {figures!r}, no object"]
    bad = []
    for key, keyed in shape.items():
        value = figures.get(key)
        have = tuple(value) if isinstance(value, dict) else ()
        if value is None:
            bad.append(f"{name} has no {key}")
        elif have != keyed:
            bad.append(f"{name}: {key} is keyed by {have}, not {keyed}")
        elif not all(_is_figure(v) for v in (value.values() if keyed else [value])):
            bad.append(f"{name}: {key} is {value}, and should be above 0")
    return bad


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def all_misshapen(result: dict[str, Any]) -> list[str]:
    """The same of bench.json."""
    head = {"schema": 1, "unit": "instructions"}
    bad = [f"{key} is {result.get(key)!r}" for key in head if result.get(key) != head[key]]
    for name in OBJECTS:
        bad += misshapen(name, result.get(name), SHAPE)
    return bad + misshapen("debugger", result.get("debugger"), DEBUGGER)
