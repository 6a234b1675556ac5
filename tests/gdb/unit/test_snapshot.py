# SPDX-License-Identifier: BSD-2-Clause
# Snapshots of made-up guests: each sort of change is shown, alone, both ways.
"""Tests of ktf.snapshot and ktf.commands_snapshot."""

from __future__ import annotations

import json
import unittest
from typing import Any

from fake_guest import Plain
from synthetic import Machine

from ktf.commands import snapshot as commands_snapshot
from ktf.commands.snapshot import DiffCommand, SnapshotCommand
from ktf.kernel.database import Database
from ktf.errors import KtfError

KEYS = (
    "frames_got frames_put kinds_changed mappings_made mappings_gone rights_or_memory_type_changed "
    "led_elsewhere_or_of_another_size counts_of_frames_changed references_of_mappings_changed held_without_a_mapping"
).split()


def command(machine: Machine, which: Any, line: str) -> str:
    """What a command prints on that guest."""
    context = Plain(machine.session())
    which().invoke(context, line)
    return context.text


class Changes(unittest.TestCase):
    """One machine, and a twin in which something was done."""

    def setUp(self) -> None:
        commands_snapshot.SNAPSHOTS.clear()
        self.machine = Machine()
        self.twin = self.machine.twin()
        command(self.machine, SnapshotCommand, "a")

    def diff(self) -> dict[str, Any]:
        """From the machine to its twin; nothing else than what is returned differs."""
        found: dict[str, Any] = json.loads(command(self.twin, DiffCommand, "a --json"))
        self.assertTrue(found["ok"], found)
        command(self.twin, SnapshotCommand, "b")
        back = json.loads(command(self.machine, DiffCommand, "b a --json"))
        for one, other in (("frames_got", "frames_put"), ("mappings_made", "mappings_gone")):
            self.assertEqual(len(found[one]), len(back[other]))
            self.assertEqual(len(found[other]), len(back[one]))
        text = command(self.twin, DiffCommand, "a")
        self.assertEqual(text, command(self.twin, DiffCommand, "a b").replace("a to b", "a to now"))
        return {key: found[key] for key in KEYS if found[key]}

    def frame(self, kind: str = "", **wanted: int) -> int:
        """Index of a descriptor with these members, of order 0."""
        frames = Database(self.machine.session()).frames
        kinds = Database(self.machine.session()).kinds
        for index in frames.heads.tolist():
            values = {n: int(getattr(frames, n)[index]) for n in wanted}
            if values == wanted and (not kind or int(frames.kind[index]) == kinds[kind]):
                return index
        raise AssertionError(wanted)

    def record(self) -> int:
        """Index of a record of a user space."""
        db = Database(self.machine.session())
        maps = db.mappings
        for row in range(len(maps)):
            if db.slots.space[int(maps.at[row]) >> 9] != 1:
                return int(maps.index[row])
        raise AssertionError("none")

    def test_nothing(self) -> None:
        """The same guest."""
        self.assertEqual(self.diff(), {})
        self.assertIn("0 frames got, 0 put; 0 mappings made", command(self.twin, DiffCommand, "a"))

    def test_got_and_put(self) -> None:
        """A free block with an owner: got, and held, for it is mapped nowhere."""
        index = self.frame("FRAME_AVAILABLE", refcount=0, mapcount=0)
        self.twin.poke("frame_t", index, refcount=1)
        found = self.diff()
        self.assertEqual(sorted(found), ["frames_got", "held_without_a_mapping"])
        self.assertEqual(found["frames_got"][0]["refcount"], 1)
        self.twin.poke("frame_t", index, mapcount=1)
        self.assertEqual(sorted(self.diff()), ["frames_got"])

    def test_counts(self) -> None:
        """A frame in use with one more owner, or other mapcount; one of another kind."""
        index = self.frame("FRAME_AVAILABLE", refcount=1)
        before = self.machine.peek("frame_t", index, "mapcount")
        self.twin.poke("frame_t", index, refcount=2, mapcount=before + 3)
        found = self.diff()["counts_of_frames_changed"]
        self.assertEqual((found[0]["refcount"], found[0]["was"]["refcount"]), (2, 1))
        self.assertEqual((found[0]["mapcount"], found[0]["was"]["mapcount"]), (before + 3, before))
        self.twin.poke("frame_t", index, refcount=1, mapcount=before, kind=3)
        self.assertEqual(sorted(self.diff()), ["kinds_changed"])

    def test_mappings(self) -> None:
        """Other refs, other rights, another part of the frame; a table that is gone."""
        index = self.record()
        self.twin.poke("mapping_t", index, refs=7)
        found = self.diff()
        self.assertEqual(sorted(found), ["references_of_mappings_changed"])
        self.assertEqual(found["references_of_mappings_changed"][0]["refs"], 7)
        refs = found["references_of_mappings_changed"][0]["was"]["refs"]
        now = found["references_of_mappings_changed"][0]["perm"]
        self.twin.poke("mapping_t", index, refs=refs, attr=0 if "w" in now else 1)
        found = self.diff()
        self.assertEqual(sorted(found), ["rights_or_memory_type_changed"])
        self.assertEqual(found["rights_or_memory_type_changed"][0]["was"]["perm"], now)
        self.assertIn(f"{now} -> ", command(self.twin, DiffCommand, "a"))

    def test_moved(self) -> None:
        """A mapping that leads to another page of its block."""
        index = self.record()
        self.twin.poke("mapping_t", index, offset=1)
        self.assertEqual(sorted(self.diff()), ["led_elsewhere_or_of_another_size"])

    def test_other_boot(self) -> None:
        """Snapshots of two guests are recognised as such."""
        self.twin.poke("struct mm", 0, boot_ticks=77)
        self.assertIn("different boots", command(self.twin, DiffCommand, "a"))


class Lines(unittest.TestCase):
    """The command lines."""

    def test_names(self) -> None:
        """What there is, what there is not, what can't be."""
        commands_snapshot.SNAPSHOTS.clear()
        machine = Machine()
        self.assertIn("there is none yet", command(machine, SnapshotCommand, ""))
        self.assertIn("a: ", command(machine, SnapshotCommand, "a"))
        command(machine, SnapshotCommand, "b")
        self.assertEqual(len(command(machine, SnapshotCommand, "").splitlines()), 2)
        for which, line, why in (
            (DiffCommand, "c", "no snapshot c; there are: a, b"),
            (DiffCommand, "", "needs A"),
            (DiffCommand, "a b c", "needs A"),
            (SnapshotCommand, "now", "take another name"),
            (SnapshotCommand, "x y", "one NAME"),
            (SnapshotCommand, "--delete c", "no snapshot c"),
        ):
            with self.assertRaisesRegex(KtfError, why):
                command(machine, which, line)
        self.assertEqual(command(machine, SnapshotCommand, "--delete a"), "a: deleted\n")
        self.assertEqual(list(commands_snapshot.SNAPSHOTS), ["b"])


if __name__ == "__main__":
    unittest.main()
