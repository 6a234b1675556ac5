# SPDX-License-Identifier: BSD-2-Clause
# The command line as people type it: wrong options, other spellings, completion of everything, help with examples.
# guest: mem=128M smp=1 ramfile=1
import gdb
from inside import check, equal, error_of, passed, run
from ktf.debugger import functions
from ktf.commands import registry
from ktf.rules.table import RULES
from ktf.debugger.target import Target

COMMANDS = registry.commands()
GUEST = Target()


def completed(text: str) -> list[str]:
    """What the tab key offers: whole lines without the text that is there."""
    if not text.endswith(" "):
        return [line.strip() for line in run(f"complete {text}").splitlines()]
    name, _, rest = text.partition(" ")  # GDB's own `complete` takes the blank away
    command = next(c for c in COMMANDS if c.name == name)
    return [text + word for word in command.complete(GUEST, rest, "")]


# Options misspelt: which exist, and which is meant.
for line, words in (
    (
        "ktf-maps --fliter x",
        ("no option --fliter", "--space --range --filter", "--filter is meant?"),
    ),
    ("ktf-maps -filter x", ("no option -filter", "--filter is meant?")),
    ("ktf-maps --leafs", ("no option --leafs", "--leaves is meant?")),
    ("ktf-maps --leaves=yes", ("--leaves takes no value",)),
    ("ktf-maps --xyzzy", ("no option --xyzzy; there are: --space",)),
    ("ktf-maps --filter", ("--filter needs a value, e.g. w, x, u, global",)),
    ("ktf-maps --range 0", ("--range needs 2 values",)),
    ("ktf-maps --space kernal", ("no address space kernal; there are: kernel, cr3",)),
    ("ktf-maps kernel", ("kernel is an address space: --space kernel",)),
    ("ktf-frame --vaddr 1", ("no option --vaddr", "--va is meant?")),
    ("ktf-frame -mfn 1", ("no option -mfn", "--mfn is meant?")),
    ("ktf-pt-check P2", ("takes no operand P2; --rule P2",)),
    ("ktf-pt-check --rules P2", ("no option --rules", "--rule is meant?")),
    ("ktf-pt-check --rule P9", ("no rule P9; there are: P1 P2",)),
    ("ktf-check-at vput --evry 2", ("no option --evry; there are: --rule",)),
):
    message = error_of(line)
    for word in words:
        check(word in message, f"{line}: {message}")

# No command cuts another number to an integer.
for line in (
    "ktf-maps 1.5",
    "ktf-maps --range 1.5 0x2000",
    "ktf-maps --range 0 2e3",
    "ktf-maps --range 0 +1.5",
    "ktf-frame 256.0",
    "ktf-frame --mfn 1.5f",
    "ktf-frame --pa (double)0x1000",
    "ktf-journal 1.5",
    "ktf-journal --va 1.5",
    "ktf-acpi 1.5",
    "ktf-acpi --rsdp 1.5",
    "ktf-check-at *0x100000.5",
    "print $ktf_frame(256.0)",
    "print $ktf_paddr(1.5)",
    "print $ktf_maps_of(1.5)",
):
    message = error_of(line)
    check("is no integer" in message, f"{line}: {message}")
for line, word in (
    ("ktf-journal -n 1.5", "-n 1.5: should be a number of events"),
    ("ktf-check-at vput every 1.5", "`every` needs one positive number"),
    ("ktf-check-at 1.5", "no such place"),
):
    check(word in error_of(line), f"{line}: {error_of(line)}")
check("mfn 0x100 " in run("ktf-frame (long)256.5"), run("ktf-frame (long)256.5"))

# A place that there is not leaves no breakpoint behind, and GDB is not asked to wait for one.
run("break ktf_ready")
number = int(gdb.parse_and_eval("$bpnum"))
check("no such place" in error_of("ktf-check-at nowhere_at_all"))
run("break ktf_ready")
equal(int(gdb.parse_and_eval("$bpnum")), number + 1, "breakpoint numbers")
run("delete")

# Other spellings that work.
equal(run("ktf-maps --filter=x"), run("ktf-maps --filter x"), "--filter=x")
equal(run("ktf-maps --filter X,!W"), run("ktf-maps --filter x"), "upper case")
equal(run("ktf-pt-check --rule=p1,x1"), run("ktf-pt-check --rule P1 --rule X1"), "rules")
equal(run("ktf-maps --space=kernel"), run("ktf-maps --space kernel"), "--space=kernel")
equal(run("ktf-frame -0x1000 + 0x2000")[-99:], run("ktf-frame 0x1000")[-99:], "a sign")

