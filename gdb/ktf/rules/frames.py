# SPDX-License-Identifier: BSD-2-Clause
# Rules A2, A3 and A5: descriptors, lists and buddies of the frame allocator; counts.py has A4.
"""Each rule is a function of the database; docs/invariants.md says why and how each can be broken."""

from __future__ import annotations

import numpy as np

from ktf.findings import Report, Rule, Violation
from ktf.kernel.chains import NONE
from ktf.kernel.database import POOLS, Database
from ktf.kernel.granules import PER_PAGE
from ktf.kernel.pools import off_list, page_list
from ktf.kernel.tree import GIB_ORDER, GRANULE_ORDER, SPAN_ORDER
from ktf.memory.readers import PAGE
from ktf.rules.map import frame
from ktf.rules.mappings import frame_text


# --- A2: descriptors ---------------------------------------------------------------------------------


def a2(db: Database, out: Report) -> None:
    """Descriptors say what the tree and the rings say."""
    frames = db.frames
    _a2_tails(db, out)
    inner, outer = frames.inner_heads, frames.outer_heads
    unaligned = frames.heads[frames.place & (frames.sizes - 1) != 0]
    out.each("A2", unaligned, lambda i: frame(db, "A2", i, "is not aligned to its order"))
    moved = np.flatnonzero(frames.mfn[frames.heads].astype(np.int64) != frames.place)

    def place_text(i: int) -> Violation:
        at = int(frames.heads[i])
        return frame(db, "A2", at, f"the tree leads to it from mfn {int(frames.place[i]):#x}")

    out.each("A2", moved, place_text)
    tests = (
        (inner[frames.order[inner] >= GRANULE_ORDER], "order 7 and up have no descriptor per page"),
        (outer[frames.order[outer] > GIB_ORDER], "the largest order is 18"),
        (frames.heads[frames.tail[frames.heads] != 0], "a block's head has tail 0"),
        (frames.heads[frames.zero[frames.heads] != 0], "zero is not 0"),
    )
    for bad, text in tests:
        out.each("A2", bad, lambda i, t=text: frame(db, "A2", i, t))  # type: ignore[misc]
    _a2_blocks(db, out)
    _a2_rings(db, out)


def _a2_tails(db: Database, out: Report) -> None:
    """In pages of one descriptor per page: tails lead back to their head, the rest is blank."""
    frames = db.frames
    base = frames.granule_page * PER_PAGE
    row, at = np.nonzero(~frames.is_head.reshape(-1, PER_PAGE)[frames.granule_page])
    index, place = base[row] + at, frames.granule_place[row] + at
    tail = frames.tail[index].astype(np.int64)
    words = frames.raw.data.view(np.uint64).reshape(-1, 4)[index]
    bits = frames.raw.layout.bits["tail"]
    shift = np.uint64(bits.offset * 8 + bits.shift)
    rest = words[:, 1:].any(axis=1) | (words[:, 0] != tail.astype(np.uint64) << shift)
    rest &= frames.kind[index] == 0
    head = index - np.minimum(tail, at)
    order = np.minimum(frames.order[head], GRANULE_ORDER).astype(np.int64)
    good = (tail == 0) | ((tail <= at) & frames.is_head[head] & (tail < np.int64(1) << order))

    def wrong_tail(i: int) -> Violation:
        text = f"descriptor {int(index[i]):#x}: tail {int(tail[i])}, but no block's head is there"
        return Violation("A2", text, mfn=int(place[i]))

    def not_blank(i: int) -> Violation:
        what = "a tail" if tail[i] else "a page without a frame"
        return Violation(
            "A2", f"descriptor {int(index[i]):#x} of {what} is not blank", mfn=int(place[i])
        )

    out.each("A2", np.flatnonzero(~good), wrong_tail)
    out.each("A2", np.flatnonzero(good & rest), not_blank)
    counts = np.bincount(head[good & (tail > 0)], minlength=frames.count)
    inner = frames.inner_heads
    want = (np.int64(1) << np.minimum(frames.order[inner], GRANULE_ORDER).astype(np.int64)) - 1
    short = inner[(counts[inner] != want) & (frames.order[inner] < GRANULE_ORDER)]

    def few(i: int) -> Violation:
        text = f"{int(counts[i])} tails lead to it, should be {(1 << int(frames.order[i])) - 1}"
        return frame(db, "A2", i, text)

    out.each("A2", short, few)


