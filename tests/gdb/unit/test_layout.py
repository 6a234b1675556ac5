# SPDX-License-Identifier: BSD-2-Clause
# Structs as columns: bit-fields of any width at any place, nested structs, arrays, names.
"""Tests of ktf.layout."""

from __future__ import annotations

import unittest

import numpy as np

from ktf.errors import Corrupt, KtfError
from ktf.kernel.layout import FieldDesc, Layout, TypeDesc, enum_names

U8, U16, U32, U64 = (TypeDesc("uint", n) for n in (1, 2, 4, 8))
I32 = TypeDesc("int", 4)
CHAR = TypeDesc("char", 1)


def array(element: TypeDesc, count: int) -> TypeDesc:
    """count of them."""
    return TypeDesc("array", element.size * count, element=element)


class Columns(unittest.TestCase):
    """What is packed by hand comes out as it was."""

    def test_bit_fields(self) -> None:
        """Every width and place, against the bits themselves."""
        rng = np.random.default_rng(3)
        for size in (8, 12, 20, 32):
            data = rng.integers(0, 256, size * 7, np.uint8)
            numbers = [
                int.from_bytes(data[i * size : (i + 1) * size].tobytes(), "little")
                for i in range(7)
            ]
            for position in range(0, size * 8, 3):
                for width in (1, 5, 7, 24, 40):
                    within = position % 64 + width <= 64 or size == 8
                    if not within or position + width > size * 8:
                        continue
                    field = FieldDesc("x", position, width, U64)
                    try:
                        layout = Layout(TypeDesc("struct", size, "s", fields=(field,)))
                    except Corrupt:
                        continue  # no aligned word holds it; compilers don't make such
                    got = layout.records(data)["x"].tolist()
                    mask = (1 << width) - 1
                    self.assertEqual(got, [n >> position & mask for n in numbers])

    def test_members(self) -> None:
        """Plain members, signed ones, names, nested structs in arrays."""
        inner = TypeDesc(
            "struct", 8, "in", fields=(FieldDesc("a", 0, 0, U32), FieldDesc("b", 35, 6, U32))
        )
        fields = (
            FieldDesc("n", 0, 0, U64),
            FieldDesc("i", 64, 0, I32),
            FieldDesc("name", 96, 0, array(CHAR, 12)),
            FieldDesc("list", 192, 0, array(inner, 3)),
            FieldDesc("odd", 384, 0, TypeDesc("other", 16)),
            FieldDesc("words", 512, 0, array(U16, 4)),
        )
        layout = Layout(TypeDesc("struct", 72, "out", fields=fields))
        raw = bytearray(144)
        raw[72:80] = (1 << 63).to_bytes(8, "little")
        raw[80:84] = (-5).to_bytes(4, "little", signed=True)
        raw[84:90] = b"kernel"
        raw[72 + 24 + 8 : 72 + 24 + 12] = (7).to_bytes(4, "little")
        raw[72 + 24 + 12] = 0b101010 << 3 & 0xFF
        raw[72 + 24 + 13] = 0b101010 >> 5
        raw[72 + 64 : 72 + 66] = b"\x01\x02"
        records = layout.records(bytes(raw))
        self.assertEqual(len(records), 2)
        self.assertEqual(records["n"].tolist(), [0, 1 << 63])
        self.assertEqual(records["i"].tolist(), [0, -5])
        self.assertEqual(bytes(records["name"][1]), b"kernel")
        self.assertEqual(records["list"]["a"].tolist(), [[0, 0, 0], [0, 7, 0]])
        self.assertEqual(records["list"]["b"].tolist(), [[0, 0, 0], [0, 0b101010, 0]])
        self.assertEqual(records["words"][1].tolist(), [0x201, 0, 0, 0])
        self.assertEqual(records[records["n"] > 0].value("i", 0), -5)
        self.assertEqual(records[1].value("n"), 1 << 63)
        for name in ("odd", "nothing"):
            with self.assertRaises(KtfError):
                records[name]

    def test_length(self) -> None:
        """A cut struct at the end is left out."""
        layout = Layout(TypeDesc("struct", 8, "s", fields=(FieldDesc("n", 0, 0, U64),)))
        for size, count in ((0, 0), (7, 0), (8, 1), (23, 2)):
            self.assertEqual(len(layout.records(bytes(size))), count)

    def test_enum_names(self) -> None:
        """Without prefix and count; of two names for a number the first."""
        enum = {"K_NONE": 0, "K_ONE": 1, "K_UNO": 1, "K_COUNT": 2, "OTHER": 5}
        self.assertEqual(enum_names(enum, "K_"), {0: "none", 1: "one"})


if __name__ == "__main__":
    unittest.main()
