# SPDX-License-Identifier: BSD-2-Clause
# One thing broken in a made-up guest, for every rule and most of what each checks: leaves, records and tables here.
"""CASES: (rule, other rules that can't but be broken, function that breaks it).

The function returns the frame number or address that a violation must name, None if there is none.
"""

from __future__ import annotations

from collections.abc import Callable

from synthetic import Machine
from synthetic_model import BASE, WINDOW, W, leaf

VA = 0xFFFFC00000000000
Break = Callable[[Machine], "int | None"]
CASES: list[tuple[str, str, Break]] = []


def case(rule: str, also: str = "") -> Callable[[Break], Break]:
    """The function breaks the rule, and those in `also`; it returns the frame number or address to be named."""

    def add(function: Break) -> Break:
        CASES.append((rule, also, function))
        return function

    return add


def named(name: str, rule: str, function: Break, also: str = "") -> None:
    """The same for a function that has no name of its own."""
    function.__name__ = name
    CASES.append((rule, also, function))


def of(m: Machine, mfn: int) -> int:
    """Index of a block's descriptor."""
    return m.blocks[mfn].index


# --- P: leaves and records ---------------------------------------------------------------------------


@case("P1", "P4")
def leaf_of_no_frame(m: Machine) -> int:
    """An entry maps a hole."""
    m.set_entry(1, VA + 0x6000, 1, leaf(0x8000, 1, W))
    m.poke(
        "struct table", m.slot(1, VA, 1), used=m.peek("struct table", m.slot(1, VA, 1), "used") + 1
    )
    return 0x8000


@case("P2", "P4")
def leaf_of_free_frame(m: Machine) -> int:
    """An entry maps a frame that nobody owns."""
    free = next(b for b in m.blocks.values() if b.refcount == b.mapcount == 0)
    m.set_entry(1, VA + 0x6000, 1, leaf(free.mfn, 1, W))
    m.poke(
        "struct table", m.slot(1, VA, 1), used=m.peek("struct table", m.slot(1, VA, 1), "used") + 1
    )
    return free.mfn


@case("P3")
def entries_swapped(m: Machine) -> int:
    """Two pages of a block in each other's place."""
    va = VA + (2 << 21) - (4 << 12)
    first, second = m.set_entry(1, va, 1, 0), m.set_entry(1, va + 0x1000, 1, 0)
    m.set_entry(1, va, 1, second)
    m.set_entry(1, va + 0x1000, 1, first)
    return va


@case("P3", "P5")
def record_beyond_block(m: Machine) -> int:
    """A record says more pages than its block has."""
    m.poke("mapping_t", m.alias.maps[0].index, order=1, home=1)
    return m.alias.maps[0].va


@case("P3")
def record_of_another_home(m: Machine) -> int:
    """A record's home above its order, where a part of a larger mapping could have it."""
    part = next(r for b in m.blocks.values() for r in b.maps if r.order < b.order)
    m.poke("mapping_t", part.index, home=part.order + 1)
    return part.va


@case("P3")
def record_home(m: Machine) -> int:
    """A record's home below its order."""
    m.poke("mapping_t", m.large.maps[0].index, home=8)
    return m.large.maps[0].va


@case("P4")
def leaf_without_record(m: Machine) -> int:
    """An entry written behind the frame's back."""
    m.set_entry(1, VA + 0x6000, 1, leaf(m.page.mfn, 1, W))
    m.poke(
        "struct table", m.slot(1, VA, 1), used=m.peek("struct table", m.slot(1, VA, 1), "used") + 1
    )
    return VA + 0x6000


@case("P4")
def table_entry_limits(m: Machine) -> int:
    """An entry of level 3 takes away the right to write."""
    entry = m.set_entry(2, 0x40000000, 3, 0)
    m.set_entry(2, 0x40000000, 3, entry & ~2)
    return 0x40000000


@case("P4", "P5")
def rights_differ(m: Machine) -> int:
    """An entry allows writing, its record does not."""
    entry = m.set_entry(1, VA + 0x2000, 1, 0)
    m.set_entry(1, VA + 0x2000, 1, entry | 2)
    return VA + 0x2000


