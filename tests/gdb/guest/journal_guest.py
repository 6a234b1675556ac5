# SPDX-License-Identifier: BSD-2-Clause
# ktf-journal on CPUs at work: the events are those that GDB itself reads, in one order, each with its caller.
# guest: mem=128M machine=pc smp=3 cmdline="test=stress stress-ops=100000" ramfile=1

import gdb
from inside import check, equal, error_of, interrupt_after, json_of, passed, run

EVERYTHING = 100000


def at_work(seconds: float) -> None:
    """Lets the guest run, and stops it."""
    interrupt_after(seconds)
    try:
        gdb.execute("continue", to_string=True)
    except KeyboardInterrupt:
        pass


def read_by_gdb() -> dict[int, tuple[int, ...]]:
    """Number -> CPU and members of each event, without our code."""
    found = {}
    kind = gdb.lookup_type("struct journal_event")
    names = ("seq", "op", "count", "refcount", "mapcount", "caller")
    fields = [(kind[n].bitpos // 8, kind[n].bitpos // 8 + kind[n].type.sizeof) for n in names]
    for cpu in range(3):
        start = int(gdb.parse_and_eval(f"(unsigned long)journal_ring[{cpu}]"))
        size = int(gdb.parse_and_eval("JOURNAL_BYTES"))
        ring = gdb.selected_inferior().read_memory(start, size).tobytes()
        for at in range(0, size, kind.sizeof):
            members = [int.from_bytes(ring[at + a : at + b], "little") for a, b in fields]
            if members[0]:
                found[members[0] // kind.sizeof] = (cpu, *members[1:])
    return found


# The boot's: a caller's line is its function's, not that of a header whose code was inlined before it.
image = {e["by"] for e in json_of(f"ktf-journal -n {EVERYTHING}")["events"]}
image = {by for by in image if by.startswith("map_section ")}
check(image and all(" at mm/init.c:" in by for by in image), f"{image}")

at_work(1)
answer = json_of(f"ktf-journal -n {EVERYTHING}")
ours, theirs = answer["events"], read_by_gdb()
operations = {
    f.name[8:].lower().replace("_", " "): int(f.enumval)
    for f in gdb.lookup_type("enum journal_op").fields()
}
for event in ours:
    members = [event[n] for n in ("count", "refcount", "mapcount")]
    mine = (event["cpu"], operations[event["op"]], *members, int(event["caller"], 16))
    equal(mine, theirs[event["number"]], str(event))
    check(event["by"].split(" at ")[-1].count(":") == 1, f"no line: {event}")
numbers = [e["number"] for e in ours]
check(numbers == sorted(set(numbers)), "order")
check(len({e["cpu"] for e in ours}) > 1, "one CPU alone")
check(len(theirs) - len(ours) <= 3, f"{len(theirs)} events, but {len(ours)} shown")
equal(ours[-1]["ago"], int(gdb.parse_and_eval("mm.journal_seq / JOURNAL_STEP")) - numbers[-1])
check({"get", "put", "map", "unmap"} < {e["op"] for e in ours}, "operations")

# Of a frame and of an address: those that name it, no others.
mapped = [e for e in ours if e["op"] == "map" and e["order"] == 0][-1]
here = [e for e in ours if e["va"] == mapped["va"]]
found = json_of(f"ktf-journal {mapped['va']} -n {EVERYTHING}")["events"]
check([e for e in found if e["va"] == mapped["va"]] == here, f"{mapped}: {found}")
check(all(int(e["va"], 16) <= int(mapped["va"], 16) for e in found), str(found))
found = json_of(f"ktf-journal --mfn {mapped['mfn']} -n {EVERYTHING}")["events"]
check(mapped in found, f"{mapped} is not among {found}")
for event in found:
    if event["op"] not in ("map range", "put range", "split", "merge"):
        first, size = int(event["mfn"], 16), 1 << event["order"]
        check(
            first <= int(mapped["mfn"], 16) + 1023 and first + size > int(mapped["mfn"], 16) - 1023
        )

lines = run("ktf-journal -n 7").splitlines()
equal(len([line for line in lines if not line.startswith("!")]), 8, "lines of -n 7")
check("needs a value" in error_of("ktf-journal -n"))
gdb.execute("detach", to_string=True)
check("no guest" in error_of("ktf-journal"))
passed()