def _a2_blocks(db: Database, out: Report) -> None:
    """Blocks of order 7 and up: the tree leads to them from all their pages, from 512 MiB at once where they have so many."""
    frames, tree = db.frames, db.tree
    outer = frames.outer_heads
    order = np.minimum(frames.order[outer], GIB_ORDER).astype(np.int64)
    want = np.int64(1) << (np.maximum(order, GRANULE_ORDER) - GRANULE_ORDER)
    short = np.flatnonzero(frames.block_granules != want)

    def few(i: int) -> Violation:
        text = f"the tree leads to it from {int(frames.block_granules[i])} x 512 KiB, should be {int(want[i])}"
        return frame(db, "A2", int(outer[i]), text)

    out.each("A2", short, few)
    whole = frames.order[outer] >= SPAN_ORDER
    odd = np.zeros(len(outer), bool)
    for place in (frames.outer_places, frames.outer_places + (np.int64(1) << order) - 1):
        row = np.searchsorted(tree.spans, place >> SPAN_ORDER)
        odd |= tree.from_top[np.minimum(row, len(tree.spans) - 1)] != whole
    text = "an entry of the tree for 512 MiB leads to blocks of that size, and only to these"
    out.each("A2", outer[odd], lambda i: frame(db, "A2", i, text))
    used = np.flatnonzero(frames.objects.used.reshape(-1))
    index = frames.objects.index_of(used)
    lost = index[~frames.is_head[index] & (index > frames.orders)]

    def unfound(i: int) -> Violation:
        text = f"descriptor {i:#x} is in use, but the tree does not lead to it"
        kind = db.kind_name(int(frames.kind[i]))
        return Violation(
            "A2", f"{text} ({kind}, order {int(frames.order[i])})", mfn=int(frames.mfn[i])
        )

    out.each("A2", lost, unfound)


def _a2_rings(db: Database, out: Report) -> None:
    frames, rings = db.frames, db.rings
    first = len(rings.marks)
    ring = rings.ring[first:]
    bad = np.flatnonzero(ring != frames.order[frames.heads])

    def describe(i: int) -> Violation:
        where = "no ring" if ring[i] == NONE else f"the ring of order {int(ring[i])}"
        return frame(
            db, "A2", int(frames.heads[i]), f"hangs in {where}, should be that of its order"
        )

    out.each("A2", bad, describe)


HEADED = (2, 3, 6)  # words of struct arena_page that an empty page uses

# --- A3: links ---------------------------------------------------------------------------------------


def a3(db: Database, out: Report) -> None:
    """Rings and lists of pages; the other lists were judged when they were decoded."""
    _a3_rings(db, out)
    frames, maps = db.frames, db.mappings
    for name, objects in (
        ("ARENA_FRAMES", frames.objects),
        ("ARENA_MAPPINGS", maps.objects),
        ("ARENA_SPACES", db.spaces.objects),
    ):
        pool = db.pool(name)
        partial = objects.pages[(~objects.used).any(axis=1) & pool.ok[objects.pages]]
        page_list(pool, pool.partial, partial, db.header, "partly used", out)
        off_list(pool, np.setdiff1d(objects.pages, partial), db.header, out)
    pool = db.pool("ARENA_FRAMES")
    page_list(pool, pool.empty, frames.empty_pages, db.header, "empty", out)
    words = pool.data[frames.empty_pages].view(np.uint32)
    words[:, HEADED] = 0  # next, prev, magic
    rest = words.any(axis=1)
    for page in frames.empty_pages[rest][:50].tolist():
        out.add("A3", f"frames: empty page {page} is not blank", va=pool.va_of_page(page))
    _a3_slots(db, out)
    _a3_windows(db, out)


def _a3_rings(db: Database, out: Report) -> None:
    frames, rings = db.frames, db.rings
    nodes = rings.nodes

    def name(at: int) -> str:
        index = int(nodes[at])
        if rings.is_mark[at]:
            return f"head of the ring of order {index - 1}"
        return frame_text(db, index)

    def text(at: int, link: str, back: str, values: np.ndarray, target: np.ndarray) -> Violation:
        index, to = int(nodes[at]), int(target[at])
        if to == NONE:
            why = "which is no block"
        else:
            have = int(getattr(frames, back)[nodes[to]])
            why = f"{name(to)}, whose {back} is {have:#x}"
        mfn = None if rings.is_mark[at] else int(frames.mfn[index])
        return Violation("A3", f"{name(at)}: {link} is {int(values[index]):#x}, {why}", mfn=mfn)

    bad = np.flatnonzero(~rings.forward_ok)
    out.each("A3", bad, lambda i: text(i, "next", "prev", frames.next, rings.after))
    bad = np.flatnonzero(~rings.backward_ok)
    out.each("A3", bad, lambda i: text(i, "prev", "next", frames.prev, rings.before))
    for order in range(rings.count):
        if rings.head[order] != order + 1:
            out.add(
                "A3",
                f"order {order}: head is {int(rings.head[order]):#x}, should be {order + 1:#x}",
            )
    _a3_last_free(db, out)
    for mark in rings.marks.tolist():
        index = int(nodes[mark])
        words = frames.raw.data[index : index + 1].view(np.uint32)
        if words[[0, 1, 4, 5, 6, 7]].any():
            text_ = f"head of the ring of order {index - 1}: holds more than its links"
            out.add("A3", text_, va=db.pool("ARENA_FRAMES").va(index))
        if rings.ring[mark] != mark:
            out.add("A3", f"the rings of order {int(rings.ring[mark])} and {mark} are one")


