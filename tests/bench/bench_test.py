#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The benchmark's judgement, on made-up results: a figure that is missing, is no number, or is too much must be found."""

from __future__ import annotations

import contextlib
import copy
import io
import unittest
from collections.abc import Iterator
from typing import Any

import bench
import bench_debugger
from bench_shape import READERS, SHAPE, all_misshapen, misshapen, small_shape

# The keys of bench.json that scripts rely on, once more: by what they are keyed.
PLAIN = "vmap_4k vmap_4k_new_table vunmap_4k vmap_again vput vmap_2m vunmap_2m range_map_4k range_unmap_4k"
PLAIN += " range_map_2m range_unmap_2m metadata_full_percent"
KEYED = {
    "get_frame put_frame find_mfn_frame find_paddr_frame find_kern_va_frame": "10 100 1000 10000 100000 1000000",
    "vmap_aliased vunmap_aliased": "0 100 100000",
    "acpi_map_unmap": "0 100 1000",
    "boot_frames metadata_boot_bytes": "128M 1G 4G 16G",
}
BY_READER = "maps_s pt_check_s maps_cpu_s pt_check_cpu_s yardstick_cpu_s gdb_rss_mb"


def figures() -> dict[str, Any]:
    """One object, every figure just what it may be at most."""
    most = {key: row[1] for key, row in bench.limits().items()}
    found: dict[str, Any] = {key: most[key] for key in PLAIN.split()}
    for keys, subs in KEYED.items():
        for key in keys.split():
            found[key] = dict.fromkeys(subs.split(), most[key])
    return found


def good() -> dict[str, Any]:
    """A bench.json with which nothing is wrong."""
    debugger: dict[str, Any] = {"leaves": 1_000_000, "info_tlb_s": 1.0}
    for key in BY_READER.split():
        debugger[key] = dict.fromkeys(READERS, 600 if key == "gdb_rss_mb" else 0.1)
    both = {name: figures() for name in ("results", "results_no_journal")}
    return {"schema": 1, "unit": "instructions", **both, "debugger": debugger}


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to each key, at every depth."""
    for key in value if isinstance(value, dict) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


def at(result: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The object that holds the last key of a path."""
    for key in path[:-1]:
        result = result[key]
    return result


class Shapes(unittest.TestCase):
    """What must be there."""

    def test_good(self) -> None:
        self.assertEqual(bench.judged(good()), [])
        self.assertEqual(set(bench.limits()), set(SHAPE))

    def test_each_key_is_needed(self) -> None:
        for path in places(good()):
            with self.subTest(path=path):
                result = good()
                del at(result, path)[path[-1]]
                self.assertTrue(all_misshapen(result))

    def test_each_figure_is_a_number(self) -> None:
        others: list[Any] = [None, 0, -1, "3", True, {}, {"10": 1}]
        for path in places(good()):
            for value in others:
                if path == ("schema",) and value is True:
                    continue  # is 1
                with self.subTest(path=path, value=value):
                    result = good()
                    at(result, path)[path[-1]] = value
                    self.assertTrue(all_misshapen(result))

    def test_small(self) -> None:
        """The short run: all but what 128M are too small for."""
        lacks = {"range_map_2m", "range_unmap_2m", "boot_frames", "metadata_boot_bytes"}
        self.assertEqual(set(small_shape(True)), set(SHAPE) - lacks)
        self.assertEqual(set(small_shape(False)), set(SHAPE) - lacks - {"acpi_map_unmap"})
        small = {key: value for key, value in figures().items() if key not in lacks}
        for key, value in small.items():
            if isinstance(value, dict) and "1000000" in value:
                del value["1000000"], value["100000"]
        self.assertEqual(misshapen("small", small, small_shape(True)), [])
        for path in places(small):
            with self.subTest(path=path):
                less = copy.deepcopy(small)
                del at(less, path)[path[-1]]
                self.assertTrue(misshapen("small", less, small_shape(True)))
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    self.assertTrue(
                        bench.check_small({"results": small, "results_no_journal": less}, True)
                    )
                self.assertIn("ok results\nnot ok results_no_journal ", said.getvalue())


