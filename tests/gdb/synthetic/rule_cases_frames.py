# SPDX-License-Identifier: BSD-2-Clause
# More of rule_cases: the allocator's descriptors, rings, arenas and counters, and flushing.
"""Adds to rule_cases.CASES."""

from __future__ import annotations

import numpy as np

from rule_cases import case, of
from synthetic import Machine
from synthetic_types import KINDS


# --- A: the allocator --------------------------------------------------------------------------------


@case("A1")
def frame_missing(m: Machine) -> int:
    """A page of the memory map without a frame: a hole in the last regions."""
    m.mm_row("region", 9, "end", m.mm_row("region", 9, "end") + 0)
    m.mm_row("region", 13, "end", 0x20000003 << 12)
    return 0x20000001


@case("A1", "A6")
def regions_overlap(m: Machine) -> int:
    """Two regions of the memory map overlap."""
    m.mm_row("region", 1, "start", 0x9E << 12)
    return 0x9E


@case("A1")
def region_gone(m: Machine) -> int:
    """A frame outside of the memory map that is no device."""
    m.mm_row("region", 13, "start", 0)
    m.mm_row("region", 13, "end", 0)
    m.mm_row("region", 13, "kind", 0)
    m.poke("struct mm", 0, region_count=13)
    return 0x20000000


@case("A2")
def wrong_ring(m: Machine) -> int:
    """A frame of order 0 hangs in the ring of order 1."""
    index = m.page.index
    before, after = m.peek("frame_t", index, "prev"), m.peek("frame_t", index, "next")
    m.poke("frame_t", before, next=after)
    m.poke("frame_t", after, prev=before)
    last = m.peek("frame_t", 2, "prev")
    m.poke("frame_t", index, prev=last, next=2)
    m.poke("frame_t", last, next=index)
    m.poke("frame_t", 2, prev=index)
    for order, sign in ((0, -1), (1, 1)):
        for name, value in (("used", 1), ("refs", 1)):
            m.mm_row("order", order, name, m.mm_row("order", order, name) + sign * value)
    return m.page.mfn


@case("A2", "P5 P3")
def mfn_wrong(m: Machine) -> int:
    """A descriptor names another page than the one where it stands."""
    m.poke("frame_t", m.page.index, mfn=m.page.mfn + 0x1000)
    return m.page.mfn + 0x1000


@case("A2", "P1 P4")
def tail_wrong(m: Machine) -> int:
    """A tail that leads to the wrong head."""
    m.poke("frame_t", m.shared.index + 3, tail=2)
    return m.shared.mfn + 3


@case("A2")
def empty_not_blank(m: Machine) -> int:
    """The descriptor of a page in no frame holds something."""
    m.poke("frame_t", of(m, 0x20000000) + 1, refcount=1)
    return 0x20000001


@case("A3")
def ring_bent(m: Machine) -> int:
    """A link back leads to another frame."""
    m.poke("frame_t", m.page.index, prev=m.alias.index)
    return m.page.mfn


@case("A3", "P6")
def list_bent(m: Machine) -> None:
    """A record's link forward leads to another record."""
    records = m.alias.maps
    m.poke("mapping_t", records[0].index, next=records[2].index)


@case("A3")
def arena_list_bent(m: Machine) -> None:
    """A page of free objects names another page as the one before."""
    raw = m.words[m.arena_mfn[0][m.empty[1]]].view(np.uint32)
    raw[3] = 7


@case("A3")
def arena_empty_in_use(m: Machine) -> None:
    """A page that holds no descriptors counts one in use, beside its magic number."""
    raw = m.words[m.arena_mfn[0][m.empty[1]]].view(np.uint32)
    raw[6] |= 1 << 24


@case("A3", "T7")
def slot_list_bent(m: Machine) -> None:
    """The list of free slots leads out of the slots."""
    m.poke("struct table", m.free[2], frame=0x123456)


@case("A4")
def counter_off(m: Machine) -> None:
    """A count of free blocks off by one."""
    m.mm_row("order", 3, "free", m.mm_row("order", 3, "free") + 1)


