# SPDX-License-Identifier: BSD-2-Clause
# A ring of the journal that is gone: the panic still prints what the others know, and the commands say what is missing.
# guest: mem=128M machine=pc smp=2 cmdline="acpi=off crash=use-after-unmap"
import os

from inside import check, json_of, passed, run

run("set variable journal_ring[1] = (struct journal_event *)0xffffffc036f00000")
run("continue")
with open(os.environ["KTF_SERIAL"], encoding="utf-8", errors="replace") as serial:
    said = serial.read()
check("the journal has " in said and " unmap mfn 0x" in said.split("the journal has ")[1], said)
check("panic in panic" not in said and said.count("EXCEPTION") == 1, said)
answer = json_of("ktf-postmortem")
check("unmapped by give_buffer_back" in answer["cause"], answer["cause"])
told = "of the ring of CPU 1 at 0xffffffc036f00000 64 pages can't be read"
check(told in str(answer["notes"]), f"{answer['notes']}")
check(told in run("ktf-journal"))
passed()
