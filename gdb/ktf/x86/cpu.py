# SPDX-License-Identifier: BSD-2-Clause
# A CPU as page tables see it.
"""Cpu: the registers that decide how it reads them, and what they mean; pure."""

from __future__ import annotations

from dataclasses import dataclass


CR0_PE, CR0_WP, CR0_PG = 1 << 0, 1 << 16, 1 << 31


CR4_PAE, CR4_UMIP, CR4_LA57, CR4_SMEP, CR4_SMAP = 1 << 5, 1 << 11, 1 << 12, 1 << 20, 1 << 21


CR0_NW, CR0_CD = 1 << 29, 1 << 30
CR4_FSGSBASE, CR4_PCIDE, CR4_PKE, CR4_CET, CR4_PKS = (1 << n for n in (16, 17, 22, 23, 24))
EFER_LMA, EFER_NXE = 1 << 10, 1 << 11


@dataclass(frozen=True)
class Cpu:
    """The registers of one CPU that decide how it reads page tables. efer is None where nobody knows it."""

    number: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int | None
    rip: int = 0
    rsp: int = 0

    @property
    def root(self) -> int:
        """Frame number of the top-level table."""
        return self.cr3 >> 12 & 0xFF_FFFF_FFFF

    @property
    def long_mode(self) -> bool:
        """True if it uses 4- or 5-level page tables now."""
        lma = True if self.efer is None else bool(self.efer & EFER_LMA)
        return bool(self.cr0 & CR0_PG and self.cr4 & CR4_PAE and lma)

    @property
    def levels(self) -> int:
        """Of its page tables."""
        return 5 if self.cr4 & CR4_LA57 else 4

    @property
    def nxe(self) -> bool:
        """True if NX means something; taken as true where EFER is not known."""
        return self.efer is None or bool(self.efer & EFER_NXE)

    def paging_problem(self) -> str:
        """Why there are no page tables to walk, and what to do; "" if there are."""
        why = self.no_tables()
        return f"{why}: let the guest boot further" if why else ""

    def no_tables(self) -> str:
        """Why there are no page tables to walk, "" if there are."""
        if not self.cr0 & CR0_PG:
            mode = "protected mode" if self.cr0 & CR0_PE else "real mode"
            return f"paging is off on CPU {self.number} ({mode})"
        return "" if self.long_mode else f"CPU {self.number} uses 32-bit paging, not 64-bit"
