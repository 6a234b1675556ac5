# SPDX-License-Identifier: BSD-2-Clause
# Why an access to a page that is mapped is refused, in words.
"""denied(page, perm, fault, registers): the end of a sentence; pure (SDM vol. 3, 4.6)."""

from __future__ import annotations

from ktf.x86.cpu import CR4_SMAP, CR4_SMEP
from ktf.x86.exceptions import FETCH, USER, WRITE, Fault
from ktf.x86.paging import U, W, X
from ktf.x86.registers import Registers

RFLAGS_AC = 1 << 18


def denied(page: str, perm: int, fault: Fault, registers: Registers) -> str:
    """page: what it is, "4K page rw-- of bss"; perm: what all levels together allow."""
    fetch, write = bool(fault.error & FETCH), bool(fault.error & WRITE)
    if fault.error & USER and not perm & U:
        return f"a {page}, which ring 3 may not touch"
    if perm & U and not fault.error & USER:
        cr4, forced = registers.control["cr4"], not registers["rflags"] & RFLAGS_AC
        guard = "SMEP" if fetch else "SMAP"
        if cr4 & CR4_SMEP if fetch else cr4 & CR4_SMAP and forced:
            return f"a user {page}, and the kernel may not touch it: {guard} is on"
    if fetch and not perm & X:
        return f"a {page}, which may not be executed"
    if write and not perm & W:
        return f"a {page}, which may not be written"
    return f"a {page}, which allows it now: its entries were changed, or the CPU used older ones"
