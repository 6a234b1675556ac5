# SPDX-License-Identifier: BSD-2-Clause
# Whether what lies on the stack is where a call would return to: only then it names a caller.
"""behind_call(code): True if the bytes end in a call instruction; pure."""

from __future__ import annotations

LONGEST_CALL = 8  # bytes: a prefix, FF, ModRM, SIB, disp32
NEAR, INDIRECT, CALL_DIGIT = 0xE8, 0xFF, 2  # SDM vol. 2, CALL: E8 cd, FF /2
SIB, DISP32_ONLY = 4, 5  # of ModRM's and SIB's low three bits


def behind_call(code: bytes) -> bool:
    """code: up to LONGEST_CALL bytes before the return address."""
    if len(code) >= 5 and code[-5] == NEAR:
        return True
    for size in range(2, min(len(code), LONGEST_CALL - 1) + 1):
        tail = code[len(code) - size :]
        if tail[0] == INDIRECT and tail[1] >> 3 & 7 == CALL_DIGIT and _size(tail) == size:
            return True
    return False


def _size(code: bytes) -> int:
    """Bytes of an instruction of one byte's opcode and a ModRM, 64-bit mode (SDM vol. 2, 2.1.5)."""
    mod, low = code[1] >> 6, code[1] & 7
    if mod == 3:
        return 2
    size = 2
    if low == SIB:
        size += 1
        if mod == 0 and len(code) > 2 and code[2] & 7 == DISP32_ONLY:
            size += 4
    elif mod == 0 and low == DISP32_ONLY:
        size += 4
    return size + (0, 1, 4)[mod]
