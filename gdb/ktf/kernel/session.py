# SPDX-License-Identifier: BSD-2-Clause
# All that one command sees of the guest at one stop: CPUs, memory, kernel, address spaces, walks.
"""Session: made by Target.session() for one command, thrown away after it; nothing in it talks to gdb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from ktf.errors import KtfError, NoGuest, NotYet
from ktf.kernel.backtrace import Backtrace
from ktf.kernel.kernel import Kernel, Segment, VirtualMemory
from ktf.kernel.layout import Types
from ktf.kernel.memory_types import memory_types
from ktf.kernel.spaces import Space, SpaceList, read_spaces
from ktf.memory.readers import Reader
from ktf.x86.cpu import Cpu
from ktf.x86.memtype import MemoryTypes
from ktf.x86.paging import Leaves, Rules, Walk
from ktf.x86.registers import Registers
from ktf.x86.walk import walk


class Session:
    """One stop of the guest, as one command sees it.

    cpus, cpu      all CPUs, and the one that GDB has selected
    reader         physical memory
    rules          how page tables are to be read
    kernel         None without our symbols, or before paging is on
    notes          lines on what is not as it should be, to be shown
    unwind(N)      the functions that CPU N is inside of, as far as is known
    """

    def __init__(
        self,
        cpus: list[Cpu],
        selected: int,
        reader: Reader,
        types: Types | None = None,
        image: list[Segment] | None = None,
        phys_bits: int | None = None,
        registers: Callable[[], list[Registers]] | None = None,
        unwind: Callable[[int], Backtrace] = lambda cpu: Backtrace(),
    ) -> None:
        self.cpus = cpus
        self.cpu = next(c for c in cpus if c.number == selected)
        self.selected = selected  # by GDB
        self.cut = ""  # what is missing of a core
        self.reader = reader
        self.notes: list[str] = []
        self._registers = registers
        self.unwind = unwind
        self._phys_bits = phys_bits
        self.rules = Rules(self.cpu.levels, self.cpu.nxe, phys_bits or 52)
        self.types = types
        self.image = image or []
        self._kernel: Kernel | None = None
        self._kernel_known = False
        self._spaces: SpaceList | None = None
        self._walks: dict[tuple[int, int, int], Walk] = {}
        self.kept: dict[str, object] = {}  # what others decoded of it, by their names
        self._memory_types: tuple[MemoryTypes, list[str]] | None = None

    @cached_property
    def registers(self) -> list[Registers]:
        """All registers of each CPU, in the order of cpus; KtfError if they can't be had."""
        if self._registers is None:
            raise KtfError("nobody tells the registers of the CPUs")
        return self._registers()

    @property
    def phys_bits(self) -> int | None:
        """MAXPHYADDR as QEMU or the core has it; None if neither has."""
        return self._phys_bits

    def need_paging(self) -> None:
        """NoGuest if the selected CPU has no page tables; else the rules are as the kernel knows them."""
        problem = self.cpu.paging_problem()
        if problem:
            raise NotYet(problem)
        _ = self.kernel

    def by_paging(self) -> Session:
        """The same seen from the first CPU that has page tables, where the selected one has none."""
        for cpu in self.cpus if self.cpu.paging_problem() else ():
            if not cpu.paging_problem():
                return self.seen_from(cpu.number)
        return self

    def seen_from(self, number: int) -> Session:
        """The same stop through that CPU's page tables: which one GDB has selected says nothing of it."""
        if number == self.cpu.number:
            return self
        other = Session(
            self.cpus,
            number,
            self.reader,
            self.types,
            self.image,
            self._phys_bits,
            self._registers,
            self.unwind,
        )
        other.selected, other.cut = self.selected, self.cut
        other.notes = [self.cut] if self.cut else []
        return other

    @property
    def kernel(self) -> Kernel | None:
        """The kernel's objects; None if the symbols are not ours, or mm_init() has not run."""
        if not self._kernel_known:
            self._kernel_known = True
            self._kernel = self._find_kernel()
            if self._kernel is not None:
                self._learn_rules(self._kernel)
        return self._kernel

    def _learn_rules(self, kernel: Kernel) -> None:
        """What the CPU can do, as the kernel found by CPUID; a physical size from QEMU counts more."""
        limit = kernel.mm.value("phys_limit", 0)
        bits = limit.bit_length() - 1
        if self._phys_bits is not None or limit != 1 << bits or not 32 <= bits <= 52:
            bits = self.rules.phys_bits
        page_1g = kernel.mm.value("page_1g", 0) != 0
        self.rules = replace(self.rules, phys_bits=bits, page_1g=page_1g)
        kernel.memory.rules = self.rules

    def need_kernel(self) -> Kernel:
        """The kernel, or NoGuest that says why there is none."""
        if self.kernel is None:
            if self.types is None:
                raise NoGuest("no kernel symbols: load them with `file build/kernel.elf`")
            raise NotYet(self.notes[-1] if self.notes else "no kernel in the guest")
        return self.kernel

    def _find_kernel(self) -> Kernel | None:
        """Takes the first CR3, that of the selected CPU before the others', through which the spaces can be read."""
        if self.types is None:
            return None
        first: Kernel | None = None
        for cpu in [self.cpu] + [c for c in self.cpus if c is not self.cpu]:
            if cpu.paging_problem():
                continue
            kernel = Kernel(
                self.types, self.image, VirtualMemory(self.reader, cpu.root, self.rules)
            )
            try:
                kernel.mm
                if read_spaces(kernel).spaces:
                    if first is not None:
                        self.notes.append(
                            f"CR3 of CPU {self.cpu.number} does not lead to the kernel; "
                            f"its memory is read through that of CPU {cpu.number}"
                        )
                    return self._through_kernel_root(kernel)
            except KtfError as e:
                self.notes.append(f"no frame database: {e}")
                return None
            first = first or kernel
        return None if first is None else self._through_known_root(first)

    def _through_known_root(self, kernel: Kernel) -> Kernel:
        """No CPU's CR3 leads to the kernel: its variable kernel_cr3 may."""
        symbol = kernel.types.symbol("kernel_cr3")
        root = int.from_bytes(kernel.read(symbol.va, 8), "little") >> 12 if symbol else 0
        if root and self.reader.ram.holds(np.array([root], np.uint64))[0]:
            again = Kernel(kernel.types, kernel.image, VirtualMemory(self.reader, root, self.rules))
            if read_spaces(again).spaces:
                text = "CR3 of no CPU leads to the kernel; its memory is read through kernel_cr3"
                self.notes.append(text)
                return again
        self.notes.append("the kernel's address spaces can't be read through any CPU's CR3")
        return kernel

    def _through_kernel_root(self, kernel: Kernel) -> Kernel:
        """The same, seen through the kernel's own root, which a user space's table can't hide."""
        root = read_spaces(kernel).spaces[0].root
        if self.reader.ram.holds(np.array([root], np.uint64))[0]:
            again = Kernel(kernel.types, kernel.image, VirtualMemory(self.reader, root, self.rules))
            if read_spaces(again).spaces:
                return again
        return kernel

    def spaces(self) -> SpaceList:
        """Every address space; without our kernel the one in the selected CPU's CR3."""
        if self._spaces is None:
            self.need_paging()
            self._spaces = SpaceList() if self.kernel is None else read_spaces(self.kernel)
            if not self._spaces.spaces:
                self._spaces.spaces.append(self.cr3_space())
        return self._spaces

    def cr3_space(self) -> Space:
        """What the selected CPU's CR3 holds, as a space of its own."""
        return Space("cr3", self.cpu.root, self.cpu.levels)

    def walk(self, space: Space, low: int = 0, high: int | None = None) -> Walk:
        """The walk of a space's own part, cut to linear addresses [low, high); kept for this session."""
        low, high = self._span(space, low, high)
        key = (space.root, low, high)
        if key not in self._walks:
            self._walks[key] = walk(self.reader, space.root, self.rules, low, high)
        return self._walks[key]

    def walk_past(
        self, space: Space, meet: Callable[[Leaves], None], low: int = 0, high: int | None = None
    ) -> Walk:
        """The same, but its leaves go to meet(), see walk.walk(), and nothing is kept."""
        low, high = self._span(space, low, high)
        return walk(self.reader, space.root, self.rules, low, high, meet=meet)

    def _span(self, space: Space, low: int, high: int | None) -> tuple[int, int]:
        first, last = space.span(self.rules)
        return max(low, first), last if high is None else min(high, last)

    def memory_types(self) -> tuple[MemoryTypes, list[str]]:
        """PAT and MTRRs, and lines on what is not known of them."""
        if self._memory_types is None:
            self._memory_types = memory_types(self.kernel)
        return self._memory_types

    def forget(self) -> None:
        """Gives back what was decoded: nobody looks at this stop any more."""
        self.kept.clear()
        self._walks.clear()
