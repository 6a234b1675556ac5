# SPDX-License-Identifier: BSD-2-Clause
# More of rule_cases: memory types, permissions, and what the CPUs work with.
"""Adds to rule_cases.CASES."""

from __future__ import annotations

import numpy as np

from rule_cases import VA, case, named
from synthetic import Machine
from synthetic_model import NX, PAGE, STACKS, UC, Mapping, U, W, X, leaf
from synthetic_types import MM_VA


# --- M -----------------------------------------------------------------------------------------------


def retyped(m: Machine, record: Mapping, attr: int) -> int:
    """A mapping with other attributes, record and entry alike; its address."""
    m.set_entry(record.space, record.va, record.level, leaf(record.frame, record.level, attr))
    m.poke("mapping_t", record.index, attr=attr)
    return record.va


@case("M1")
def device_write_back(m: Machine) -> int:
    """A device's registers cached."""
    return retyped(m, m.blocks[0xFEE00].maps[0], W)


@case("M2")
def alias_uncached(m: Machine) -> int:
    """One frame in two types: said of the address above the first one."""
    return retyped(m, m.alias.maps[1], UC)


@case("M2")
def large_page_of_several_types(m: Machine) -> int:
    """The MTRRs change in the middle of a large page."""
    mtrr = m.rows("mtrr", "struct mtrr")[0]
    mtrr["base"][0], mtrr["mask"][0] = m.large.mfn << 12, (1 << 46) - (1 << 20) | 0x800
    return VA + (1 << 30)


def image_page(m: Machine, mfn: int, attr: int) -> int:
    """A block of the kernel's image with other rights, record and entries alike; its address."""
    record = m.blocks[mfn].maps[0]
    for i in range(1 << record.order):
        m.set_entry(1, record.va + i * PAGE, 1, leaf(mfn + i, 1, attr))
    m.poke("mapping_t", record.index, attr=attr)
    return record.va


for mfn, part, attr in (
    (0x210, "text", W),
    (0x220, "rodata", W),
    (0x220, "rodata", X),
    (0x228, "data", X),
    (0x230, "bss", X),
):
    # C2: handlers stand in the text, the IDT in the bss.
    also = "C2" if part in ("text", "bss") else ""
    named(f"image_{part}_{attr}", "X1", lambda m, n=mfn, a=attr: image_page(m, n, a), also)  # type: ignore[misc]


@case("P5")
def type_that_there_is_not(m: Machine) -> int:
    """Memory type 6, record and entry alike."""
    return retyped(m, m.page.maps[0], 6 << 3)


@case("P5")
def type_above_all(m: Machine) -> int:
    """The last one that fits."""
    return retyped(m, m.page.maps[0], 7 << 3 | W)


@case("M2")
def mtrr_of_no_type(m: Machine) -> None:
    """A default type that there is not."""
    m.rows("mtrr", "struct mtrr")[0]["def_type"] = 0xC03


# --- X, C2 -------------------------------------------------------------------------------------------


@case("X2", "P4")
def kernel_page_for_ring_3(m: Machine) -> int:
    """All levels give user code what is the kernel's."""
    retyped(m, m.page.maps[0], W | U)
    for level in (2, 3, 4):
        entry = m.set_entry(1, VA, level, 0)
        m.set_entry(1, VA, level, entry | U)
    for space in (2, 3):
        mfn = m.tables[m.roots[space]].mfn  # type: ignore[union-attr]
        m.words[mfn, VA >> 39 & 511] |= np.uint64(4)
    return VA


@case("X2")
def user_bit_in_the_kernels_space(m: Machine) -> int:
    """A mapping for ring 3 that the levels above keep from it."""
    return retyped(m, m.page.maps[0], W | U)


def shared(m: Machine, mfn: int, attr: int) -> int:
    """The mapping at 0x400000 of a user space is of that frame now, consistently."""
    record = m.alias.maps[0]
    m.set_entry(2, record.va, 1, leaf(mfn, 1, attr))
    after, block = m.alias.maps[1].index, m.blocks[mfn]
    m.poke("frame_t", m.alias.index, maps=after, mapcount=m.alias.mapcount - 1)
    m.poke("mapping_t", after, prev=0)
    first = m.peek("frame_t", block.index, "maps")
    m.poke("mapping_t", first, prev=record.index)
    m.poke("mapping_t", record.index, next=first, attr=attr)
    m.poke("frame_t", block.index, maps=record.index, mapcount=block.mapcount + 1)
    return record.va


for mfn, what in ((0x210, "text"), (0x220, "rodata"), (0x228, "data"), (0x230, "bss")):
    named(f"user_writes_{what}", "X2", lambda m, n=mfn: shared(m, n, U | W))  # type: ignore[misc]


@case("X2")
def user_reads_a_table(m: Machine) -> int:
    """A page table that a program can read."""
    return shared(m, m.tables[m.roots[1]].mfn, U)  # type: ignore[union-attr]


@case("X2", "T4")
def user_writes_a_table(m: Machine) -> int:
    """Or write."""
    return shared(m, m.tables[m.roots[1]].mfn, U | W)  # type: ignore[union-attr]


@case("X2")
def user_reads_descriptors(m: Machine) -> int:
    """A page of descriptors that a program can read."""
    return shared(m, int(m.arena_mfn[0][0]), U)


