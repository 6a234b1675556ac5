# SPDX-License-Identifier: BSD-2-Clause
# CPUs that start: no alarm while one takes map_lock to be online, nor later, whatever QEMU's number of it is.
# guest: mem=128M machine=pc smp=2 cmdline="acpi=off" ramfile=1 stop=none timeout=60
# guest: mem=128M machine=pc smp="6,sockets=2,cores=3" cmdline="acpi=off" ramfile=1 stop=none timeout=60
import gdb
from inside import check, connect, equal, json_of, passed, run


def step_through() -> None:
    """One CPU alone through space_go_online(), from before the lock to behind it."""
    gdb.execute("tbreak space_go_online", to_string=True)
    gdb.execute("continue", to_string=True)
    me = int(gdb.parse_and_eval("((struct percpu *)$gs_base)->number"))
    gdb.execute("set scheduler-locking step", to_string=True)
    held = 0
    for _ in range(60):
        answer = json_of("ktf-pt-check")
        check(not answer["total"], f"at {run('info symbol $pc')}: {answer}")
        mine = ("map_lock", me) in [(h["lock"], h["cpu"]) for h in answer["in_progress"]]
        if held and not mine:
            break
        held += mine
        gdb.execute("stepi 3", to_string=True)
    check(held > 4 and not mine, f"{held} steps with the lock")
    gdb.execute("set scheduler-locking replay", to_string=True)


connect()
odd = len(gdb.selected_inferior().threads()) == 6
if not odd:
    step_through()
gdb.execute("tbreak ktf_ready", to_string=True)
gdb.execute("continue", to_string=True)
check(run("ktf-pt-check").endswith(": 0 violations\n"), run("ktf-pt-check"))
up = [i for i in range(8) if int(gdb.parse_and_eval(f"mm.cpu[{i}].online"))]
equal(up, [0, 1, 2, 4, 5] if odd else [0, 1], "online")
# One that runs, and is online nowhere.
gdb.execute(f"set var mm.cpu[{up[-1]}] = mm.cpu[63]", to_string=True)
said = run("ktf-pt-check --rule C1")
check(f"CPU {up[-1]}: mm.cpu[] says that it is not online, but it runs" in said, said)
passed()
