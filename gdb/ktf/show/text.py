# SPDX-License-Identifier: BSD-2-Clause
# Many lines of text from arrays at once: a million lines cost tenths of a second, not seconds.
"""Columns of characters, put side by side and joined to text.

    text = lines(len(va), [hexadecimal(va, 16), b": ", pick(level, ["", "4K", "2M", "1G"]), b"\\n"])

A column is a constant (bytes) or a Column: one row of characters per line, and which of them count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

import numpy as np

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


@dataclass(frozen=True)
class Column:
    """chars[n, width], and keep[n, width]: False for characters that are left out (None: all count)."""

    chars: np.ndarray
    keep: np.ndarray | None = None


def hexadecimal(values: np.ndarray, width: int = 1) -> Column:
    """Without 0x, padded with zeros to width (at most 16) digits."""
    raw = np.ascontiguousarray(values, ">u8").view(np.uint8).reshape(-1, 8)
    chars = np.empty((len(values), 16), np.uint8)
    chars[:, 0::2] = _DIGITS[raw >> 4]
    chars[:, 1::2] = _DIGITS[raw & 15]
    if width == 16:
        return Column(chars)
    nonzero = chars != _DIGITS[0]
    nonzero[:, 16 - width :] = True
    return Column(chars, np.maximum.accumulate(nonzero, axis=1))


def pick(index: np.ndarray, names: Sequence[str], pad: bool = False) -> Column:
    """names[index], as it is or padded with blanks to the longest."""
    raw = [n.encode("ascii", "replace") for n in names]
    width = max(map(len, raw), default=0)
    table = np.full((len(raw), width), ord(" "), np.uint8)
    used = np.zeros((len(raw), width), bool)
    for i, name in enumerate(raw):
        table[i, : len(name)] = np.frombuffer(name, np.uint8)
        used[i, : len(name)] = True
    return Column(table[index], None if pad else used[index])


def each(values: np.ndarray, form: Callable[[int], str], align: str = "") -> Column:
    """form(value) for each; made once per distinct value. align "<" or ">" pads to the longest."""
    distinct, index = np.unique(values, return_inverse=True)
    names = [form(v) for v in distinct.tolist()]
    if align:
        width = max(map(len, names), default=0)
        names = [f"{n:{align}{width}}" for n in names]
    return pick(index, names)


def lines(count: int, columns: Sequence[Column | bytes]) -> str:
    """All rows, one after the other."""
    if not count:
        return ""
    chars, keeps, partial = [], [], False
    for column in columns:
        if isinstance(column, bytes):
            row = np.frombuffer(column, np.uint8)
            column = Column(np.broadcast_to(row, (count, len(row))))
        chars.append(column.chars)
        keep = column.keep
        partial = partial or keep is not None
        keeps.append(np.broadcast_to(np.True_, column.chars.shape) if keep is None else keep)
    whole = np.concatenate(chars, axis=1)
    if partial:
        whole = whole[np.concatenate(keeps, axis=1)]
    return whole.tobytes().decode("ascii")


def size_text(size: int) -> str:
    """A size in bytes, exactly, in the largest unit that divides it."""
    for unit, name in ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)
