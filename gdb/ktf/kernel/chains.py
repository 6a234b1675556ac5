# SPDX-License-Identifier: BSD-2-Clause
# Linked lists as arrays: which cycle a node is on, which list a record is on, without following links one by one.
"""Vectorised list walks.

Links are int64 arrays of positions, NONE at an end. Nothing here trusts them: positions outside, loops
and nodes with two predecessors end a walk, and every walk has a bound.
"""

from __future__ import annotations

import numpy as np

NONE = -1
STARTS = 8192  # walks that run side by side


def cycles(link: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """For each node the number of the mark whose cycle it is on, NONE if it is on none's.

    link must be a permutation (every node the successor of exactly one); marks are positions. Of two
    marks on one cycle the lower number counts. The cycles are cut at STARTS nodes, and all pieces are
    followed side by side: a million nodes take some hundred steps.
    """
    count = len(link)
    stride = max(count // STARTS, 1)
    starts = np.unique(np.concatenate([marks, np.arange(0, count, stride)])).astype(np.int64)
    number = np.full(count, NONE, np.int32)
    number[starts] = np.arange(len(starts))
    piece = number.copy()  # the start whose piece a node is on
    following = np.full(len(starts), NONE, np.int64)
    active = np.arange(len(starts))
    at = starts
    while len(active):
        at = link[at]
        ended = number[at] >= 0
        if ended.any():
            following[active[ended]] = number[at[ended]]
            active, at = active[~ended], at[~ended]
        piece[at] = active
    return _marked(piece, following, number[marks])


def _marked(piece: np.ndarray, following: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """From pieces to marks: follows the pieces of each mark's cycle."""
    owner = np.full(len(following) + 1, NONE, np.int64)
    after = following.tolist()
    for mark, at in enumerate(marks.tolist()):
        while owner[at] == NONE:
            owner[at] = mark
            at = after[at]
    return owner[piece]


def heads_of(before: np.ndarray) -> np.ndarray:
    """For each node the first one of its list; NONE where the list has no first one (a loop).

    before is the node's predecessor, NONE for a first one. Distances double in each round, so that a list
    of a million takes twenty rounds; those that have arrived are left out.
    """
    active = np.flatnonzero(before != NONE)
    head = np.arange(len(before), dtype=before.dtype)
    head[active] = before[active]
    for _ in range(len(before).bit_length() + 1):
        if not len(active):
            return head
        head[active] = head[head[active]]
        active = active[before[head[active]] != NONE]
    head[active] = NONE
    return head


def follow(link: list[int], start: int, bound: int) -> tuple[list[int], str]:
    """One list, node by node, for lists that are short: the nodes, and why it ended early ("" if it did not)."""
    seen: list[int] = []
    known: set[int] = set()
    at = start
    while at != NONE:
        if not 0 <= at < len(link):
            return seen, "outside"
        if at in known or len(seen) > bound:
            return seen, "loop"
        known.add(at)
        seen.append(at)
        at = link[at]
    return seen, ""
