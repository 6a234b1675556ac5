# SPDX-License-Identifier: BSD-2-Clause
# ktf-check-at and the functions as conditions: they stop at the first violation, at no other place, and run on before.
# guest: mem=128M machine=pc smp=1 cmdline="test=mm_thousand_areas" ramfile=1 stop=none timeout=90
# guest: mem=128M machine=pc smp=2 cmdline="test=mm_thousand_areas" ramfile=0 stop=none timeout=120
import gdb
from inside import check, connect, equal, error_of, json_of, passed, run

connect()
for line, word in (
    ("ktf-check-at no_such_function", "no such place"),
    ("ktf-check-at put_frame every", "positive number"),
    ("ktf-check-at put_frame every 0", "positive number"),
    ("ktf-check-at put_frame every x", "positive number"),
    ("ktf-check-at put_frame --rule Z1", "no rule Z1"),
    ("ktf-check-at every 5", "no LOCATION"),
    ("ktf-check-at --rule P1", "goes with LOCATION"),
    ("ktf-check-at --often", "no option --often"),
):
    check(word in error_of(line), f"{line}: {error_of(line)}")
equal(json_of("ktf-check-at")["points"], [], "none yet")
check("nothing is checked" in run("ktf-check-at"), "none yet")


class Bug(gdb.Breakpoint):
    """At its 40th hit one counter becomes wrong."""

    hits = 0

    def stop(self) -> bool:
        """Goes on in any case."""
        self.hits += 1
        if self.hits == 40:
            gdb.execute("set var mm.order[3].free = mm.order[3].free + 1")
        return False


run("ktf-check-at vput --rule A4")
run("ktf-check-at get_frame every 2 --rule A4,P1")
bug = Bug("vmap_kern")
run("ktf-check-at vmap_kern every 6")
gdb.execute("continue")
equal(gdb.selected_frame().name(), "vmap_kern", "where it stopped")
check(40 <= bug.hits <= 47, f"stopped at hit {bug.hits}, the bug was at 40")
check(int(gdb.convenience_variable("ktf_violations")) > 0, "$ktf_violations")
check("A4: order 3: free is" in run("ktf-pt-check"), run("ktf-pt-check"))
points = json_of("ktf-check-at")["points"]
equal(
    [(p["location"], p["every"]) for p in points],
    [("vput", 1), ("get_frame", 2), ("vmap_kern", 6)],
    "points",
)
equal(points[2]["hits"], 42, "hits")
for p in points:
    check(p["checks"] <= p["hits"] // p["every"], str(p))  # less: nothing was there to check
check(points[2]["checks"] in (5, 6, 7), str(points))
check("at vmap_kern every 6: 42 hits, " in run("ktf-check-at"), run("ktf-check-at"))

# Mended, it runs on; deleted, it is gone.
gdb.execute("set var mm.order[3].free = mm.order[3].free - 1")
check(": 0 violations" in run("ktf-pt-check"), "mended")
for p in points:
    gdb.execute(f"delete {p['number']}")
equal(json_of("ktf-check-at")["points"], [], "deleted")

# Functions as conditions; the thread and frame that the user selected stay.
bug.delete()
gdb.execute("break vmap_kern if $ktf_maps_of(&mm) == 0 || $ktf_paddr(&mm) == -1 || !$ktf_ok()")
gdb.execute("tbreak vmap_kern if frame && $ktf_frame(frame) == frame && $ktf_maps_of(frame) > 60")
thread = gdb.selected_thread().num
gdb.execute("continue")
equal(gdb.selected_frame().name(), "vmap_kern", "the condition that holds")
equal(int(gdb.parse_and_eval("$ktf_maps_of(frame)")), 61, "mappings")
equal(gdb.selected_thread().num, thread, "the thread")
passed()
