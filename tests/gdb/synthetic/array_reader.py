# SPDX-License-Identifier: BSD-2-Clause
# Physical memory that is a numpy array, for tests without a guest.
"""ArrayReader: a reader over arrays of bytes."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from ktf.memory.readers import RamMap, Reader


class ArrayReader(Reader):
    """parts: the bytes of each range of ram, as arrays of uint8."""

    name = "array"

    def __init__(self, ram: RamMap, parts: Sequence[np.ndarray]) -> None:
        super().__init__(ram, "an array")
        self.parts = parts

    def _read(self, index: int, offset: int, size: int) -> bytes:
        return self.parts[index][offset : offset + size].tobytes()
