# SPDX-License-Identifier: BSD-2-Clause
# $ktf_ok() and the others in breakpoint conditions: true stops, false runs on, and one that fails stops and says why.
# guest: mem=128M smp=2 ramfile=1 stop=reset cmdline="test=mm_all_unmapped"
import re

import gdb
from inside import check, passed, run


# GDB's line on a condition that fails, in the words of whichever release; why stands in the next one.
FAILED = re.compile(r"^.*\bError in testing .*\bcondition\b.*\n(.*)$", re.M)


def go(place: str, condition: str, *words: str, language: str = "auto") -> None:
    """Lets the guest run to a place with a condition. It must stop there; words must be said, and no others."""
    run(f"set language {language}")
    run(f"hbreak {place} if {condition}")
    run("set language auto")
    said = run("continue")
    check(f"{place} (" in run("frame"), f"{condition}: {run('frame')} {said}")
    check("Traceback" not in said and "internal error" not in said, f"{condition}: {said}")
    if words:
        match = FAILED.search(said)
        check(match, f"{condition}: {said}")
        message = match[1] if match else ""
        for word in words:
            check(word in message, f"{condition}: {word!r} is not in {message!r}")
    else:
        check("Error" not in said, f"{condition}: {said}")
    check("already hit 1 time" in run("info breakpoints"), run("info breakpoints"))
    run("delete")


# Before the memory manager is set up; one that holds; one that does not is passed by, and the next breakpoint hit.
go(
    "mm_init",
    "!$ktf_ok()",
    "$ktf_ok: no frame database: the kernel has no frames yet: mm_init() has not run",
)
go("kernel_late", "$ktf_frame(&mm)->refcount == 1")
go(
    "smp_start",
    "$ktf_frame(0xffffc0ff00000000)->refcount > 3",
    "$ktf_frame: 0xffffc0ff00000000 is not mapped",
)
run("hbreak mm_print if !$ktf_ok() || $ktf_maps_of(&mm) != 1 || $ktf_paddr(0) != -1")
# Without a frame there; in another language; with arguments that make no sense.
go("ktf_ready", "$ktf_frame(0x123456789)->refcount == 0", "Cannot access memory at address 0x10")
go("get_frame", "$ktf_frame(256)^.refcount = 1", language="pascal")
go(
    "get_frame",
    "$ktf_frame()",
    "$ktf_frame: wrong number of arguments; see `help function ktf_frame`",
)
go("get_frame", "$ktf_ok(1)", "$ktf_ok: wrong number of arguments")
# Memory that can't be read as it should, or holds something else.
run("set ktf reader core")
go("get_frame", "$ktf_ok()", "$ktf_ok: can't read by core: the guest is live")
run("set ktf reader auto")
magic = int(gdb.parse_and_eval("mm.magic"))
run("set var mm.magic = 17")
go("get_frame", "!$ktf_ok()")
for function in ("$ktf_frame(256)", "$ktf_maps_of(256)"):
    go(
        "get_frame",
        function,
        function.split("(")[0],
        "holds 1100000000000000, not its magic number",
    )
run(f"set var mm.magic = {magic}")
first = run("print/d mm.space_list").split()[-1]
run("set var mm.space_list = 0")
go("get_frame", "!$ktf_ok()")
run(f"set var mm.space_list = {first}")
go("get_frame", "$ktf_ok()")
passed()
