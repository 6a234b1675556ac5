# SPDX-License-Identifier: BSD-2-Clause
# Each planted bug is reported by its rule, at its place, and by no rule that it does not break.
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=P1"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=P2"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=P3"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=P4"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=P5"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=P6"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=P7"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=T1"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=T2"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=T3"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=T4"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=T5"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=T6"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=T7"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=A1"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=A2"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=A3"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=A4"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=A5"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=A6"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=M1"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=M2"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=X1"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=X2"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=X3"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=B1"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=C1"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=C2"
# guest: mem=128M machine=pc uefi=0 ramfile=1 cmdline="plant=X1 plant=M2 plant=A4"
import re
from typing import Any

import gdb
from inside import check, equal, error_of, json_of, passed, run

# Where the plants work (tests/guest/plant.c), and a page above.
KERNEL, USER = 0xFFFFC07000000000, 0x40000000
PAGE, LARGE, HUGE = 1 << 12, 1 << 21, 1 << 30

# What it breaks besides (docs/invariants.md says why), the address and level named, and what else must be so.
ALSO = {"P1": "P4", "P2": "P4", "T6": "T2 T3", "X2": "P4"}
PLACES = {
    "P1": (KERNEL + PAGE, 1),
    "P2": (KERNEL + PAGE, 1),
    "P3": (KERNEL, 1),
    "P4": (KERNEL + PAGE, 1),
    "P5": (KERNEL, 1),
    "T1": (USER + LARGE, 2),
    "T2": (USER, 2),
    "T3": (USER + LARGE, 2),
    "T4": (KERNEL, 1),
    "T5": (USER, 1),
    "T6": (USER + HUGE, 3),
    "T7": (USER + LARGE, 1),
    "M1": (KERNEL, 1),
    "M2": (KERNEL + PAGE, 1),
    "X1": (KERNEL, 1),
    "X2": (KERNEL, 1),
}


def descriptor(mfn: int) -> gdb.Value:
    """The frame_t of a page."""
    return gdb.parse_and_eval(f"$ktf_frame({mfn << 12:#x})").dereference()


def named(rule: str, violation: dict[str, Any]) -> None:
    """The frame that a violation names is the one that was broken."""
    mfn = int(violation["mfn"], 16) if violation["mfn"] else 0
    if rule in ("P2", "A5", "B1"):
        equal((int(descriptor(mfn)["refcount"]), int(descriptor(mfn)["mapcount"])), (0, 0), rule)
    elif rule == "P4":
        equal((int(descriptor(mfn)["refcount"]), int(descriptor(mfn)["mapcount"])), (1, 0), rule)
    elif rule == "P6":
        equal(int(descriptor(mfn)["mapcount"]), 2, rule)
    elif rule == "P7":
        equal(int(descriptor(mfn)["mapcount"]), 1, rule)
    elif rule in ("P1", "A1"):
        equal(int(gdb.parse_and_eval(f"$ktf_frame({mfn << 12:#x})")), 0, rule)
    elif rule == "T4":
        equal(mfn << 12, int(gdb.parse_and_eval("(unsigned long)$cr3")), rule)
    elif rule == "C1":
        equal(mfn << 12, int(gdb.parse_and_eval("(unsigned long)$cr3")), rule)
    elif rule == "A6":
        equal(int(descriptor(mfn)["kind"]), int(gdb.parse_and_eval("FRAME_ACPI")), rule)
    elif rule == "A2":
        frame = descriptor(mfn)
        base = gdb.parse_and_eval("(frame_t *)mm.arena[ARENA_FRAMES].base")
        neighbour = base[int(frame["prev"])]
        check(int(frame["order"]) == 0 and int(neighbour["order"]) == 1, rule)
    elif rule == "A3":
        base = gdb.parse_and_eval("(frame_t *)mm.arena[ARENA_FRAMES].base")
        frame = descriptor(mfn)
        index = int(frame.address - base)
        wrong = int(base[int(frame["next"])]["prev"]) != index
        check(wrong or int(base[int(frame["prev"])]["next"]) != index, rule)
    elif rule in ("T1", "X1", "T2", "T3", "T7", "M1", "M2", "X2", "X3"):
        check(mfn, rule)


