# SPDX-License-Identifier: BSD-2-Clause
# The pretty-printers: every frame, record, space and entry of a guest, on its core as well, and when they hold garbage.
# guest: mem=128M smp=2 ramfile=1 cmdline="plant=T7"
import mmap
import os
import random
import time

import gdb
import numpy as np
from inside import check, equal, passed, run
from ktf.show.block import Block
from ktf.kernel.database import Database
from ktf.debugger.target import Target

target = Target()
folder = os.path.dirname(os.environ["KTF_SERIAL"])


def at(kind: str, va: int) -> gdb.Value:
    """The object of that type there."""
    return gdb.Value(va).cast(gdb.lookup_type(kind).pointer()).dereference()


def text(value: gdb.Value) -> str:
    """As `print` shows it, on one line."""
    found: str = value.format_string(pretty_structs=False)
    check("internal error" not in found and "\n" not in found, found)
    return found


def frames(db: Database, step: int) -> dict[int, str]:
    """The text of each block, or of some: it must be what ktf-frame says."""
    pool, said = db.pool("ARENA_FRAMES"), {}
    for index in np.flatnonzero(db.frames.is_head)[::step].tolist():
        block = Block(db, index)
        said[index] = text(at("frame_t", pool.va(index)))
        kind = f"FRAME_{block.kind.upper()}"
        words = [
            f"frame {block.mfn:#x}, order {block.order} (",
            f"), {block.kind}, {'free' if block.free else 'in use'} = {{mfn = {block.mfn:#x}, order = {block.order}, kind = {kind}, ",
            f"refcount = {block.refcount}, mapcount = {block.mapcount}",
        ]
        for row in block.records.tolist() if len(block.records) <= 4 else ():
            m = block.mapping(row)
            words.append(
                f"] = {m['space']} {m['va']} {m['perm']} {m['type']} {m['page']} refs {m['refs']}"
            )
        if block.is_table:
            words.append(f"level = {block.level}, slot = ")
        for word in words:
            check(word in said[index], f"{word!r} is not in {said[index]}")
        check("nonsense" not in said[index] and "followed" not in said[index], said[index])
        shown = min(len(block.records), 5)  # the fifth: "and more"
        equal(said[index].count("mappings["), shown, said[index])
    return said


def records(db: Database, step: int) -> dict[int, str]:
    """Of mappings."""
    pool, maps, said = db.pool("ARENA_MAPPINGS"), db.mappings, {}
    for row in range(0, len(maps), step):
        index = int(maps.index[row])
        block = Block(db, int(maps.owner[row]))
        m = block.mapping(row)
        said[index] = text(at("mapping_t", pool.va(index)))
        for word in (
            f"{m['space']} {m['va']} {m['perm']} {m['type']} {m['page']} = {{refs = {m['refs']}, ",
            f"entry = {m['entry']} (mfn {block.mfn + m['offset']:#x}",
            f"offset = {m['offset']}, ",
        ):
            check(word in said[index], f"{word!r} is not in {said[index]}")
        check("nonsense" not in said[index], said[index])
    return said


def spaces(db: Database) -> list[str]:
    """Each address space's."""
    pool, said = db.pool("ARENA_SPACES"), []
    for space in db.session.spaces().spaces:
        said.append(text(at("space_t", pool.va(space.index or 0))))
        for word in (
            f'address space "{space.name}" = {{id = {space.id}, cr3 = {space.root << 12:#x}, levels = 4, ',
            "cpus = ",
        ):
            check(word in said[-1], f"{word!r} is not in {said[-1]}")
    return said


def some(step: int) -> tuple[dict[int, str], dict[int, str], list[str]]:
    """The texts of a guest: of one in so many."""
    db = Database(target.session())
    return frames(db, step), records(db, step), spaces(db)


live = some(1)
check(len(live[0]) > 100 and len(live[1]) > 100 and len(live[2]) == 2, str([len(x) for x in live]))


def same(step: int, what: str) -> None:
    """Ends the test if the texts are others than before."""
    mine, maps, named = some(step)
    equal(mine, {index: live[0][index] for index in mine}, what)
    equal(maps, {index: live[1][index] for index in maps}, what)
    equal(named, live[2], what)


