# SPDX-License-Identifier: BSD-2-Clause
# The guest's structs as numpy columns, bit-fields included; made from DWARF, no layout is repeated here.
"""Struct layouts.

target.py turns DWARF types into TypeDesc; everything here is pure:

    layout = Layout(types.struct("frame_t"))
    frames = layout.records(data)        # bytes or a uint8 array, a whole number of structs
    frames["kind"]                       # plain uint8 array, decoded from the bit-field
    frames[frames["kind"] == 2]["mfn"]   # Records can be indexed by masks, slices, index arrays
    mm["arena"]["base"]                  # nested structs and arrays: one more dimension
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ktf.errors import Corrupt

STEP = 1 << 15  # structs decoded at once


@dataclass(frozen=True)
class TypeDesc:
    """A C type. kind: "uint", "int", "char", "struct" (also unions), "array"."""

    kind: str
    size: int
    name: str = ""
    element: "TypeDesc | None" = None
    fields: "tuple[FieldDesc, ...]" = ()

    @property
    def count(self) -> int:
        """Elements of an array."""
        return self.size // self.element.size if self.element else 0


@dataclass(frozen=True)
class FieldDesc:
    """A member; bitsize is 0 unless it is a bit-field. Anonymous members are flattened away."""

    name: str
    bitpos: int
    bitsize: int
    type: TypeDesc


@dataclass(frozen=True)
class Symbol:
    """A variable of the kernel: name, virtual address, size in bytes."""

    name: str
    va: int
    size: int


class Types(Protocol):
    """What the symbol file says; target.py reads it from GDB, tests make their own."""

    def struct(self, name: str) -> TypeDesc:
        """A struct or typedef of one ("frame_t", "struct mm"); KtfError if there is none."""

    def enum(self, name: str) -> dict[str, int]:
        """Enumerators of "enum NAME", by name; KtfError if there is none."""

    def constant(self, name: str) -> int:
        """Value of an enumerator (or of a macro, if the symbols have macros)."""

    def symbol(self, name: str) -> Symbol | None:
        """A variable or function of the kernel, None if there is none."""


class _Bits:
    """Where a bit-field lies: a hidden dtype member of 1, 2, 4 or 8 bytes, shift, mask."""

    def __init__(self, field: FieldDesc, size: int) -> None:
        for unit in (1, 2, 4, 8):
            start = field.bitpos // 8 // unit * unit
            fits = field.bitpos + field.bitsize <= (start + unit) * 8
            if fits and start + unit <= size:
                break
        else:
            raise Corrupt(f"bit-field {field.name} has no place in its struct")
        self.key = f"#{start}:{unit}"
        self.offset = start
        self.format = f"<u{unit}"
        self.shift = field.bitpos - start * 8
        self.mask = (1 << field.bitsize) - 1
        bits = next(b for b in (8, 16, 32, 64) if field.bitsize <= b)
        self.result = np.dtype(f"u{bits // 8}")

    def decode(self, data: np.ndarray) -> np.ndarray:
        """The column of plain numbers; a stretch at a time, which stays in the processor's cache."""
        raw = data[self.key]
        unit = raw.dtype.type
        if raw.ndim != 1:
            return ((raw >> unit(self.shift)) & unit(self.mask)).astype(self.result)
        numbers = np.empty(len(raw), self.result)
        for at in range(0, len(raw), STEP):
            numbers[at : at + STEP] = (raw[at : at + STEP] >> unit(self.shift)) & unit(self.mask)
        return numbers


def _numpy_type(desc: TypeDesc) -> Any:
    """What numpy calls that type; None for types without a value (bit-fields are apart)."""
    if desc.kind in ("uint", "int") and desc.size in (1, 2, 4, 8):
        return np.dtype(f"<{desc.kind[0]}{desc.size}")
    if desc.kind == "char":
        return np.dtype("u1")
    if desc.kind == "struct":
        return Layout(desc).dtype
    if desc.kind == "array" and desc.element is not None and desc.count:
        if desc.element.kind == "char":
            return np.dtype(f"S{desc.count}")
        inner = _numpy_type(desc.element)
        return None if inner is None else np.dtype((inner, (desc.count,)))
    return None


class Layout:
    """How an array of one struct type becomes columns."""

    def __init__(self, desc: TypeDesc) -> None:
        self.desc = desc
        self.size = desc.size
        self.names: list[str] = []
        self.bits: dict[str, _Bits] = {}
        self.structs: dict[str, Layout] = {}
        members: dict[str, tuple[Any, int]] = {}
        for field in desc.fields:
            self._add(field, members)
        self.dtype = np.dtype(
            {
                "names": list(members),
                "formats": [m[0] for m in members.values()],
                "offsets": [m[1] for m in members.values()],
                "itemsize": desc.size,
            }
        )

    def _add(self, field: FieldDesc, members: dict[str, tuple[Any, int]]) -> None:
        if field.bitsize:
            bits = _Bits(field, self.size)
            self.bits[field.name] = bits
            members[bits.key] = (bits.format, bits.offset)
        else:
            kind = _numpy_type(field.type)
            if kind is None:
                return
            members[field.name] = (kind, field.bitpos // 8)
            inner = field.type
            while inner.kind == "array" and inner.element is not None:
                inner = inner.element
            if inner.kind == "struct":
                self.structs[field.name] = Layout(inner)
        self.names.append(field.name)

    def records(self, data: bytes | np.ndarray) -> "Records":
        """An array of this struct from bytes or a uint8 array; a rest that is no whole struct is cut."""
        raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        raw = np.ascontiguousarray(raw).view(np.uint8).ravel()
        count = len(raw) // self.size
        return Records(self, raw[: count * self.size].view(self.dtype))


class Records:
    """Structs as columns: ["field"] is an array, [mask or slice or index array] are fewer Records."""

    def __init__(self, layout: Layout, data: np.ndarray) -> None:
        self.layout = layout
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions, as numpy's."""
        return self.data.shape

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key in self.layout.bits:
                return self.layout.bits[key].decode(self.data)
            if key in self.layout.structs:
                return Records(self.layout.structs[key], self.data[key])
            if key not in self.layout.names:
                raise Corrupt(f"the symbols' {self.layout.desc.name} has no {key}")
            return self.data[key]
        return Records(self.layout, self.data[key])

    def value(self, name: str, index: Any = ()) -> int:
        """One number."""
        return int(self[name][index])


def enum_names(enum: dict[str, int], prefix: str = "") -> dict[int, str]:
    """Number -> lower-case name without the prefix; enumerators ending in _COUNT are left out."""
    names: dict[int, str] = {}
    for name, value in enum.items():
        if name.startswith(prefix) and not name.endswith("_COUNT"):
            names.setdefault(value, name[len(prefix) :].lower())
    return names
