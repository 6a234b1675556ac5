# SPDX-License-Identifier: BSD-2-Clause
# The tables that ktf-acpi dumps are those that Linux has, of Linux's own guest and of ours on the same machine, byte for byte;
# iasl reads each; the devices in them are those that Linux has, and our kernel's own ACPI.
# guest: boot=linux-acpi symbols=0 mem=256M machine=pc stop=said:ktf-linux-ready timeout=180
# guest: boot=linux-acpi symbols=0 mem=256M machine=q35 stop=said:ktf-linux-ready timeout=180
import os
import re
from pathlib import Path

import gdb
from asl import declared, disassemble, full
from inside import check, connect, equal, json_of, passed, run
from qemu import EXIT_FAILURE, EXIT_SUCCESS, Guest

ROOTS = ("RSDT", "XSDT")  # of which Linux makes no file
folder = Path(os.environ["KTF_SERIAL"]).parent

# What Linux says: "table NAME HEX", "device NAME PATH".
said = Path(os.environ["KTF_SERIAL"]).read_text(errors="replace").replace("\r", "").splitlines()
words = [line.split() for line in said]
linux = {w[1]: bytes.fromhex(w[2]) for w in words if w[0:1] == ["table"] and len(w) == 3}
devices = {w[1]: w[2] for w in words if w[0:1] == ["device"] and len(w) == 3}
check(len(linux) > 4 and len(devices) > 20, f"Linux says little: {list(linux)} {len(devices)}")


def dumped(what: str) -> dict[str, bytes]:
    """All tables of the guest that GDB has now."""
    equal(json_of("ktf-acpi")["problems"], [], what)
    target = folder / what
    run(f"ktf-acpi --dump-all {target}")
    return {file.stem: file.read_bytes() for file in sorted(target.iterdir())}


def same_as_linux(tables: dict[str, bytes], what: str) -> None:
    """No table more or less, no byte that differs."""
    mine = {name: data for name, data in tables.items() if name not in ROOTS}
    equal(sorted(mine), sorted(linux), what)
    for name, data in mine.items():
        equal(len(data), len(linux[name]), f"{what}: length of {name}")
        differ = [hex(i) for i, (a, b) in enumerate(zip(data, linux[name])) if a != b]
        equal(differ, [], f"{what}: offsets at which {name} differs")


same_as_linux(dumped("linux"), "Linux's guest")

# Our kernel on the same machine, the disk included.
gdb.execute("disconnect", to_string=True)
machine = "q35" if "MCFG" in linux else "pc"
gdb.execute("file build/kernel.elf", to_string=True)
with Guest(mem="256M", machine=machine, timeout=150, cmdline="test=acpi") as guest:
    connect(guest.port)
    gdb.execute("hbreak ktf_ready", to_string=True)
    gdb.execute("continue", to_string=True)
    ours = dumped("ours")
    same_as_linux(ours, "our guest")
    gdb.execute("detach", to_string=True)
    check(
        guest.wait() in (EXIT_SUCCESS, EXIT_FAILURE), "test=acpi"
    )  # guest/* judge what else it finds
    tree = re.findall(r"^ACPI: +(\\\S+).* status 0x", guest.output(), re.M)

# iasl reads each of them, and the devices in the AML are those that Linux has: but for the root, the scopes
# and the power button of the FADT, which are devices of Linux alone.
paths = set()
for name in ours:
    text = disassemble(folder / "ours" / f"{name}.dat")
    check(f'"{name}"' in text or f"[{name}]" in text, f"iasl takes {name} for something else")
    if name in ("DSDT", "SSDT"):
        paths |= declared(text)
own = {path for name, path in devices.items() if name.startswith(("LNXSYSTM", "LNXSYBUS"))}
equal(sorted(own), ["\\", "\\_SB_", "\\_TZ_"], "Linux's own")
theirs = set(devices.values()) - own
equal(sorted(paths - theirs), [], "devices that Linux does not have")
equal(sorted(theirs - paths), [], "devices that Linux alone has")
ours_too = {"\\" + ".".join(full((), path)) for path in tree}
equal(sorted(ours_too ^ paths), [], "our kernel's namespace")
equal(len(tree), len(paths), "our kernel names a device twice")
print(f"{len(linux)} tables, {len(paths)} devices")
passed()