@case("P4", "P5 M2")
def type_differs(m: Machine) -> int:
    """An entry is uncached, its record says write-back."""
    entry = m.set_entry(1, VA + 0x1000, 1, 0)
    m.set_entry(1, VA + 0x1000, 1, entry | 0x18)
    return VA + 0x1000


@case("P5", "A4")
def entry_gone(m: Machine) -> int:
    """An entry cleared, its record kept (and the table's count, too)."""
    m.set_entry(1, VA, 1, 0)
    return VA


@case("P5")
def entry_global(m: Machine) -> int:
    """An entry that survives a change of CR3."""
    entry = m.set_entry(1, VA, 1, 0)
    m.set_entry(1, VA, 1, entry | 1 << 8)
    return VA


@case("P5", "P4")
def entry_of_other_frame(m: Machine) -> int:
    """An entry maps another frame than its record says."""
    m.set_entry(1, VA, 1, leaf(m.shared.mfn, 1, W))
    return VA


@case("P5")
def vacant_entry_not_zero(m: Machine) -> int:
    """An entry that is not present holds something."""
    m.set_entry(1, VA + 0x9000, 1, 0x5000)
    return VA + 0x9000


@case("P6", "A4")
def mapcount_wrong(m: Machine) -> int:
    """A mapcount off by one."""
    m.poke("frame_t", m.alias.index, mapcount=m.alias.mapcount + 1)
    return m.alias.mfn


@case("P6")
def refs_zero(m: Machine) -> int:
    """A record without references; its frame's count agrees."""
    m.poke("mapping_t", m.page.maps[0].index, refs=0)
    m.poke("frame_t", m.page.index, mapcount=0)
    return VA


@case("P6", "A3 P4 P5")
def record_on_two_lists(m: Machine) -> int:
    """Two frames share a list of mappings."""
    m.poke("frame_t", m.page.index, maps=m.alias.maps[0].index)
    return m.page.mfn


@case("P7", "P4 A4")
def record_without_table(m: Machine) -> int:
    """A record whose page table is gone."""
    record = m.page.maps[0]
    m.poke("mapping_t", record.index, at=(m.slot_count - 1) * 512)
    return m.page.mfn


# --- T: tables ---------------------------------------------------------------------------------------


def spare(m: Machine, entry: int, level: int = 2, space: int = 2) -> int:
    """Writes an unused entry of that level, counted by its table; its address."""
    va = 0x60000000 if level == 2 else 0x200000000000 if level == 4 else 0x4000000000
    va = 0x40000000 + (9 << 21) if level == 2 else va
    m.set_entry(space, va, level, entry)
    slot = m.slot(space, va, level)
    m.poke("struct table", slot, used=m.peek("struct table", slot, "used") + 1)
    return va


@case("T1")
def table_is_plain_frame(m: Machine) -> int:
    """An entry of level 2 leads to a plain frame."""
    return spare(m, m.page.mfn << 12 | 7)


@case("T1", "T6")
def table_outside(m: Machine) -> int:
    """An entry of level 2 leads outside of RAM."""
    return spare(m, 0xABCDE << 12 | 7)


@case("T2")
def frame_says_other_level(m: Machine) -> int:
    """A table's frame names another level."""
    slot = m.slot(2, 0x40000000, 1)
    m.poke("frame_t", of(m, m.tables[slot].mfn), level=2)  # type: ignore[union-attr]
    return m.tables[slot].mfn  # type: ignore[union-attr]


@case("T2")
def plain_frame_has_level(m: Machine) -> int:
    """A frame that is no table has a level."""
    m.poke("frame_t", m.page.index, level=1)
    return m.page.mfn


@case("T2")
def plain_frame_has_no_tables_level(m: Machine) -> int:
    """A frame that is no table has a level that no table has either."""
    m.poke("frame_t", m.page.index, level=7)
    return m.page.mfn


