# SPDX-License-Identifier: BSD-2-Clause
# --quit ends GDB with a status that can be believed, and leaves the guest halted where it was.
# guest: mem=128M machine=pc ramfile=1
# guest: mem=128M machine=pc ramfile=0 cmdline="plant=P6"
import re
import subprocess

import gdb
from inside import PORT, check, connect, equal, passed, run
from qemu import gdb_command

planted = "plant" in gdb.parse_and_eval("boot_info.cmdline").string()
rip = int(gdb.parse_and_eval("(long)$rip"))
gdb.execute("disconnect", to_string=True)


def ended(*commands: str, port: str | None = PORT) -> tuple[int, str]:
    """Another GDB runs these: its status and what it said."""
    command = gdb_command(int(port) if port else None, "-batch")
    for text in commands:
        command += ["-ex", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    check("Traceback" not in done.stdout + done.stderr, done.stderr)
    return done.returncode, done.stdout


status, said = ended("ktf-pt-check --quit", "echo still there\\n")
equal(status, 1 if planted else 0, said)
check(re.search(r": \d+ violations$", said.strip()), said)
status, said = ended("ktf-pt-check --json --quit", "echo still there\\n")
equal(status, 1 if planted else 0, said)
check('"violations":[' in said and "still there" not in said, said)
status, said = ended("ktf-pt-check --rule A5 --quit")
equal(status, 0, said)
status, said = ended("ktf-pt-check --rule nonsense --quit", "echo still there\\n")
equal(status, 1, said)
check("no rule NONSENSE" in said and "still there" not in said, said)
status, said = ended("ktf-pt-check --nonsense --quit --json")
equal(status, 1, said)
check('"ok":false' in said, said)
status, said = ended("ktf-pt-check --quit", port=None)
equal(status, 1, said)
check("no guest" in said, said)

# Nobody let the guest run.
connect()
equal(int(gdb.parse_and_eval("(long)$rip")), rip, "rip")
check("paused" in run("monitor info status"), run("monitor info status"))
passed()
