# SPDX-License-Identifier: BSD-2-Clause
# The bit-flip campaign inside GDB: takes the stopped guest out once, and repeats some of the flips in it.
"""BITFLIP: a directory. BITFLIP_STEP=freeze writes there what bitflip_frozen needs, compare does what `wanted` says."""
import json
import mmap
import os
import pickle

import gdb
from bitflip_fields import ALSO
from bitflip_frozen import freeze
from inside import equal, json_of, passed
from ktf.rules.examine import examine
from ktf.rules.table import RULES
from ktf.debugger.target import Target


def turn(ram: mmap.mmap, at: int, mask: int) -> None:
    """Turns over the bits of mask from that bit on."""
    mask <<= at & 7
    while mask:
        ram[at >> 3] ^= mask & 0xFF
        at, mask = at + 8, mask >> 8


path = os.environ["BITFLIP"]
if os.environ["BITFLIP_STEP"] == "freeze":
    facts = freeze(Target(), lambda s: examine(s, list(RULES)), ALSO, f"{path}/memory")
    with open(f"{path}/facts", "wb") as f:
        pickle.dump(facts, f)
else:
    with open(os.environ["KTF_RAMFILE"], "r+b") as ramfile:
        ram = mmap.mmap(ramfile.fileno(), 0)
    with open(f"{path}/wanted", encoding="ascii") as wanted:
        flips = json.load(wanted)
    for flip in flips:
        turn(ram, flip["at"], flip["mask"])
        said = json_of("ktf-pt-check")
        turn(ram, flip["at"], flip["mask"])
        said.pop("seconds")
        if said != flip["said"]:
            print(f"differs: bit {flip['at']:#x}: in GDB {said}, on the copy {flip['said']}")
    equal(json_of("ktf-pt-check")["total"], 0, "when all is put back")
    print(f"{len(flips)} flips compared")
gdb.execute("disconnect", to_string=True)  # the guest stays halted
passed()
