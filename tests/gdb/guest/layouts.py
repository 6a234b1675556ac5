# SPDX-License-Identifier: BSD-2-Clause
# Structs read through our columns and through GDB: the same numbers, for each type of the kernel.
# guest: mem=128M ramfile=1
import gdb
import numpy as np
from inside import check, equal, passed
from ktf.kernel.layout import Records
from ktf.debugger.target import GdbTypes, Target

ARENAS = {
    "ARENA_FRAMES": "frame_t",
    "ARENA_TABLES": "struct table",
    "ARENA_SPACES": "space_t",
}


def compare(records: Records, va: int, name: str) -> int:
    """Each plain member of one struct against GDB's own reading of it; how many there were."""
    value = gdb.parse_and_eval(f"*({name} *){va:#x}")
    count = 0
    for member in records.layout.names:
        column = records[member]
        if isinstance(column, Records) or column.ndim != 1 or column.dtype.kind == "S":
            continue
        equal(int(column[0]), int(value[member]), f"{name} at {va:#x}: {member}")
        count += 1
    return count


session = Target().session()
kernel = session.need_kernel()
mm = int(gdb.parse_and_eval("&mm"))
check(compare(kernel.mm, mm, "struct mm") > 10)
for i in range(len(ARENAS)):
    row = kernel.mm[0]["arena"][i : i + 1]
    check(compare(row, int(gdb.parse_and_eval(f"&mm.arena[{i}]")), "struct arena") >= 9)

for name, type_name in ARENAS.items():
    arena = kernel.arena(name)
    data, ok = kernel.window(arena)
    check(ok.all() and len(data) == arena.pages * 4096, name)
    records = kernel.layout(type_name).records(data)
    equal(records.layout.size, int(gdb.parse_and_eval(f"sizeof({type_name})")), type_name)
    chosen = np.random.default_rng(1).integers(0, len(records), 40).tolist()
    for i in [1, 2, len(records) - 1, *chosen]:
        compare(records[i : i + 1], arena.base + i * records.layout.size, type_name)
kinds = set(
    kernel.layout("frame_t")
    .records(kernel.window(kernel.arena("ARENA_FRAMES"))[0])["kind"]
    .tolist()
)
check(len(kinds) > 5, f"frames of kinds {kinds}")

# Mappings stand in pages of their own, after the page's head.
arena = kernel.arena("ARENA_MAPPINGS")
size = kernel.layout("mapping_t").size
for i in range(3, 8):
    va = arena.base + 32 + i * size
    compare(kernel.layout("mapping_t").records(kernel.memory.read(va, size)), va, "mapping_t")

types = GdbTypes()
equal(types.enum("frame_kind")["FRAME_TABLE"], 2)
equal(types.constant("FRAME_PAGE_ORDER"), 7)
symbol = types.symbol("mm")
check(
    symbol is not None and symbol.va == mm and symbol.size == int(gdb.parse_and_eval("sizeof(mm)"))
)
equal(types.symbol("no_such_thing"), None)
equal(types.symbol("1 + 1"), None)
passed()
