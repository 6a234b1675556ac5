# SPDX-License-Identifier: BSD-2-Clause
# Without a guest, with a running one, with nonsense for arguments: one line that says what to do.
# guest: mem=128M smp=2 ramfile=1 stop=none
import gdb
from inside import check, connect, equal, error_of, json_of, passed, physical_mode, run

for command in ("ktf-maps", "ktf-maps 0x1000", "ktf-maps --leaves"):
    check("no guest" in error_of(command) and "target remote" in error_of(command))
check(json_of("ktf-maps")["ok"] is False)
check("no guest" in json_of("ktf-maps 1")["error"])

connect()
check("paging is off" in error_of("ktf-maps"))
check("paging is off" in json_of("ktf-maps")["error"])
gdb.execute("hbreak ktf_ready", to_string=True)
gdb.execute("continue", to_string=True)
check("kernel" in run("ktf-maps"))

for arguments, expected in (
    ("--nonsense", "no option --nonsense"),
    ("--space", "--space needs a value"),
    ("--space nowhere", "no address space nowhere"),
    ("--range 0", "--range needs 2 values"),
    ("--range 5 4", "not above"),
    ("--range x y", 'No symbol "x"'),
    ("--filter purple", "--filter knows no purple"),
    ("--space kernel --space kernel", "--space is given twice"),
    ("--range 0 1 --range 0 2", "--range is given twice"),
    ("no_such_symbol", "No symbol"),
    ("1 +", "ktf-maps: 1 +"),
    ("mm", "is a struct"),
    ('"text"', "no number and has no address"),
    ("$nothing", "has no value"),
    ("mm.levels++", "not evaluated"),
    ("mm.levels = 7", "not evaluated"),
    ("ktf_ready()", "a call runs the guest: not evaluated"),
    ("*(int*)0", "ktf-maps"),
    ("0 --leaves", "VA goes with"),
    ("1 2 3", "ktf-maps: 1 2 3"),
    ("((((", "ktf-maps"),
    ("'", "ktf-maps"),
    ("\\", "ktf-maps"),
):
    message = error_of(f"ktf-maps {arguments}")
    check(expected in message and message.startswith("ktf-maps: "), f"{arguments}: {message}")
    answer = json_of(f"ktf-maps {arguments}")
    check(answer["ok"] is False and answer["error"] in message, f"{arguments}: {answer}")
check("not mapped" in run("ktf-maps 0x800000000000"), "not canonical")
check("not mapped" in run("ktf-maps -1 - 4096"), run("ktf-maps -1 - 4096"))
check("Undefined item" in error_of("set ktf reader teleport"))
equal(physical_mode(), "0")

# Whatever goes wrong in the middle of a read: the stub is left as it was.
target = __import__("ktf.debugger.target", fromlist=["GdbLink"])
packet, borrow = target.GdbLink._packet, target.stub.borrow


def broken(error: BaseException | str) -> None:
    """Lets each memory read of the stub fail in that way."""

    def answer(self: object, text: str) -> str:
        if not text.startswith("m"):
            return str(packet(self, text))
        if isinstance(error, str):
            return error
        raise error

    target.GdbLink._packet = answer


gdb.execute("set ktf reader gdbstub")
target.stub.borrow = lambda details: None  # GDB's own packets, not its socket
for wrong in ("E14", "", "zz", KeyboardInterrupt(), gdb.error("lost"), RuntimeError("x")):
    broken(wrong)
    try:
        text = run("ktf-maps --space cr3")
        check("not in the guest's RAM" in text or "!" in text, f"{wrong!r}: {text[:300]}")
    except (gdb.error, KeyboardInterrupt) as e:
        check("Traceback" not in str(e), str(e))
    target.GdbLink._packet = packet
    equal(physical_mode(), "0", f"after {wrong!r}")
target.stub.borrow = borrow
gdb.execute("set ktf reader auto")
check("kernel" in run("ktf-maps"))

# The user left physical mode on: it stays so, and we are not confused by it.
gdb.selected_inferior().connection.send_packet("Qqemu.PhyMemMode:1")
check("kernel" in run("ktf-maps"))
equal(physical_mode(), "1")
gdb.selected_inferior().connection.send_packet("Qqemu.PhyMemMode:0")

# While it runs.
gdb.execute("delete", to_string=True)
gdb.execute("continue &", to_string=True)
for command in ("ktf-maps", "ktf-maps 0x1000", "ktf-frame", "ktf-frame 1", "ktf-pt-check"):
    for message in (error_of(command), json_of(command)["error"]):
        check("the guest is running; stop it with `interrupt`" in message, message)
        check("no guest" not in message, message)
gdb.execute("disconnect", to_string=True)
connect()
check("kernel" in run("ktf-maps"))

# And then it is gone.
try:
    run("monitor quit")
except gdb.error:
    pass
try:
    run("info registers rip")
except gdb.error:
    pass
message = error_of("ktf-maps")
check("no guest" in message, message)
passed()
