# SPDX-License-Identifier: BSD-2-Clause
# Inside GDB: stops a running guest STOPS times at random moments, and checks it each time.
"""A violation is printed as `alarm: ...`, and the others are looked for all the same.

A stop counts if the guest has done anything since the last one: on a busy machine it may not have run at all.
"""
import os
import random

import gdb
from inside import interrupt_after, json_of, passed

stops = progress = before = 0
rng = random.Random(int(os.environ["STOPS_SEED"]))
try:
    while stops < int(os.environ["STOPS"]):
        ran = False
        try:
            timer = interrupt_after(0.03 + 0.1 * rng.random())
            ran = True
            gdb.execute("continue", to_string=True)
        except KeyboardInterrupt:
            pass
        timer.join()
        now = int(gdb.parse_and_eval("mm.journal_seq"))
        if not ran or now == before:
            continue
        before = now
        answer = json_of("ktf-pt-check")
        stops += 1
        progress += bool(answer["in_progress"])
        if answer["total"] or (answer["unsettled"] and not answer["in_progress"]):
            print(f"alarm: stop {stops}: {answer}"[:3000])
    gdb.execute("detach", to_string=True)  # it runs on
except gdb.error as e:
    print(f"the guest is gone: {e}")  # done with its work
print(f"{stops} stops, {progress} with a lock held")
passed()