@case("T3")
def table_under_two_entries(m: Machine) -> int:
    """One table of level 1 under two entries."""
    mfn, number = m.entry_at(2, 0x40000000, 2)
    return spare(m, int(m.words[mfn, number]))


@case("T3", "A4 P5")
def root_not_shared(m: Machine) -> int:
    """A user root lacks one of the kernel's entries."""
    m.set_entry(2, VA, 4, 0)
    return VA


@case("T3")
def slot_names_other_parent(m: Machine) -> int:
    """A struct table says that it hangs elsewhere."""
    m.poke("struct table", m.slot(2, 0x40000000, 1), index=5)
    return 0x40000000


@case("T4")
def table_writable(m: Machine) -> int:
    """A page table mapped writable, with its record."""
    root = m.tables[m.roots[1]]
    assert root is not None
    return page_moved(m, root.mfn)


@case("T4")
def metadata_writable(m: Machine) -> int:
    """A page of descriptors mapped writable, with its record."""
    return page_moved(m, int(m.arena_mfn[0][0]))


def page_moved(m: Machine, mfn: int, attr: int = W) -> int:
    """The mapping of the page at VA is of that frame now, consistently."""
    index = m.page.maps[0].index
    m.set_entry(1, VA, 1, leaf(mfn, 1, attr))
    m.poke("mapping_t", index, attr=attr)
    m.poke("frame_t", m.page.index, maps=0, mapcount=0)
    block = m.blocks[mfn]
    first = m.peek("frame_t", block.index, "maps")
    m.poke("mapping_t", first, prev=index)
    m.poke("mapping_t", index, next=first)
    m.poke("frame_t", block.index, maps=index, mapcount=2)
    return VA


@case("T4", "P4 A4")
def window_of_free_slot(m: Machine) -> int:
    """The window shows something where no table is."""
    va = WINDOW + m.free[0] * 4096
    m.set_entry(1, va, 1, leaf(m.page.mfn, 1, W))
    return va


@case("T5")
def reserved_bit(m: Machine) -> int:
    """A physical address bit that the CPU does not have."""
    entry = m.set_entry(1, VA, 1, 0)
    m.set_entry(1, VA, 1, entry | 1 << 50)
    return VA


@case("T5", "P3 P5")
def large_page_unaligned(m: Machine) -> int:
    """Low address bits in a large page's entry."""
    entry = m.set_entry(1, VA + (1 << 30), 2, 0)
    m.set_entry(1, VA + (1 << 30), 2, entry | 1 << 13)
    return VA + (1 << 30)


@case("T5")
def table_uncached(m: Machine) -> int:
    """PCD in an entry that points to a table."""
    entry = m.set_entry(2, 0x40000000, 3, 0)
    m.set_entry(2, 0x40000000, 3, entry | 1 << 4)
    return 0x40000000


@case("T6", "T2 T3")
def loop(m: Machine) -> int:
    """An entry of level 3 leads back to the root."""
    root = m.tables[m.roots[2]]
    assert root is not None
    return spare(m, root.mfn << 12 | 7, level=3)


@case("T7", "A4 P5")
def table_lost(m: Machine) -> int:
    """A table taken out of its parent; the parent's shadow forgotten, too."""
    slot = m.slot(3, 0x40000000, 1)
    m.set_entry(3, 0x40000000, 2, 0)
    return m.tables[slot].mfn  # type: ignore[union-attr]


@case("T7")
def slot_va_wrong(m: Machine) -> int:
    """A struct table with another address: its records are then elsewhere, too."""
    m.poke("struct table", m.slot(1, BASE + 0x403C000000, 1), pins=3)
    return BASE + 0x403C000000


@case("T7")
def free_slot_dirty(m: Machine) -> None:
    """A free slot that holds something."""
    m.poke("struct table", m.free[1], va=0x1000)


@case("T7", "A3 A4")
def stock_without_table(m: Machine) -> None:
    """A slot says that it is in stock, but has no table, and is on no list."""
    m.poke("struct table", m.free[1], stock=1, frame=0x123456)