def mapped(m: Machine, va: int, record: Mapping | None = None) -> int:
    """Moves a mapping, that of `page`, to va, in a table that is there, all books kept; va."""
    record = record or m.page.maps[0]
    old, new = m.slot(1, record.va, 1), m.slot(1, va, 1)
    entry = m.set_entry(1, record.va, 1, 0)
    m.set_entry(1, va, 1, entry)
    for slot, number, index in ((old, record.va, 0), (new, va, record.index)):
        raw = m.place("struct shadow", slot).view(np.uint32)
        raw[number >> 12 & 511] = index
        change = 1 if index else -1
        m.poke("struct table", slot, used=m.peek("struct table", slot, "used") + change)
    m.poke("mapping_t", record.index, at=new << 9 | va >> 12 & 511)
    return va


@case("T4")
def table_not_shown(m: Machine) -> int:
    """The window does not show a table, which can be read elsewhere."""
    table = m.tables[m.slot(2, 0x40000000, 1)]
    assert table is not None
    record = m.blocks[table.mfn].maps[0]
    va = mapped(m, VA + 0x8000, record)
    m.set_entry(1, va, 1, leaf(table.mfn, 1, 0))
    m.poke("mapping_t", record.index, attr=0)
    return table.va


@case("X3")
def guard_page_below(m: Machine) -> int:
    """The page below a stack is mapped."""
    return mapped(m, STACKS[0][0] - 0x1000)


@case("X3")
def guard_page_above(m: Machine) -> int:
    """The page above a stack is mapped."""
    return mapped(m, STACKS[-1][1])


@case("X3", "C2")
def stack_misplaced(m: Machine) -> None:
    """A stack that is said to start in the middle of a page."""
    m.rows("stacks", "struct stack_info")["bottom"]["v"][1] += np.uint64(8)


@case("C2")
def handler_in_data(m: Machine) -> int:
    """A gate leads to what can't be executed."""
    m.rows("idt", "struct idt_gate")["offset_low"][13] = 0xA000
    m.rows("idt", "struct idt_gate")["offset_middle"][13] = 0x8023
    return 0xFFFFFFFF8023A000


@case("C2")
def gate_absent(m: Machine) -> None:
    """An exception without a gate."""
    m.rows("idt", "struct idt_gate")["type"][14] = 0x0E


@case("C2")
def gate_of_no_code(m: Machine) -> None:
    """A gate whose selector is the data segment's."""
    m.rows("idt", "struct idt_gate")["selector"][6] = 0x10


@case("C2")
def gate_without_stack(m: Machine) -> None:
    """A gate that wants a stack which the TSS does not have."""
    m.rows("idt", "struct idt_gate")["ist"][3] = 5


@case("C2")
def stack_unknown(m: Machine) -> int:
    """The TSS names the middle of a stack."""
    m.rows("tss", "struct tss")["ist"][0, 1] -= np.uint64(0x1000)
    return STACKS[2][1] - 0x1000 - 8


@case("C2")
def task_elsewhere(m: Machine) -> None:
    """The GDT's descriptor names another TSS than TR."""
    m.symbol("gdt").view(np.uint64)[5] += np.uint64(104 << 16)


# --- X1 ------------------------------------------------------------------------------------------


@case("X1")
def writable_executable(m: Machine) -> int:
    """A mapping with both rights, record and entry alike."""
    entry = m.set_entry(1, VA, 1, 0)
    m.set_entry(1, VA, 1, entry & ~NX)
    m.poke("mapping_t", m.page.maps[0].index, attr=W | X)
    return VA


@case("C2")
def stack_of_another_exception(m: Machine) -> None:
    """The double fault's stack is that of the NMI."""
    m.rows("tss", "struct tss")["ist"][0, 0] = STACKS[2][1]


@case("C2")
def ring_0_stack_elsewhere(m: Machine) -> None:
    """RSP0 lies in the manager's own data."""
    m.rows("tss", "struct tss")["rsp"][0, 0] = MM_VA + 0x100


@case("C2")
def gate_for_ring_3(m: Machine) -> None:
    """Ring 3 may call the page fault's gate."""
    m.rows("idt", "struct idt_gate")["type"][14] |= 0x60


@case("C2")
def gate_of_ring_1(m: Machine) -> None:
    """The gate that ring 3 may call is for ring 1, whence none comes."""
    m.rows("idt", "struct idt_gate")["type"][0x80] |= 0x20


# --- C1 ----------------------------------------------------------------------------------------------


@case("C1")
def space_of_no_cpu(m: Machine) -> None:
    """The kernel says a user space, CR3 has the kernel's root."""
    m.mm_row("cpu", 0, "space", 2)
    m.poke("space_t", 2, cpus=1)


@case("C1", "C2")
def cpu_that_is_not_there(m: Machine) -> None:
    """A second CPU is said to run."""
    for name in ("online", "space"):
        m.mm_row("cpu", 1, name, 1)
    m.poke("space_t", 1, cpus=3)
    m.symbol("smp_up").view(np.uint32)[0] = 2


@case("C1")
def cpu_that_was_forgotten(m: Machine) -> None:
    """The only CPU is said not to run."""
    for name in ("online", "space"):
        m.mm_row("cpu", 0, name, 0)
    m.poke("space_t", 1, cpus=0)