@case("A4")
def arena_counter_off(m: Machine) -> None:
    """A count of free records off by one."""
    m.mm_row("arena", 1, "free", m.mm_row("arena", 1, "free") + 1)


@case("A4")
def space_counter_off(m: Machine) -> None:
    """A space counts one table more than it has."""
    m.poke("space_t", 2, tables=m.peek("space_t", 2, "tables") + 1)


@case("A3", "A4")
def cache_leads_outside(m: Machine) -> None:
    """The cache of records leads to the page's header."""
    m.mm_struct("records", head=2, count=1)


@case("A3")
def cache_holds_a_used_record(m: Machine) -> None:
    """A record that maps something is in the cache, too."""
    m.mm_struct("records", head=m.page.maps[0].index, count=1)


@case("A4")
def cache_counter_off(m: Machine) -> None:
    """The cache counts a record that is not in it."""
    m.mm_struct("records", count=1)


@case("A4")
def table_counter_off(m: Machine) -> int:
    """A table counts one entry more than it has."""
    slot = m.slot(2, 0x40000000, 1)
    m.poke("struct table", slot, used=m.peek("struct table", slot, "used") + 1)
    return 0x40000000


@case("A5")
def buddies_unmerged(m: Machine) -> int:
    """A free block given back in two halves."""
    block = next(b for b in m.blocks.values() if b.refcount == b.mapcount == 0 and 0 < b.order < 7)
    half = 1 << block.order - 1
    after, before = (m.peek("frame_t", block.index, n) for n in ("next", "prev"))
    m.poke("frame_t", before, next=after)
    m.poke("frame_t", after, prev=before)
    m.mm_row("order", block.order, "free", m.mm_row("order", block.order, "free") - 1)
    m.mm_row("order", block.order - 1, "free", m.mm_row("order", block.order - 1, "free") + 2)
    ring = block.order
    upper = block.index + half
    first = m.peek("frame_t", ring, "next")
    m.poke("frame_t", block.index, order=block.order - 1, prev=ring, next=upper)
    m.poke("frame_t", upper, order=block.order - 1, prev=block.index, next=first, tail=0)
    m.poke("frame_t", upper, kind=KINDS.index("AVAILABLE"), mfn=block.mfn + half)
    for i in range(1, half):
        m.poke("frame_t", upper + i, tail=i)
    m.poke("frame_t", ring, next=block.index)
    m.poke("frame_t", first, prev=upper)
    return block.mfn


@case("A6")
def kind_wrong(m: Machine) -> int:
    """An available frame says that it is an ACPI table."""
    m.poke("frame_t", m.page.index, kind=KINDS.index("ACPI"))
    return m.page.mfn


@case("A6")
def image_kind(m: Machine) -> int:
    """The image's bss, region and frames alike, says that it is data."""
    number = next(i for i, r in enumerate(m.REGIONS) if r[2] == "BSS")
    m.mm_row("region", number, "kind", KINDS.index("DATA"))
    for mfn, block in m.blocks.items():
        if 0x22C <= mfn < 0x240:
            m.poke("frame_t", block.index, kind=KINDS.index("DATA"))
    return 0x22C


@case("A6", "A4")
def reserved_free(m: Machine) -> int:
    """A reserved frame without an owner."""
    block = m.blocks[0xFFFC0]
    m.poke("frame_t", block.index, refcount=0)
    return block.mfn


@case("B1")
def not_flushed(m: Machine) -> int:
    """A CPU was asked to flush for a frame that is free, and has not."""
    block = next(b for b in m.blocks.values() if b.refcount == b.mapcount == 0)
    m.poke("frame_t", block.index, slot=7)
    m.poke("struct mm", 0, epoch=7)
    m.mm_row("cpu", 0, "online", 1)
    m.mm_row("cpu", 0, "space", m.peek("struct mm", 0, "space_list"))
    m.mm_row("cpu", 0, "asked", 7)
    m.mm_row("cpu", 0, "flushed", 6)
    return block.mfn