# Numbers and entries, and formats.
db = Database(target.session())
root = db.session.spaces().spaces[0].root
ready = int(gdb.parse_and_eval("(unsigned long)&ktf_ready"))
run("set var $window = (pgentry_t *)mm.window")
slot = int(db.frames.slot[db.frames.find(np.array([root]))[0]])
run(f"set var $entry = $window[{slot} * 512 + 511]")
entry = int(gdb.parse_and_eval("$entry"))
check(
    f"{entry:#x} (mfn {entry >> 12 & 0xffffffffff:#x} W" in run("print $entry"), run("print $entry")
)
check(f"{entry:#x}\n" in run("print/x $entry"), run("print/x $entry"))
check(f"= {entry}\n" in run("print/d $entry"), run("print/d $entry"))
check("0x0 (not present)" in run("print (pgentry_t)0"), run("print (pgentry_t)0"))
check("other bits 0x600" in run("print (pgentry_t)0x1601"), run("print (pgentry_t)0x1601"))
for kind, number, words in (
    ("mfn_t", 0x218, "= 0x218\n"),
    ("mfn_t", 1 << 40, "(nonsense: the limit is 0x10000000000)"),
    ("paddr_t", 0x218123, "= 0x218123\n"),
    ("paddr_t", 1 << 52, "(nonsense: the limit is 0x10000000000000)"),
    ("vaddr_t", ready, f"= {ready:#x} <ktf_ready>\n"),
    ("vaddr_t", 0x1234, "= 0x1234\n"),
    ("vaddr_t", 1 << 60, "0x1000000000000000 (nonsense: not canonical)"),
):
    gdb.set_convenience_variable(
        "number", gdb.Value(number.to_bytes(8, "little"), gdb.lookup_type(kind))
    )
    check(words in run("print $number"), run("print $number"))
    check("= {v = " in run("print/r $number"), run("print/r $number"))

# Listed, switched off and on, raw; many lines where the user wants them; the members for IDEs.
listed = run("info pretty-printer")
for name in ("ktf", "frame_t", "mapping_t", "space_t", "pgentry_t", "mfn_t", "paddr_t", "vaddr_t"):
    check(f" {name}\n" in listed, listed)
check("kernel.elf pretty-printers:" in listed, listed)
run("set var $frame = $ktf_frame(&ktf_ready)")
check(
    "{kind = " in run("print/r *$frame") and "tail = 0" in run("print/r *$frame"),
    run("print/r *$frame"),
)
for words in (".* ktf;frame_t", ".* ktf"):
    run(f"disable pretty-printer {words}")
    check("tail = 0" in run("print *$frame"), run("print *$frame"))
    run(f"enable pretty-printer {words}")
    check("= frame 0x" in run("print *$frame"), run("print *$frame"))
run("set print pretty on")
check("\n  mappings[0] = kernel 0x" in run("print *$frame"), run("print *$frame"))
run("set print pretty off")
run("set var $copy = *$frame")
equal(
    run("print $copy").split("=", 1)[1],
    run("print *$frame").split("=", 1)[1],
    "a value of GDB's own",
)
run('interpreter-exec mi "-enable-pretty-printing"')
made = run('interpreter-exec mi "-var-create f * *$frame"')
check('dynamic="1"' in made, made)
made = run('interpreter-exec mi "-var-list-children --all-values f"')
for words in (
    'exp="mfn",value="0x',
    'exp="refcount",value="1"',
    'exp="mappings[0]"',
    'exp="kind",value="FRAME_TEXT"',
):
    check(words in made.replace('numchild="0",', ""), f"{words}: {made}")
run("file")  # no symbols, no printers
check("ktf" not in run("info pretty-printer"), run("info pretty-printer"))
run("file build/kernel.elf")
check(" frame_t\n" in run("info pretty-printer"), run("info pretty-printer"))
run("source gdb/ktf-gdb.py")
equal(run("info pretty-printer").count(" frame_t\n"), 1, "loaded twice")

# In other languages, with a user's other settings.
expected = text(at("frame_t", int(gdb.parse_and_eval("$frame"))))
for language in ("pascal", "ada", "rust", "asm", "minimal", "c"):
    run(f"set language {language}")
    for kind, va in (("frame_t", int(gdb.parse_and_eval("$frame"))),):
        said = run("print *$frame") if language not in ("pascal", "ada") else text(at(kind, va))
        check("frame 0x" in said and "kernel 0x" in said, f"{language}: {said}")
    equal(gdb.parameter("language"), language, "the language stays")
run("set language auto")
equal(text(at("frame_t", int(gdb.parse_and_eval("$frame")))), expected, "again")

