# SPDX-License-Identifier: BSD-2-Clause
# ktf-snapshot and ktf-diff around a planted bug: exactly what it did, by whom, and a frame that leaked.
# guest: mem=128M machine=pc ramfile=1 cmdline="plant=T3" stop=reset
# guest: mem=128M machine=pc ramfile=1 cmdline="plant=P4" stop=reset
import gdb
from inside import check, connect, equal, error_of, json_of, passed, run


def at(function: str) -> None:
    """Lets the guest run up to there."""
    gdb.execute(f"hbreak {function}", to_string=True)
    gdb.execute("continue", to_string=True)
    gdb.execute("delete", to_string=True)


check("paging is off" in error_of("ktf-snapshot early"))
check("there is none yet" in error_of("ktf-diff early"))
at("plant_bug")
run("ktf-snapshot before")
check("there are: before" in error_of("ktf-diff early"))
equal(
    run("ktf-diff before").splitlines()[1:],
    ["0 frames got, 0 put; 0 mappings made, 0 gone, 0 changed; 0 counts; 0 held without a mapping"],
)
planted = gdb.parse_and_eval("boot_info.cmdline").string().split("=")[1]
at("ktf_ready")
run("ktf-snapshot after")
found = json_of("ktf-diff before")
equal({**json_of("ktf-diff before after"), "to": "now"}, found, "after is now")
back = json_of("ktf-diff after before")
for one, other in (("frames_got", "frames_put"), ("mappings_made", "mappings_gone")):
    equal(
        [{**row, "by": None} for row in back[other]],
        [{**row, "by": None} for row in found[one]],
        "the way back",
    )

events = json_of("ktf-journal -n 1000")["events"][-found["events"] :]
got = {e["mfn"] for e in events if e["op"] == "get"} - {
    e["mfn"] for e in events if e["op"] == "put"
}
mine = [f for f in found["frames_got"] if f["kind"] == "available"]
equal({f["mfn"] for f in mine}, got, "frames that the journal says were got")
check(all("taken by plant_frame at tests/guest/plant.c:" in f["by"] for f in mine), str(mine))
# What the manager itself took is shown as well: tables and metadata, mapped where it maps them.
own = [f["mfn"] for f in found["frames_got"] if f["kind"] != "available"]
made = {m["mfn"] for m in found["mappings_made"]}
check(set(own) <= made, f"{own} of {made}")
if planted == "T3":
    equal(found["spaces"], ["space planted made"])
    user = [m for m in found["mappings_made"] if m["space"] == "planted"]
    equal([m["mfn"] for m in user], [mine[0]["mfn"]])
    check("mapped by plant_map at" in user[0]["by"], str(user))
    equal(found["held_without_a_mapping"], [])
else:
    held = found["held_without_a_mapping"]
    check(len(held) == 1 and "taken by plant_frame" in held[0]["by"], str(held))
    check("1 held without a mapping" in run("ktf-diff before").splitlines()[-1])
check("now is what" in error_of("ktf-snapshot now"))
run("ktf-snapshot --delete after")
check("there are: before" in error_of("ktf-diff before after"))
gdb.execute("disconnect", to_string=True)
check("no guest" in error_of("ktf-diff before"))
connect()
passed()
