# SPDX-License-Identifier: BSD-2-Clause
# A healthy guest has no violation, on every machine; ktf-frame counts what the guest counts, and finds every mapping.
# guest: mem=128M machine=pc uefi=0 ramfile=1
# guest: mem=128M machine=q35 smp=2 ramfile=0
# guest: mem=128M machine=q35 uefi=1 ramfile=1 timeout=120
# guest: mem=4G machine=pc ramfile=1
# guest: mem=4G machine=q35 uefi=1 ramfile=1 timeout=120
# guest: mem=128M machine=pc cpu=default ramfile=0
import os
import re

import gdb
from inside import check, equal, json_of, passed, run

LAST = re.compile(r"(\d+) entries, (\d+) frames, (\d+) mappings: (\d+) violations\Z")

# The rules, as text and as JSON, together and one by one.
text = run("ktf-pt-check")
last = LAST.match(text.strip())
assert last is not None, text
equal(int(gdb.convenience_variable("ktf_violations")), 0, "$ktf_violations")
answer = json_of("ktf-pt-check")
equal(answer["violations"], [], "violations")
equal(answer["total"], 0)
counts = answer["counts"]
equal([str(counts[n]) for n in ("entries", "frames", "mappings")], list(last.groups()[:3]))
check(counts["leaves"] >= 100 and counts["spaces"] == 1, str(counts))
check(0 <= answer["seconds"] < 10, str(answer["seconds"]))
rules = "P1 P2 P3 P4 P5 P6 P7 T1 T2 T3 T4 T5 T6 T7 A1 A2 A3 A4 A5 A6 X1 C1".split()
for rule in rules:
    check(run(f"ktf-pt-check --rule {rule}").strip().endswith(": 0 violations"), rule)
check(run("ktf-pt-check --rule p1,T3").strip().endswith(": 0 violations"))
equal(int(gdb.parse_and_eval("$ktf_ok()")), 1)

# Frames by order: as the guest printed them itself when it had booted.
with open(os.environ["KTF_SERIAL"], encoding="utf-8", errors="replace") as serial:
    said = serial.read()
theirs = [tuple(map(int, m)) for m in re.findall(r"order (\d+): (\d+) free, (\d+) used", said)]
frames = json_of("ktf-frame")
ours = [(o["order"], o["free"], o["used"]) for o in frames["orders"]]
equal([o for o in ours if o[1] or o[2]], theirs, "orders")
kinds = {m[0]: int(m[1]) for m in re.findall(r"kind (\w+): (\d+) pages used", said)}
equal({k["kind"]: k["used_pages"] for k in frames["kinds"] if k["used_pages"]}, kinds, "kinds")
equal(sum(o[1] + o[2] for o in ours), counts["frames"], "frames")
equal(len(frames["free"]), sum(o[1] for o in ours), "free blocks")
check("free pages" in run("ktf-frame"))

# Every leaf is on the list of its frame: by address, by physical address, by descriptor.
found = 0
leaves = [x for x in json_of("ktf-maps --leaves --space kernel")["leaves"]]
for leaf in leaves[:: max(len(leaves) // 6, 1)]:
    va, pa = int(leaf["va"], 16), int(leaf["pa"], 16)
    answer = json_of(f"ktf-frame --va {va:#x}")
    frame, details = answer["frame"], answer["details"]
    for how in (f"--pa {pa:#x}", f"--mfn {pa >> 12:#x}", details["descriptor"]):
        again = json_of(f"ktf-frame {how}")
        equal((again["frame"], again["details"]), (frame, details), how)
    equal(frame["mapcount"], sum(m["refs"] for m in frame["mappings"]), f"{va:#x}")
    equal(details["unrecorded"], [], f"{va:#x}")
    places = [
        range(int(m["va"], 16), int(m["va"], 16) + more["pages"] * 4096)
        for m, more in zip(frame["mappings"], details["mappings"], strict=True)
    ]
    check(any(va in p for p in places), f"{va:#x} is not among {frame['mappings']}")
    check(not any(m["problem"] for m in details["mappings"]), str(details))
    equal((answer["violations"], answer["notes"]), ([], []), f"{va:#x}")
    pointer = int(gdb.parse_and_eval(f"$ktf_frame({pa:#x})"))
    equal(hex(pointer), details["descriptor"], "$ktf_frame")
    equal(int(gdb.parse_and_eval(f"(long)$ktf_frame({pa:#x})->refcount")), frame["refcount"])
    equal(int(gdb.parse_and_eval(f"$ktf_paddr({va:#x})")), pa, "$ktf_paddr")
    equal(int(gdb.parse_and_eval(f"$ktf_maps_of({pa:#x})")), len(frame["mappings"]))
    found += 1
check(found > 5, "too few leaves")

# The symbols' own things.
root = run("ktf-frame --pa mm.arena[0].base*0 + $cr3")
check("level 4" in root and "it is a root" in root and "reached     as kernel" in root, root)
check("bss" in run("ktf-frame &mm"), run("ktf-frame &mm"))
check("text" in run("ktf-frame ktf_ready"), run("ktf-frame ktf_ready"))

# An empty table that is kept for later is not one that can't be reached. Where CPUs are several, they may have it.
tables = gdb.parse_and_eval("(struct table *)mm.arena[ARENA_TABLES].base")
slot = int(gdb.parse_and_eval("mm.stock_slot"))
check(slot or len(gdb.selected_inferior().threads()) > 1, "no table is in stock")
if slot:
    stock = run(f"ktf-frame (frame_t *)mm.arena[ARENA_FRAMES].base + {tables[slot]['frame']}")
    check(f"page table  in stock, slot {slot}: empty" in stock and "(T7)" not in stock, stock)
device = json_of("ktf-frame 0xfee00000")["frame"]
equal((device["kind"], device["mappings"][0]["type"]), ("device", "UC"))
passed()
