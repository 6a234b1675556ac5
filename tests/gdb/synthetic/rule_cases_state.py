# SPDX-License-Identifier: BSD-2-Clause
# More of rule_cases: the manager's own state, word by word; and what each CPU has of its own.
"""STATE_CASES: as rule_cases.CASES. Each pokes one word that something else tells as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rule_cases import Break
from synthetic import Machine

STATE_CASES: list[tuple[str, str, Break]] = []


def words(rule: str, **members: int) -> None:
    """Members of struct mm overwritten."""

    def broken(m: Machine) -> None:
        m.poke("struct mm", 0, **members)

    broken.__name__ = "_".join(members)
    STATE_CASES.append((rule, "", broken))


def inner(rule: str, member: str, **members: int) -> None:
    """Members of a struct in struct mm overwritten."""

    def broken(m: Machine) -> None:
        m.mm_struct(member, **members)

    broken.__name__ = f"{member}_{'_'.join(members)}"
    STATE_CASES.append((rule, "", broken))


words("A4", zero2=1)
words("A4", live=0)
words("A4", busy=1)
words("A4", checking=1)
words("A4", operations=8)
words("A4", check_every=4)
words("A4", journal_on=2)
words("A4", frame_limit=128)
words("A4", boot_pages=5)
words("A4", journal_seq=65)
words("M2", wb_kinds=0xFFFF7FFF)
inner("A4", "map_lock", rank=3)
inner("A4", "frame_lock", inside=1)
inner("A4", "frame_lock", waiting=2)
inner("A4", "map_lock", sleepers=2)
inner("A4", "batch", zero=1)
inner("A4", "batch", records=4)


def case(rule: str) -> Callable[[Break], Break]:
    """As rule_cases.case, for one rule."""

    def add(function: Break) -> Break:
        STATE_CASES.append((rule, "", function))
        return function

    return add


@case("A4")
def order_zero(m: Machine) -> None:
    """A spare word of an order's list."""
    m.mm_row("order", 2, "zero", 1)


@case("B1")
def round_open(m: Machine) -> None:
    """A CPU has not flushed, and nobody waits for it."""
    m.poke("struct mm", 0, epoch=9)
    m.mm_row("cpu", 0, "asked", 9)
    m.mm_row("cpu", 0, "flushed", 8)


@case("B1")
def epoch_to_come(m: Machine) -> int:
    """A used frame that was unmapped in an epoch to come."""
    m.poke("frame_t", m.page.index, slot=3)
    return m.page.mfn


@case("C1")
def mask_of_cpus(m: Machine) -> None:
    """A space says that a CPU may hold its entries that does not use it."""
    m.poke("space_t", 2, cpus=1)


@case("C1")
def cpu_gone(m: Machine) -> None:
    """A CPU that is not there has a space."""
    m.mm_row("cpu", 5, "space", 1)


@case("A3")
def name_letter(m: Machine) -> None:
    """A name with a character that can't be printed."""
    m.place("space_t", 2)[34] = 0x80


@case("A3")
def space_pad(m: Machine) -> None:
    """A spare byte of a space."""
    m.place("space_t", 3)[124] = 1


@case("A3")
def around_objects(m: Machine) -> None:
    """What lies behind the last record of a page."""
    m.words[m.arena_mfn[1][0]].view(np.uint8)[4094] = 1


@case("C2")
def task_spare(m: Machine) -> None:
    """A spare word of a TSS."""
    m.rows("tss", "struct tss")["reserved1"][0] = 1


@case("C2")
def task_of_nobody(m: Machine) -> None:
    """A stack pointer for a CPU that is not there."""
    m.rows("tss", "struct tss")["rsp"][9, 0] = 1


@case("X3")
def stack_name(m: Machine) -> None:
    """A stack behind the last one."""
    m.rows("stacks", "struct stack_info")["name"][20] = b"x"


@case("X3")
def stack_too_long(m: Machine) -> None:
    """The first stack starts where nothing is mapped."""
    m.rows("stacks", "struct stack_info")["bottom"]["v"][0] -= np.uint64(1 << 30)
