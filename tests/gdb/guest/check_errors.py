# SPDX-License-Identifier: BSD-2-Clause
# ktf-pt-check and ktf-frame where they can't work: one line that says why, at any moment of the boot.
# guest: mem=128M machine=pc stop=none
import gdb
from inside import check, connect, equal, error_of, json_of, passed, run, run_for

COMMANDS = (
    "ktf-pt-check",
    "ktf-frame",
    "ktf-frame 0x100",
    "ktf-frame --free",
    "ktf-pt-check --rule P1",
)


def refused(*words: str) -> None:
    """All of them say one of these words, with --json as an object."""
    for command in COMMANDS:
        message = error_of(command)
        check(any(w in message for w in words), f"{command}: {message}")
        answer = json_of(command)
        check(answer["ok"] is False and any(w in answer["error"] for w in words), str(answer))
    equal(int(gdb.convenience_variable("ktf_violations")), -1, "$ktf_violations")
    for function in ("$ktf_ok()", "$ktf_frame(0x100)", "$ktf_maps_of(0x100)"):
        check(any(w in error_of(f"print {function}") for w in words), function)


refused("no guest")
connect()
refused("paging is off")
run_for(0.3)
refused("paging is off", "no frames yet")

# Before, in and after mm_init().
gdb.execute("hbreak mm_init", to_string=True)
gdb.execute("continue", to_string=True)
refused("no frames yet")
gdb.execute("delete", to_string=True)
gdb.execute("hbreak ktf_ready", to_string=True)
gdb.execute("continue", to_string=True)
check(run("ktf-pt-check").strip().endswith(": 0 violations"))

# Nonsense.
for line, word in (
    ("ktf-pt-check 12", "no operand"),
    ("ktf-pt-check --rule", "needs a value"),
    ("ktf-pt-check --rule Z9", "no rule Z9"),
    ("ktf-pt-check --rule ,", "no rule"),
    ("ktf-pt-check --color", "no option"),
    ("ktf-frame --mfn", "needs WHERE"),
    ("ktf-frame --mfn --pa 1", "only one"),
    ("ktf-frame --free 0x100", "without WHERE"),
    ("ktf-frame nonsense", "nonsense"),
    ("ktf-frame mm", "struct"),
    ('ktf-frame "abc"', "no number and has no address"),
    ("ktf-frame $nonexistent", "has no value"),
    ("ktf-frame mm.levels = 7", "not evaluated"),
    ("ktf-frame mm.levels <<= 1", "not evaluated"),
    ("ktf-frame --mfn ++mm.levels", "not evaluated"),
    ("ktf-frame ktf_ready()", "a call runs the guest: not evaluated"),
    ("ktf-frame 1 +", "1 +"),
    ("ktf-frame (", "bracket"),
    ("ktf-frame --mfn -1", "no frame number"),
    ("ktf-frame --mfn 0x800000000", "in no frame"),
    ("ktf-frame --pa -1", "no physical address"),
    ("ktf-frame --va 0x800000000000", "not a canonical address"),
    ("ktf-frame --va 0x1234", "not mapped"),
    ("ktf-frame 0xffffc00000000000", "not mapped"),
    ("ktf-frame mm.arena[0].base", "no frame"),
    ("ktf-frame mm.arena[0].base+32", "ring of order 0"),
    ("ktf-frame mm.arena[1].base+16", "none in use"),
):
    check(word in error_of(line), f"{line}: {error_of(line)}")

equal(int(gdb.parse_and_eval("mm.levels")), 4, "mm.levels")
check(gdb.parameter("may-call-functions"), "may-call-functions is off")
check("frame" in run("ktf-frame $ktf_frame(0x100)"), "a function of ours")
check("frame" in run("ktf-frame 0x100 + (1 <= 0) + (1 != 1) + (1 == 2)"), "comparisons")

# Broken counters and rings are reported with the table.
for change, rule in (
    ("mm.order[3].free = 77", "A4"),
    ("mm.order[13].head = 0x7fffffff", "A3"),
    ("mm.levels = 8", "A4"),
):
    name = change.split(" =")[0]
    before = int(gdb.parse_and_eval(name))
    check("broken" not in run("ktf-frame"), "sound")
    gdb.execute(f"set var {change}", to_string=True)
    check(not run("ktf-pt-check").strip().endswith(": 0 violations"), change)
    for text in (run("ktf-frame"), " ".join(json_of("ktf-frame")["notes"])):
        check("the frame database is broken: " in text and rule in text, f"{change}: {text}")
    gdb.execute(f"set var {name} = {before}", to_string=True)

# Where GDB can't unwind (it fails in the midst of some inlined functions) there still is a guest.
SELECTED = gdb.selected_frame


def no_frame() -> gdb.Frame:
    """As GDB says it then."""
    raise gdb.error("failed to find previous frame when computing inline frame id")


gdb.selected_frame = no_frame
check(run("ktf-pt-check").strip().endswith(": 0 violations"), "without a frame")
gdb.selected_frame = SELECTED

# Where GDB has lost the guest's threads, or takes its bytes the wrong way round.
THREAD = gdb.selected_thread


def no_thread() -> gdb.InferiorThread:
    """As GDB says it after Ctrl-C while QEMU is stopped."""
    raise SystemError("could not find gdb thread object")


gdb.selected_thread = no_thread
refused("GDB has lost the guest")
gdb.selected_thread = THREAD
gdb.execute("set endian big")
refused("big-endian")
gdb.execute("set endian auto")
check(run("ktf-pt-check").strip().endswith(": 0 violations"), "as before")

# Help says how.
for command in ("ktf-pt-check", "ktf-frame"):
    text = run(f"help {command}")
    check("Example:" in text and "--json" in text and "Errors:" in text, text)
check("--rule" in run("complete ktf-pt-check --"), "completion")
check("P7" in run("complete ktf-pt-check --rule P"), "completion")
check("--free" in run("complete ktf-frame --"), "completion")
passed()