def _a3_slots(db: Database, out: Report) -> None:
    """The list of free slots holds exactly those that are free, that of the stock those in stock."""
    slots = db.slots
    lists = (
        ("free", "the list of free ones", slots.free, slots.free_list, "free_slot"),
        ("in stock", "the list of the stock", slots.spare, slots.stock_list, "stock_slot"),
    )
    for state, where, mask, follow, head in lists:
        listed = follow(db.number(head), out)
        unlisted = np.setdiff1d(np.flatnonzero(mask), listed)
        others = listed[~mask[listed]] if len(listed) else listed
        for name, some in (
            (f"is {state}, but not on", unlisted),
            (f"is not {state}, but on", others),
        ):
            for slot in some[:50].tolist():
                out.add("A3", f"slot {slot} {name} {where}", va=slots.tables.va(slot))


def _a3_windows(db: Database, out: Report) -> None:
    """Nothing is mapped in a window behind the pages that its arena has; and each page is a frame of its own."""
    leaves, frames = db.reach.leaves, db.frames
    for name in POOLS:
        pool = db.pool(name)
        start, end = pool.base + pool.pages * PAGE, min(pool.base + pool.limit, (1 << 64) - 1)
        behind = np.flatnonzero(
            (leaves.va >= np.uint64(min(start, end))) & (leaves.va < np.uint64(end))
        )
        if len(behind):
            va = int(leaves.va[behind[0]])
            text = f"{pool.label}: {len(behind)} pages are mapped behind its {pool.pages}"
            out.add("A3", text, va=va, mfn=int(db.reach.leaf_mfn[behind[0]]))
        mfn = pool.mfn[pool.ok]
        index = frames.find(mfn)
        bad = (frames.kind[index] != db.kinds["FRAME_METADATA"]) | (frames.order[index] != 0)
        for i in np.flatnonzero(bad)[:50].tolist():
            what = frame_text(db, int(index[i])) if index[i] else "no frame"
            page = int(np.flatnonzero(pool.ok)[i])
            text = f"{pool.label}: page {page} is {what}, should be a metadata frame of order 0"
            out.add("A3", text, va=pool.va_of_page(page), mfn=int(mfn[i]))


# --- A4: counts --------------------------------------------------------------------------------------


def _a3_last_free(db: Database, out: Report) -> None:
    """last_free is the free block before the first used one; the head if no block is free."""
    rings, frames = db.rings, db.frames
    for order, mark in enumerate(rings.marks.tolist()):
        want, at = order + 1, mark
        for _ in range(len(rings.after)):
            if not rings.forward_ok[at]:
                return  # said already
            at = int(rings.after[at])
            if rings.is_mark[at] or not frames.is_free[int(rings.nodes[at])]:
                break
            want = int(rings.nodes[at])
        have = int(rings.last_free[order])
        if have != want:
            out.add("A3", f"order {order}: last_free is {have:#x}, should be {want:#x}")


# --- A5 ---------------------------------------------------------------------------------------------


def a5(db: Database, out: Report) -> None:
    """No free block has a free buddy of its size."""
    frames = db.frames
    heads = frames.heads
    ready = frames.is_free[heads] & (frames.kind[heads] == db.kinds["FRAME_AVAILABLE"])
    ready &= frames.order[heads] < GIB_ORDER
    some = heads[ready]
    order = frames.order[some].astype(np.int64)
    mfn = frames.mfn[some].astype(np.int64)
    lower = mfn & (np.int64(1) << order) == 0
    some, order, mfn = some[lower], order[lower], mfn[lower]
    buddy = frames.find(mfn + (np.int64(1) << order))
    same = (buddy > 0) & frames.is_free[buddy] & (frames.order[buddy] == order)
    same &= (frames.kind[buddy] == db.kinds["FRAME_AVAILABLE"]) & (buddy != some)
    same &= frames.mfn[buddy].astype(np.int64) == mfn + (np.int64(1) << order)

    def describe(i: int) -> Violation:
        other = int(frames.mfn[buddy[i]])
        return frame(
            db, "A5", int(some[i]), f"and its buddy {other:#x} are both free, should be one block"
        )

    out.each("A5", np.flatnonzero(same), describe)


RULES = [
    Rule("A2", "a frame is aligned to its order and stands in the structure of its order", a2),
    Rule("A3", "lists are linked both ways, bounded, within their pools", a3),
    Rule("A5", "no two free buddies stand unmerged", a5),
]
