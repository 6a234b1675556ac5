# SPDX-License-Identifier: BSD-2-Clause
# The JSON of ktf-maps, ktf-frame and ktf-pt-check: exactly these keys, in this order, with values of these types.
# guest: mem=128M smp=1 ramfile=1 cmdline="plant=P2"
import re

from inside import check, equal, json_of, passed, run

HEX = re.compile(r"0x[0-9a-f]+$")
HEAD = ["schema", "command", "ok"]


def keys(rows: list[dict[str, object]], names: str, what: str) -> None:
    """Each row has exactly these; NAME:x is an address, NAME:n a number, NAME:t a text, ? allows null."""
    check(rows, f"{what}: there is none")
    for row in rows:
        equal(list(row), [re.split("[:?]", n)[0] for n in names.split()], what)
        for name in names.split():
            key, kind = name.rstrip("?").split(":")
            value = row[key]
            good = {
                "x": isinstance(value, str) and bool(HEX.match(value)),
                "n": isinstance(value, int) and not isinstance(value, bool),
                "t": isinstance(value, str),
                "l": isinstance(value, list),
            }[kind]
            check(good or value is None and name.endswith("?"), f"{what}: {key} is {value!r}")


answer = json_of("ktf-maps")
equal(list(answer), HEAD + ["ranges", "reader", "notes", "seconds"], "ktf-maps")
keys(answer["ranges"], "space:t va:x size:n pa:x perm:t type:t page:t kind:t?", "ranges")
for row in answer["ranges"]:
    check(
        re.fullmatch("r[w-][x-][u-]", row["perm"]) and row["page"] in ("4K", "2M", "1G"), str(row)
    )
answer = json_of("ktf-maps --leaves")
equal(list(answer), HEAD + ["leaves", "reader", "notes", "seconds"], "ktf-maps --leaves")
keys(answer["leaves"], "space:t va:x pa:x size:n entry:x", "leaves")
equal(json_of("ktf-maps --range 0 1")["ranges"], [], "nothing")

planted = "0xffffc07000001000"
answer = json_of(f"ktf-maps {planted}")
names = "space va mapped pa perm type type_by page kind problem limits walk".split()
equal(list(answer), HEAD + names, "ktf-maps VA")
keys(answer["walk"], "level:n table:x index:n entry:x perm:t problem:t?", "walk")

answer = json_of("ktf-frame")
equal(list(answer), HEAD + ["orders", "kinds", "free", "notes"], "ktf-frame")
keys(answer["orders"], "order:n free:n used:n", "orders")
for where in ("--pa $cr3", f"--va {planted}", "--va 0xffffc07000000000"):
    answer = json_of(f"ktf-frame {where}")
    names = "frame details journal violations taken notes".split()
    equal(list(answer), HEAD + names, "ktf-frame WHERE")
    keys([answer["frame"]], "mfn:x order:n kind:t refcount:n mapcount:n mappings:l", "frame")
    if answer["frame"]["mapcount"]:
        keys(answer["frame"]["mappings"], "space:t va:x perm:t type:t refs:n", "mappings")
equal(len(json_of(f"ktf-frame --va {planted}")["violations"]), 2, "violations of the planted frame")

answer = json_of("ktf-pt-check")
names = "counts total violations in_progress unsettled notes seconds".split()
equal(list(answer), HEAD + names, "ktf-pt-check")
keys([answer["counts"]], "entries:n leaves:n frames:n mappings:n spaces:n", "counts")
row = "rule:t space:t? va:x? level:n? entry:x? mfn:x? message:t"
keys(answer["violations"], row, "violations")

# The last line of the text.
last = run("ktf-pt-check").splitlines()[-1]
check(re.fullmatch(r"\d+ entries, \d+ frames, \d+ mappings: 2 violations", last), last)

# An error is an object as well.
for command in ("ktf-maps nonsense", "ktf-frame nonsense", "ktf-pt-check --rule Z"):
    equal(list(json_of(command)), HEAD + ["error"], command)
passed()
