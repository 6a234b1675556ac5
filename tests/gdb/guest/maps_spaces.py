# SPDX-License-Identifier: BSD-2-Clause
# ktf-maps with user spaces and large pages, in the middle of the guest's own tests: QEMU sees the same.
# guest: mem=128M ramfile=1 cmdline="test=mm_spaces" stop=reset
# guest: mem=256M machine=q35 ramfile=0 cmdline="test=mm_part_of_large_page" stop=reset
import json

import gdb
from inside import check, equal, info_tlb, leaves, passed, run, same_lines

for place in ("mm_check", "vunmap_part"):
    gdb.execute(f"hbreak {place}", to_string=True)
spaces: list[str] = []
large = False
for _ in range(8):
    try:
        gdb.execute("continue", to_string=True)
    except gdb.error:
        break
    if gdb.selected_thread() is None:
        break  # the guest has ended
    same_lines(leaves("--space cr3"), info_tlb())
    ranges = json.loads(run("ktf-maps --json"))["ranges"]
    found = list(dict.fromkeys(r["space"] for r in ranges))
    large |= any(r["page"] == "2M" for r in ranges)
    check("!" not in run("ktf-maps"), run("ktf-maps")[-500:])
    if len(found) == 4:
        spaces = found
        user = [r for r in ranges if r["space"] != "kernel"]
        equal([int(r["va"], 16) for r in user], [0xC00000, 0x800000, 0x400000], "newest first")
        equal({r["pa"] for r in user}, {user[0]["pa"]}, "all of the same frame")
        for r in user:
            equal((r["perm"], r["type"], r["page"], r["size"]), ("rw--", "WB", "4K", 4096), str(r))
        # The second one is loaded: its own half by its name, all of it by CR3.
        equal(
            leaves(f"--space {found[2]}"), [x for x in info_tlb() if x.startswith("0")], "own half"
        )
        text = run("ktf-maps 0x800000")
        check(f"in {found[2]}:" in text and user[0]["pa"] in text, text)
        check("not mapped" in run("ktf-maps 0x400000"), "another space's page is seen")
        check("not mapped" not in run(f"ktf-maps 0x400000 --space {found[3]}"))
        check("can't be executed: level" in text, text)
        cut = "ktf-maps --leaves --range 0x400000 +0x800000"
        equal(run(cut).count("\n"), 2)
        equal(run(f"{cut} --filter w,!x,wb,4k,available"), run(cut))
        equal(
            run(f"{cut} --filter w,x") + run(f"{cut} --filter u,w") + run(f"{cut} --filter 2m"), ""
        )
        break
check(len(spaces) == 4 or large, f"neither spaces nor large pages: {spaces}")
passed()
