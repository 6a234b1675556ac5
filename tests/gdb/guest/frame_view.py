# SPDX-License-Identifier: BSD-2-Clause
# ktf-frame on one screen: a page of several spaces, parts of a block, many mappings, and what has no frame.
# guest: mem=128M smp=2 ramfile=1 cmdline="test=mm_spaces,mm_thousand_areas"
import re

from inside import check, equal, error_of, json_of, passed, run

LINES = 50  # a screen


def view(where: str) -> str:
    """The text, which fits on a screen."""
    text = run(f"ktf-frame {where}")
    check(text.count("\n") <= LINES, f"ktf-frame {where}: {text.count(chr(10))} lines")
    return text


# Pages of a reserved block, mapped one by one: the one that was asked for comes first and is marked.
text = view("ktf_ready")
check(
    "\nthis is ktf_ready at kernel/main.c:" in text
    and " whole\n" in text
    and ">" not in text.split("mappings")[1],
    text,
)
reserved = next(
    f for f in json_of("ktf-maps --filter reserved")["ranges"] if f["kind"] == "reserved"
)
page = int(reserved["pa"], 16)
text = view(f"--pa {page:#x}")
first = int(re.findall(r"^frame (0x\w+),", text, re.M)[0], 16)
check(
    f"   >kernel     {reserved['va']} " in text and f" page {page // 4096 - first:#x}\n" in text,
    text,
)
free = view(f"--pa {(first << 12) + 0x5000:#x}")
check("; none of page 0x5\n" in free and "   >" not in free, free)

# What has no frame, or no mapping.
check("memory map does not list it, and nobody has asked" in error_of("ktf-frame --pa 0x40000000"))
check("`ktf-journal 0xffffc07000000000` knows" in error_of("ktf-frame 0xffffc07000000000"))

# A page of four spaces.
run("hbreak mm_check")
run("continue")
run("up")
check("mm_spaces" in run("frame"), run("frame"))
text = view("frame")
check("mappings    4, refs together 4, in 4 spaces: " in text, text)
equal(
    len(re.findall(r"^    (?:test#\d|kernel) +0x\w+ +rw|^    kernel +0x\w+ +r-", text, re.M)),
    4,
    text,
)
equal(len(json_of("ktf-frame frame")["frame"]["mappings"]), 4, "in JSON")

# One of a thousand: 20 are shown, the one asked for by its address is on the screen, JSON has all.
run("delete")
run("hbreak vput if frame->mapcount == 1000")
run("continue")
text = view("frame")
check("mappings    1000, refs together 1000\n" in text, text)
check("    ... and 980 more (--json has all)\n" in text, text)
equal(len(re.findall(r"^    kernel +0x\w+ +rw", text, re.M)), 20, text)
equal(len(json_of("ktf-frame frame")["frame"]["mappings"]), 1000, "in JSON")
for number in (0, 500, 999):
    va = 0xFFFFC00000000000 + number * (1 << 21)
    text = view(f"{va + 0x123:#x}")
    marked = [line for line in text.splitlines() if line.startswith("   >")]
    check(len(marked) == 1 and f" {va:#x} " in marked[0], f"{va:#x}: {text}")
passed()
