# SPDX-License-Identifier: BSD-2-Clause
# Four CPUs at work, stopped at random: never a false alarm; a fault under a held lock is shown as in progress.
# guest: mem=128M machine=pc smp=4 cmdline="test=stress stress-ops=1000000" ramfile=1 timeout=120
import random
import re
import time

import gdb
from campaign import too_few_held
from inside import check, equal, interrupt_after, json_of, passed, run

SECONDS, STOPS, ENOUGH = 50, 30, 20


def number(expression: str) -> int:
    """A value of the guest."""
    return int(gdb.parse_and_eval(f"(unsigned long)({expression})"))


def random_stops() -> None:
    """As many as there is time for: many of them meet a held lock."""
    random.seed(1)
    until = time.monotonic() + SECONDS
    stops = held = 0
    while stops < STOPS and time.monotonic() < until:
        # The SIGINT of a user who presses Ctrl-C, at a random moment.
        wait = 0.05 + random.random() / 2
        interrupt_after(wait)
        try:
            gdb.execute("continue", to_string=True)
        except KeyboardInterrupt:
            pass
        answer = json_of("ktf-pt-check")
        check(answer.get("total") == 0, f"stop {stops}: {answer}")
        check(bool(answer.get("in_progress")) or not answer["unsettled"], str(answer))
        held += bool(answer["in_progress"])
        stops += 1
    print(f"{stops} stops, {held} with a lock held")
    check(stops >= ENOUGH, f"only {stops} stops")
    equal(too_few_held(stops, held), "")


def broken_under_lock() -> None:
    """A CPU has map_lock: of what is broken now the rules that it covers say `in progress`, the others count."""
    run("tbreak *map_unlock")
    run("continue")
    holder = number("$_thread") - 1
    equal(number("mm.map_lock.owner"), holder + 1, "the owner")
    before = json_of("ktf-pt-check")
    equal((before["total"], number("$ktf_ok()")), (0, 1), "before")
    where = {(h["lock"], h["cpu"]): h["where"] for h in before["in_progress"]}
    check(where.get(("map_lock", holder), "").startswith("in map_unlock for "), str(before))
    mfn = f"{number('$ktf_frame(&mm)->mfn'):#x}"

    run("set var $ktf_frame(&mm)->mapcount = $ktf_frame(&mm)->mapcount + 1")
    answer = json_of("ktf-pt-check")
    equal((answer["ok"], answer["total"], answer["violations"]), (True, 0, []), "covered")
    equal((number("$ktf_violations"), number("$ktf_ok()")), (0, 1), "covered")
    mine = {v["rule"] for v in answer["unsettled"] if v["mfn"] == mfn}
    equal(mine, {"P6"}, f"{mfn} in {answer['unsettled']}")
    lines = run("ktf-pt-check").splitlines()
    check(lines[0].startswith(f"in progress: CPU {holder} holds map_lock, in map_"), str(lines))
    check(any(line.startswith(f"in progress: P6: mfn {mfn}: ") for line in lines), str(lines))
    check(
        re.match(rf"! \d+ findings? not counted, for CPU {holder} holds map_", lines[-2]),
        str(lines),
    )
    check(lines[-1].endswith(": 0 violations"), str(lines))
    run("set var $ktf_frame(&mm)->mapcount = $ktf_frame(&mm)->mapcount - 1")

    run("set var percpu[0].others = 0")
    answer = json_of("ktf-pt-check")
    equal({v["rule"] for v in answer["violations"]}, {"C2"}, "not covered")
    equal(number("$ktf_ok()"), 0, "not covered")
    run("set var percpu[0].others = ~1ul")
    equal(json_of("ktf-pt-check")["total"], 0, "put back")


random_stops()
broken_under_lock()
passed()