# Garbage: one bit, whole objects, lists without an end.
seed = random.randrange(1 << 32)
rng = random.Random(seed)
print(f"seed {seed}")
with open(os.environ["KTF_RAMFILE"], "r+b") as f:
    ram = mmap.mmap(f.fileno(), 0)
run("set var $record = (mapping_t *)(mm.arena[ARENA_MAPPINGS].base + $frame->maps * 4)")
SIZES = {
    "frame_t": ("$frame", 32),
    "mapping_t": ("$record", 20),
    "space_t": ("mm.arena[ARENA_SPACES].base + 128", 128),
}
SIZES["struct table"] = ("mm.arena[ARENA_TABLES].base + 32 * ($record->at / 512)", 32)
places = {}
for kind, (expression, size) in SIZES.items():
    va = int(gdb.parse_and_eval(f"(unsigned long)({expression})"))
    places[kind] = va, int(gdb.parse_and_eval(f"$ktf_paddr({va})")), size
started = time.monotonic()
for kind, (va, pa, size) in places.items():
    saved = ram[pa : pa + size]
    for turn in range(12):
        if turn % 3:
            ram[pa : pa + size] = rng.randbytes(size)
        else:
            byte = pa + rng.randrange(size)
            ram[byte] ^= 1 << rng.randrange(8)
        run("maintenance flush dcache")
        for shown in ("frame_t", "mapping_t", "space_t"):
            text(at(shown, places[shown][0]))
        ram[pa : pa + size] = saved
check(time.monotonic() - started < 60, f"seed {seed}: {time.monotonic() - started} s")


def broken(kind: str, offset: int, data: bytes, *words: str) -> None:
    """What a frame or record says when bytes of it are others."""
    va, pa, _ = places[kind]
    saved = ram[pa + offset : pa + offset + len(data)]
    ram[pa + offset : pa + offset + len(data)] = data
    run("maintenance flush dcache")
    said = text(
        at(
            "mapping_t" if kind == "struct table" else kind,
            places["mapping_t"][0] if kind == "struct table" else va,
        )
    )
    ram[pa + offset : pa + offset + len(data)] = saved
    run("maintenance flush dcache")
    for word in words:
        check(word in said, f"{word!r} is not in {said}")


mine = int(gdb.parse_and_eval("$frame->maps"))
chain = text(at("frame_t", places["frame_t"][0]))
broken("frame_t", 0, b"\xff" * 8, "nonsense = ", "order 31 is above 18")
broken("frame_t", 0, bytes(8), "no block's head", "maps without a kind")
broken(
    "frame_t",
    24,
    (0x7FFFFFFF).to_bytes(4, "little"),
    "can't be followed: index 0x7fffffff lies outside ARENA_MAPPINGS",
)
broken("frame_t", 24, bytes(4), "nonsense = mapcount 1, first mapping 0x0")
va, pa, _ = places["mapping_t"]
saved = ram[pa : pa + 4]
ram[pa : pa + 4] = mine.to_bytes(4, "little")
run("maintenance flush dcache")
check("comes twice: a loop" in text(at("frame_t", places["frame_t"][0])), "a loop")
ram[pa : pa + 4] = saved
broken("mapping_t", 8, (0xFFFFFFFF).to_bytes(4, "little"), "can't be followed: index", "nowhere (")
broken("mapping_t", 16, (0xD << 28).to_bytes(4, "little"), "not what home_odd says", "home_1g says")
broken("struct table", 24, b"\x00", "has no table (level 0)")
broken("space_t", 0, bytes(128), "not live (its mark is 0x0)", "levels are 4 or 5")
broken("space_t", 34, b"k" * 22, "a name without an end")
equal(text(at("frame_t", places["frame_t"][0])), chain, "as it was")
same(20, "all as it was")

# Where there is nothing, GDB's own words; the same texts on a core.
for expression in (
    "*(frame_t *)0",
    "*(mapping_t *)8",
    "*(space_t *)16",
    "*(pgentry_t *)0",
    "*(mfn_t *)0",
):
    try:
        run(f"print {expression}")
    except gdb.MemoryError as e:
        check("Cannot access memory" in str(e), str(e))
run(f"ktf-core {folder}/core")
run("disconnect")
run(f"core-file {folder}/core")
same(4, "on the core")
run("core-file")
check("frame" not in run("print sizeof(frame_t)"), "no guest")
passed()