command_line = gdb.parse_and_eval("boot_info.cmdline").string()
KEYS = "schema command ok counts total violations in_progress unsettled notes seconds".split()
COUNTS = "entries leaves frames mappings spaces".split()
VIOLATION = "rule space va level entry mfn message".split()

planted = re.findall(r"plant=(\w+)", command_line)
rule = planted[0]
answer = json_of("ktf-pt-check")
equal((list(answer), list(answer["counts"])), (KEYS, COUNTS), "keys")
equal({tuple(v) for v in answer["violations"]}, {tuple(VIOLATION)}, "keys of violations")
if len(planted) > 1:  # each finds its own
    equal({v["rule"] for v in answer["violations"]}, set(planted), command_line)
    passed()
    gdb.execute("quit")
found = {v["rule"] for v in answer["violations"]}
print(run("ktf-pt-check"))
check(rule in found, f"{rule} is not reported: {answer['violations']}")
check(found <= {rule, *ALSO.get(rule, "").split()}, f"{found} are reported: {answer['violations']}")
equal(answer["total"], len(answer["violations"]), "total")
equal(int(gdb.convenience_variable("ktf_violations")), answer["total"], "$ktf_violations")
equal(int(gdb.parse_and_eval("$ktf_ok()")), 0, "$ktf_ok()")
mine = [v for v in answer["violations"] if v["rule"] == rule]
if rule in PLACES:
    places = [(int(v["va"], 16), v["level"]) for v in mine if v["va"]]
    check(PLACES[rule] in places, f"{PLACES[rule]} is not among {places}")
elif rule == "X3":
    guard = int(gdb.parse_and_eval("stacks[0].bottom.v")) - PAGE
    equal([int(v["va"], 16) for v in mine], [guard], rule)
elif rule == "C2":
    equal([int(v["va"], 16) for v in mine], [int(gdb.parse_and_eval("(unsigned long)&mm"))], rule)
else:
    check(all(v["va"] is None for v in mine), str(mine))
for violation in mine:
    named(rule, violation)
    check(len(violation["message"]) > 10, str(violation))
if rule == "A4":
    check("order 3" in mine[0]["message"], str(mine))

# The lines are these, and the last one counts them.
lines = run("ktf-pt-check").strip().splitlines()
equal(len(lines), answer["total"] + 1, "lines")
check(lines[-1].endswith(f": {answer['total']} violations"), lines[-1])
check(all(v["message"] in text for v, text in zip(answer["violations"], lines)), str(lines))

# Alone, the rule finds the same; another finds nothing.
alone = json_of(f"ktf-pt-check --rule {rule}")
equal(alone["violations"], mine, "alone")
other = "A5" if rule != "A5" else "A4"
check(run(f"ktf-pt-check --rule {other}").strip().endswith(": 0 violations"), other)

# ktf-frame shows the frame as it is, broken or not; never nothing at all.
for violation in mine:
    if violation["mfn"] is None:
        continue
    where = f"ktf-frame --mfn {violation['mfn']}"
    if rule in ("P1", "A1"):
        check("no frame" in error_of(where), error_of(where))
        continue
    text = run(where)
    check("frame 0x" in text and "merging" in text, text)
    check(f"  ! {rule}: " in text or rule in ("C1", "C2"), f"{where} does not name {rule}: {text}")
    if rule in ("P2", "P4"):
        check("without a record" in text, text)
    if rule == "P5":
        check("! record" in text and "should be" in text, text)
    if rule == "A5":
        check("BROKEN (A5)" in text, text)
    if rule == "T7":
        check("not reached" in text, text)
    if rule == "A3":
        check("merging" in text, text)
passed()
