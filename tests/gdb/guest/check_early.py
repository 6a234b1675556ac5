# SPDX-License-Identifier: BSD-2-Clause
# Checks during a healthy boot: no alarm while the manager is being built, nor while other CPUs start.
# guest: mem=128M machine=pc smp=1 cmdline="acpi=off" ramfile=1 stop=none timeout=120
# guest: mem=128M machine=pc smp=4 cmdline="acpi=off" ramfile=1 stop=none timeout=120
import gdb
from inside import check, connect, equal, error_of, json_of, passed, run

connect()
cpus = len(gdb.selected_inferior().threads())
run("ktf-check-at vmap_range every 5")
run("ktf-check-at frame_take every 3")
run("ktf-check-at mm_upkeep")
places = ["vmap_range", "frame_take", "mm_upkeep"]
if cpus > 1:
    run("ktf-check-at *ap_long")
    run("ktf-check-at *ap_high")
    places += ["*ap_long", "*ap_high"]


def at(where: str) -> None:
    """Runs on to there: a violation would stop it elsewhere."""
    gdb.execute(f"tbreak {where}", to_string=True)
    said = run("continue")
    name = gdb.selected_frame().name()
    check(name == where, f"in {name}, not {where}: {said}")


at("map_boot_data")
check("mm_init() is still at work" in error_of("ktf-pt-check"), error_of("ktf-pt-check"))
check("mm_init() is still at work" in error_of("print $ktf_ok()"), error_of("print $ktf_ok()"))
at("arch_load_space")
gdb.execute("finish", to_string=True)
said = ""
for step in range(30):  # to where both witnesses are set, instruction by instruction
    gdb.execute("stepi", to_string=True)
    if gdb.selected_frame().name() != "mm_init":
        gdb.execute("finish", to_string=True)
    try:
        said = run("ktf-pt-check")
        break
    except gdb.error as e:
        check("mm_init() is still at work" in str(e), str(e))
check(said.endswith(": 0 violations\n"), said)
equal(int(gdb.parse_and_eval("mm.live")), 1, "mm.live")
at("ktf_ready")
points = {p["location"]: p for p in json_of("ktf-check-at")["points"]}
equal(list(points), places, "places")
for name in places[2:]:
    check(points[name]["checks"] > 0, str(points))
for name in places[3:]:
    # A CPU that QEMU stops there together with another one is counted again when it goes on.
    check(cpus - 1 <= points[name]["hits"] <= 2 * cpus, str(points))

# Up, the same words are wrong.
for change in ("mm.live = 0", "kernel_cr3 = 0", "mm.magic = 0"):
    name = change.split(" =")[0]
    before = int(gdb.parse_and_eval(name))
    gdb.execute(f"set var {change}", to_string=True)
    check(": 0 violations" not in run("ktf-pt-check"), change)
    gdb.execute(f"set var {name} = {before}", to_string=True)
check(run("ktf-pt-check").endswith(": 0 violations\n"), run("ktf-pt-check"))
passed()