class Limits(unittest.TestCase):
    """What must not be more."""

    def test_slack(self) -> None:
        """A bound is near what is measured, or it would let a slower operation pass."""
        for key, (measured, most) in bench.limits().items():
            with self.subTest(key=key):
                self.assertLessEqual(measured, most)
                self.assertLessEqual(most, measured * 1.05)

    def test_each_is_kept(self) -> None:
        for key, (_, most) in bench.limits().items():
            result = good()
            value = result["results"][key]
            if isinstance(value, dict):
                value[list(value)[-1]] = most * 1.01
            else:
                result["results"][key] = most * 1.01
            with self.subTest(key=key):
                bad = bench.judged(result)
                self.assertEqual([text.split(":")[0] for text in bad], [key])
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    self.assertEqual(bench.check(result["results"]), [key])
                self.assertIn(f"not ok {key} ", said.getvalue())
                mine = [line for line in bench.table(result) if line.startswith(f"{key} ")]
                self.assertEqual(len(mine), 1)
                self.assertIn(" OVER", mine[0])

    def test_flat(self) -> None:
        """Nothing costs more because more is held or mapped, and a boot because there is more memory."""
        for key, sub in [
            (key, subs.split()[0]) for keys, subs in KEYED.items() for key in keys.split()
        ]:
            if key in ("boot_frames", "metadata_boot_bytes"):
                continue
            result = good()
            result["results"][key][sub] *= 0.9
            self.assertIn(f"{key}: not flat", " ".join(bench.judged(result)))
        result = good()
        result["results"]["boot_frames"]["4G"] *= 0.95
        self.assertIn("boot_frames: grows", " ".join(bench.judged(result)))


class Debugger(unittest.TestCase):
    """Memory and processor time of the commands."""

    def test_memory(self) -> None:
        for reader in READERS:
            result = good()
            result["debugger"]["gdb_rss_mb"][reader] = 601
            self.assertEqual(bench.judged(result), [f"{reader}: GDB took 601 MB, more than 600"])

    def test_time(self) -> None:
        """All readers at their bound are fine; more fails, for one of them as well."""
        for bounds in (bench_debugger.FULL, bench_debugger.SMALL):
            self.assertEqual(set(bounds.best), {"maps_cpu_s", "pt_check_cpu_s"})
            for key, most in bounds.best.items():
                debugger = good()["debugger"]
                debugger[key] = dict.fromkeys(READERS, 0.1 * most * 0.999)
                self.assertEqual(bench_debugger.over(debugger, bounds), [])
                debugger[key] = dict.fromkeys(READERS, 0.1 * most * 1.01)
                (said,) = bench_debugger.over(debugger, bounds)
                self.assertIn(f"{key} is {1.01 * most:.2f} yardsticks at best", said)
                debugger["yardstick_cpu_s"] = dict.fromkeys(READERS, 0.2)
                self.assertEqual(bench_debugger.over(debugger, bounds), [])
                for reader in READERS:
                    times = bounds.stub if reader == "gdbstub" else bounds.copying
                    debugger[key] = {**dict.fromkeys(READERS, 0.1), reader: 0.101 * times}
                    (said,) = bench_debugger.over(debugger, bounds)
                    self.assertIn(f"{reader}: {key} is {1.01 * times:.2f} times that", said)

    def test_wrong(self) -> None:
        """Readers that do not agree, or find something."""

        def found() -> dict[str, dict[str, Any]]:
            each = {"total": 0, "counts": {"leaves": 5}, "maps": "a"}
            readers: dict[str, dict[str, Any]] = {r: {**each, "read_by": r} for r in READERS}
            return {"info tlb": {"lines": 5}, **readers}

        self.assertEqual(bench_debugger.wrong(found()), [])
        for reader, key, value in (
            ("core", "total", 1),
            ("procmem", "read_by", "gdbstub"),
            ("gdbstub", "counts", {"leaves": 6}),
            ("core", "maps", "b"),
            ("info tlb", "lines", 6),
        ):
            result = found()
            result[reader][key] = value
            self.assertEqual(len(bench_debugger.wrong(result)), 1, key)


if __name__ == "__main__":
    unittest.main()
