# SPDX-License-Identifier: BSD-2-Clause
# The made-up structs of the unit tests are the kernel's: member by member, bit by bit.
# guest: mem=128M machine=pc stop=reset
from inside import check, equal, passed
from synthetic_types import CONSTANTS, ENUMS, STRUCTS, FakeTypes

from ktf.kernel.layout import TypeDesc
from ktf.debugger.target import GdbTypes

real, fake = GdbTypes(), FakeTypes()


def members(desc: TypeDesc) -> list[tuple[str, int, int, int, int]]:
    """Name, bit position, bits, size, elements of each member."""
    return [
        (f.name, f.bitpos, f.bitsize, 0 if f.bitsize else f.type.size, f.type.count)
        for f in desc.fields
        if f.name != "epoch"  # the other side of a union
    ]


for name in STRUCTS:
    ours, theirs = fake.struct(name), real.struct(name)
    equal(ours.size, theirs.size, name)
    equal(members(ours), members(theirs), name)
for name, values in ENUMS.items():
    equal(values, real.enum(name), name)
for name, value in CONSTANTS.items():
    # How much is kept in stock or in a ring is the kernel's choice, and may change.
    if not name.startswith("STOCK_") and name != "JOURNAL_BYTES":
        equal(value, real.constant(name), name)
check(real.symbol("mm"), "mm")
passed()
