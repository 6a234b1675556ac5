# SPDX-License-Identifier: BSD-2-Clause
# The PAT and the MTRRs as our kernel has set or found them.
"""memory_types(kernel): what x86.memtype combines."""

from __future__ import annotations

import numpy as np

from ktf.errors import KtfError
from ktf.kernel.kernel import Kernel
from ktf.kernel.layout import Types, enum_names
from ktf.x86.memtype import COMMON_PAT, NAMES, RESET_PAT, UNKNOWN, MemoryTypes, Mtrr


def pat_names(types: Types | None) -> tuple[str, ...]:
    """Memory type by PAT index: as our kernel programs it, else as after reset."""
    if types is None:
        return RESET_PAT
    try:
        names = enum_names(types.enum("memtype"), "MEMTYPE_")
    except KtfError:
        return RESET_PAT
    return tuple(names.get(i, RESET_PAT[i]).upper().replace("UCM", "UC-") for i in range(8))


def read_mtrr(kernel: Kernel) -> Mtrr:
    """The guest's MTRRs, as the kernel found them at boot (struct mtrr); KtfError without them."""
    raw = kernel.variable("mtrr", "struct mtrr")
    bits = kernel.types.enum("mtrr_bits")
    cap, kind, limit = (raw.value(name, 0) for name in ("cap", "def_type", "limit"))
    limit = limit if 1 << 32 <= limit <= 1 << 52 and limit & (limit - 1) == 0 else 1 << 52
    addresses = limit - 1 & ~0xFFF
    base, mask = raw["base"][0], raw["mask"][0]
    counts = (mask & np.uint64(bits["MTRR_MASK_VALID"])) != 0
    counts &= np.arange(len(mask)) < raw.value("count", 0)
    fixed = raw["fixed"][0].copy().view(np.uint8) & np.uint8(7)
    has_fixed = kind & bits["MTRR_DEF_FIXED"] and cap & bits["MTRR_CAP_FIXED"]
    return Mtrr(
        bool(cap and kind & bits["MTRR_DEF_ENABLE"]),
        kind & bits["MTRR_DEF_TYPE"] & 7,
        fixed if has_fixed else None,
        base[counts],
        mask[counts] & np.uint64(addresses),
        limit,
    )


def memory_types(kernel: Kernel | None) -> tuple[MemoryTypes, list[str]]:
    """The guest's, and a line on each thing that is not known."""
    if kernel is None:
        return MemoryTypes(COMMON_PAT, None), [
            "PAT and MTRRs: QEMU does not tell them, and this guest's symbols are not ours; types are those of the "
            "entries alone, by what all usual systems put into the PAT; PAT1, PAT5, PAT7 differ and stay numbers"
        ]
    codes = {name: code for code, name in enumerate(NAMES)}
    pat = tuple(codes.get(name, UNKNOWN + i) for i, name in enumerate(pat_names(kernel.types)))
    try:
        return MemoryTypes(pat, read_mtrr(kernel)), []
    except KtfError as e:
        return MemoryTypes(pat, None), [f"MTRRs: {e}; types are those of the entries alone"]
