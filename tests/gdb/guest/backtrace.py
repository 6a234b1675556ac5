# SPDX-License-Identifier: BSD-2-Clause
# bt goes from wherever an exception's entry is stopped to the code that it met, and ends where stacks begin.
# guest: mem=128M machine=pc smp=2 stop=reset timeout=120 cmdline="acpi=off test=trap_null,user_own_pages,user_faults,shootdown_unmap"
"""Each entry is gone through by single instructions, the way in and the way out, with a look at the whole stack at each."""

from __future__ import annotations

from dataclasses import dataclass

import gdb
from inside import check, equal, json_of, passed, run

STEPS = 60  # of an entry or an exit, at most
HANDLER = "<signal handler called>"
BAD = ("corrupt stack", "previous frame", "Backtrace stopped", "Cannot access", "in ?? ()")


@dataclass(frozen=True)
class Frame:
    """One of a backtrace. line: "" where the symbols know none."""

    name: str
    line: str


def number(expression: str) -> int:
    """A value of the guest."""
    return int(gdb.parse_and_eval(f"(unsigned long)({expression})"))


def stack() -> list[Frame]:
    """All frames, innermost first; the walk must end because a frame says that it is the last."""
    frames, at = [], gdb.newest_frame()
    while at is not None:
        handler = at.type() == gdb.SIGTRAMP_FRAME
        place = at.find_sal()
        line = f"{place.symtab.filename}:{place.line}" if place.symtab and not handler else ""
        frames.append(Frame(HANDLER if handler else at.name() or "??", line))
        last, at = at, at.older()
    if frames[-1] == Frame("??", "") and last.pc() == 0:
        return frames[:-1]  # below ring 3
    reason = gdb.frame_stop_reason_string(last.unwind_stop_reason())
    equal(last.unwind_stop_reason(), gdb.FRAME_UNWIND_OUTERMOST, f"{frames}: {reason}")
    return frames


def names() -> list[str]:
    """Of the functions."""
    return [f.name for f in stack()]


def text_is_clean() -> None:
    """What the user sees says nothing of trouble."""
    text = run("bt")
    for words in BAD:
        check(words not in text, text)


def stop_at(where: str, condition: str = "") -> None:
    """Runs to an address, with nothing else set."""
    run("delete")
    run(f"hbreak {where}" + (f" if {condition}" if condition else ""))
    run("continue")
    run("delete")


def pc() -> int:
    """Where the selected CPU is."""
    return number("$pc")


def inside(function: str) -> bool:
    """Whether it is in that function."""
    block = gdb.newest_frame().name()
    return block == function


def entry(vector: int, condition: str = "") -> list[Frame]:
    """From the first instruction of a vector's stub into trap_handle(): the same stack below at each. What is below."""
    stop_at(f"*((char *)&vector_stubs + {16 * vector})", condition)
    below = stack()
    equal(below[0].name, HANDLER, "the entry's own frame")
    for _ in range(STEPS):
        if inside("trap_handle"):
            break
        equal(stack()[-len(below) :], below, f"at {pc():#x}")
        run("stepi")
    check(inside("trap_handle"), f"the entry did not end: {stack()}")
    found = stack()
    equal([f.name for f in found[:2]], ["trap_handle", HANDLER])
    equal(found[2:], below[1:], "seen from trap_handle()")
    return below[1:]


def leave(callers: list[Frame]) -> None:
    """Out of trap_handle() and to where the exception ends, whose callers are these: the same at each instruction."""
    stop_at(f"*{gdb.newest_frame().older().pc():#x}", f"$_thread == {number('$_thread')}")
    to = number("((struct trap_frame *)$rsp)->rip")
    for _ in range(STEPS):
        if pc() == to:
            break
        equal(stack()[2:], callers, f"at {pc():#x}")
        run("stepi")
    equal(pc(), to, "the exception's end")
    equal(stack()[1:], callers, "after it")


def starts() -> None:
    """The boot CPU and another one, at their first function: the stack begins there."""
    stop_at("kernel_main")
    equal(names(), ["kernel_main", "boot_start"])
    text_is_clean()
    stop_at("*&ap_high")
    equal(number("$_thread"), 2)
    for _ in range(STEPS):
        if inside("ap_main"):
            break
        equal(names(), ["ap_high"])
        run("stepi")
    equal(names(), ["ap_main", "ap_high"])
    text_is_clean()


def page_fault() -> None:
    """A fault with an error code, in a kernel function whose frame is not yet made."""
    below = entry(14, "$_thread == 1")
    equal([f.name for f in below[:2]], ["probe_read", "test_trap_null"])
    equal(below[-1].name, "stack_switch")
    said = run("bt")
    check(" test_trap_null () at tests/guest/traps.c:33" in said, said)
    text_is_clean()
    found = json_of("ktf-postmortem")
    equal([(f["name"], f["address"]) for f in found["chain"]], [("#PF", "0x0")])
    words = "it was handling #PF reading 0x0 in probe_read at arch/x86/probe.S:"
    check("has not crashed" in found["cause"] and words in found["cause"], found["cause"])
    leave(below[1:])


def from_ring_3() -> None:
    """By a fault and by int $0x80: the kernel's stack ends with the user's code, which has no caller. And the way there."""
    stop_at("user_enter")
    below = stack()
    while number("$cs") & 3 == 0:
        check(inside("user_enter"))
        equal(stack()[1:], below[1:], f"at {pc():#x}")
        run("stepi")
    equal(stack(), [Frame("??", "")])
    for vector, cs in ((0x80, "$rsp + 8"), (14, "$rsp + 16")):
        below = entry(vector, f"*(unsigned long *)({cs}) & 3")
        equal(below, [Frame("??", "")])
        check(0 <= number("((struct trap_frame *)$rdi)->rip") - 0x400000 < 0x1000)
        stop_at("*&user_left")
        for _ in range(STEPS):
            if not inside("user_enter"):
                break
            equal(names()[1:3], ["user_run", "run"], f"at {pc():#x}")
            run("stepi")
        check("user_run" in names()[:2], f"{names()}")


def interrupt() -> None:
    """Another CPU asks this one to flush, in the middle of a function."""
    below = entry(number("VECTOR_SHOOTDOWN"), "$_thread == 2")
    check("watcher" in [f.name for f in below], f"{below}")
    text_is_clean()
    equal([f.name for f in below[-2:]], ["ap_main", "ap_high"])
    leave(below[1:])


starts()
page_fault()
from_ring_3()
interrupt()
passed()
