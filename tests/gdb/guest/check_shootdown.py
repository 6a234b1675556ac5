# SPDX-License-Identifier: BSD-2-Clause
# With the request to flush skipped, B1 sees from outside what the guest's watcher sees from inside.
# guest: mem=128M machine=pc smp=2 cmdline="test=shootdown_unmap break=shootdown" ramfile=1
import gdb
from inside import check, equal, json_of, passed

equal(json_of("ktf-pt-check")["total"], 0, "before anything is broken")
gdb.execute("hbreak guest_test_failed", to_string=True)
gdb.execute("continue", to_string=True)
answer = json_of("ktf-pt-check")
rules = {v["rule"] for v in answer["violations"]}
check(rules == {"B1"}, str(answer))
check("CPU 1 has flushed up to epoch" in answer["violations"][0]["message"], str(answer))
passed()