# Completion: options, their values, spaces, kinds, rules, symbols.
for one in COMMANDS:
    names = {option.name for option in one.options if option.name.startswith("--")}
    offered = {line.split()[-1] for line in completed(f"{one.name} --")}
    equal(offered, names, f"{one.name} --<tab>")
equal(completed("ktf-maps --sp"), ["ktf-maps --space"], "an option's start")
equal(completed("ktf-maps --space k"), ["ktf-maps --space kernel"], "spaces")
equal(completed("ktf-maps --space "), ["ktf-maps --space kernel", "ktf-maps --space cr3"], "spaces")
offered = {line.split()[-1] for line in completed("ktf-maps --filter ")}
for word in ("w", "x", "u", "global", "uncached", "4k", "2m", "1g", "wb", "uc", "wc", "mixed"):
    check(word in offered, f"--filter {word} is not offered: {offered}")
for word in ("text", "table", "device", "available", "metadata"):
    check(word in offered, f"--filter {word} is not offered: {offered}")
    run(f"ktf-maps --filter {word}")
equal(completed("ktf-maps --filter x,te"), ["ktf-maps --filter x,text"], "behind a comma")
equal(completed("ktf-maps --filter !te"), ["ktf-maps --filter !text"], "negated")
for name in ("ktf-pt-check", "ktf-check-at"):
    offered = {line.split()[-1] for line in completed(f"{name} --rule ")}
    equal(offered, set(RULES), f"{name} --rule <tab>")
equal(completed("ktf-pt-check --rule X1,B"), ["ktf-pt-check --rule X1,B1"], "a second rule")
for line in ("ktf-maps", "ktf-frame", "ktf-check-at", "ktf-journal", "ktf-maps --range"):
    check(
        f"{line} ktf_ready" in completed(f"{line} ktf_rea"),
        f"{line}: {completed(f'{line} ktf_rea')}",
    )
equal(completed("ktf-check-at mm_check e"), ["ktf-check-at mm_check every"], "every")
run("ktf-snapshot first")
for line in ("ktf-snapshot --delete f", "ktf-diff f", "ktf-snapshot f"):
    equal(completed(line), [line + "irst"], "snapshots")
check("ktf-core build/kernel.elf" in completed("ktf-core build/kernel.e"), "files")
equal(completed("set ktf re"), ["set ktf reader"], "the prefix")
check("set ktf reader ramfile" in completed("set ktf reader ra"), "readers")

# Help: a synopsis, an example with what it prints, each option; the summary fits on a line.
for one in COMMANDS:
    text = run(f"help {one.name}")
    check("Example" in text and f"(gdb) {one.name}" in text, f"{one.name}: no example")
    for option_name in [option.name for option in one.options]:
        check(option_name in text, f"help {one.name} lacks {option_name}")
    check(len(text.splitlines()[0]) < 110, text.splitlines()[0])
for function in functions.FUNCTIONS:
    text = run(f"help function {function.name}")
    check(
        "\nExample:\n" in text and f"(gdb) print ${function.name}(" in text.replace("/x", ""), text
    )
    check("\n  $1 = " in text, text)
check("(gdb) set ktf reader" in run("help set ktf reader"), run("help set ktf reader"))
check("ktf-maps -v" in run("help show ktf reader"), "show")
check("reader" in run("help set ktf"), run("help set ktf"))
equal(run("show ktf"), run("show ktf reader"), "show ktf")
for line in ("set ktf", "set ktf speed 3", "show ktf speed"):
    check("there is: reader" in error_of(line), error_of(line))

# In any language, with any radix and format of the user, the same is printed.
expected = {c: run(c) for c in ("ktf-maps", "ktf-frame", "ktf-pt-check", "ktf-maps ktf_ready")}
for setting in (
    "set output-radix 16",
    "set print address off",
    "set print symbol off",
    "set width 40",
    "set language asm",
    "set language c++",
    "set print pretty on",
):
    gdb.execute(setting, to_string=True)
    for command, text in expected.items():
        equal(run(command), text, f"{setting}: {command}")
passed()
