# SPDX-License-Identifier: BSD-2-Clause
# No false alarm while the guest's own tests run: user spaces, parts of blocks, ranges, all memory in pages.
# guest: mem=128M machine=pc cmdline="test=busy,mm_spaces,mm_part_of_large_page,user_own_pages,user_sees_changes,share_counting,kmalloc_many,mm_all_memory,acpi" ramfile=1 timeout=150
# guest: mem=128M machine=q35 cmdline="test=busy,mm_spaces,mm_part_of_large_page,user_own_pages,user_sees_changes,share_counting,kmalloc_many,mm_all_memory,acpi" ramfile=0 timeout=150
import time

import gdb
from inside import check, equal, passed, run

# At the door of each of these nothing is under way. The guest ends at END, which is not left to each QEMU's own way.
END = "machine_exit"
DOORS = "mm_check space_destroy space_switch vprotect vprotect_part vunmap_part vput_part vput_range".split()
SECONDS, STOPS = 40, 80

for name in (*DOORS, END):
    gdb.Breakpoint(name)
until = time.monotonic() + SECONDS
stops: dict[str, int] = {}
user = 0
while sum(stops.values()) < STOPS and time.monotonic() < until:
    gdb.execute("continue", to_string=True)
    here = gdb.selected_frame().name()
    if here == END:
        break
    check(here in DOORS, f"stopped in {here}")
    text = run("ktf-pt-check")
    check(text.strip().endswith(": 0 violations"), f"in {here}, stop {stops}: {text}")
    user += int(gdb.parse_and_eval("mm.arena[ARENA_SPACES].free")) < 30
    stops[here] = stops.get(here, 0) + 1
print(stops, f"with user spaces: {user}")
check(sum(stops.values()) > 20, "too few stops")
check(user > 0, "no stop with a user space")
equal(set(stops) - set(DOORS), set())
passed()
