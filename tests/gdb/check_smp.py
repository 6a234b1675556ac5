# SPDX-License-Identifier: BSD-2-Clause
# Four CPUs at work, stopped at random: never a false alarm, and a held lock is told.
# guest: mem=128M machine=pc smp=4 cmdline="test=stress stress-ops=1000000" ramfile=1 timeout=120
import os
import random
import signal
import threading
import time

import gdb
from inside import check, json_of, passed

SECONDS, STOPS = 50, 30
random.seed(1)
until = time.monotonic() + SECONDS
stops = progress = 0
while stops < STOPS and time.monotonic() < until:
    # The SIGINT of a user who presses Ctrl-C, at a random moment.
    threading.Timer(0.05 + random.random() / 2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        gdb.execute("continue", to_string=True)
    except KeyboardInterrupt:
        pass
    answer = json_of("ktf-pt-check")
    check(answer.get("total") == 0, f"stop {stops}: {answer}")
    check(bool(answer.get("in_progress")) or not answer["unsettled"], str(answer))
    progress += bool(answer["in_progress"])
    stops += 1
print(f"{stops} stops, {progress} with a lock held")
check(stops > 5, "too few stops")
passed()
