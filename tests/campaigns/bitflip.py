#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The bit-flip campaign: one bit of one structure broken at a time, the whole of ktf-pt-check, the bit put back.

Then the same with a field's value: 0, all ones, one more, one less.

A guest with a busy memory (test=busy, 4 CPUs) is stopped by GDB at busy_ready(). Its types and registers and a copy of
its memory are taken out of GDB once; then the command itself runs on the copy, without GDB. Some of the flips are
done in the guest itself as well, where GDB must give the same answer.

Each flip is found (a violation, or a lock that is said to be held), or harmless by definition (HARMLESS, by field,
with the reason), or missed. Exit status 1 if any is missed, if the command fails, or takes over 10 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import re
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "gdb"))

from bitflip_fields import Field, fields, pages  # noqa: E402
from bitflip_frozen import Frozen  # noqa: E402
from campaign import campaign_end  # noqa: E402
from fake_guest import Plain  # noqa: E402
from ktf.commands.check import CheckCommand  # noqa: E402
from ktf.kernel.database import Database  # noqa: E402
from ktf.errors import KtfError  # noqa: E402
from leash import end_with  # noqa: E402
from qemu import EXIT_SUCCESS, Guest, gdb_command  # noqa: E402

WORD = 64  # bits of a blank that are given a value together
SLOW = 10.0  # seconds of the processor for one check
GUEST: dict[str, Any] = {"mem": "128M", "smp": 4, "cmdline": "test=busy", "ramfile": True}
# Fields in which a flip that is not found does no harm, by their definition: pattern of the field, reason.
COUNTER = "a counter that may have any value beyond what it has given out; lower ones are found"
HARMLESS = {
    r"table of level \d: .*: A": "accessed: the CPU sets it whenever it uses the entry",
    r"table of level \d: .*: D": "dirty: the CPU sets it; ignored in an entry to a table",
    r"table of level \d: entry to a table: G": "ignored by the CPU where no page is mapped",
    r"table of level \d: .*: ignored 9-11": "left to software by the CPU, and not used",
    r"table of level \d: .*: ignored 52-62": "left to software by the CPU (no protection keys), and not used",
    r"frame, .*: epoch": "any epoch that is over says the same: every CPU has flushed since; later ones are found",
    r"mm: epoch": COUNTER,
    r"mm: next_space": COUNTER,
    r"mm: journal_seq": "a counter of events; what is no multiple of an event is found",
    r"mm: boot_ticks": "a statistic: how long the boot took",
    r"mm: journal_on": "a switch: 0 and 1 are both right",
    r"mm: work": "a hint that some arena has too little or too much: upkeep looks, and finds nothing; MM_CHECK is found",
    r"mm: padding": "the compiler's gap between two members",
    r"mm\.batch: batch\.(va|run\..*)": "behind batch.count and batch.runs, which say that none is in use",
    r"mm\..*_lock: .*\.waiting": "a hint to look for sleepers, where 1 without sleepers is allowed",
    r"mm\..*_lock: .*\.sleepers": "a hint whom to wake; who does not sleep looks and goes on",
    r"space, user: name": "the caller's text for people; what is no letter is found",
    r"stacks: name": "a text for people; what is no letter is found",
}


@dataclass(frozen=True)
class Flip:
    """What is turned over: of which field, where, which bits from there on."""

    field: int
    at: int  # physical address * 8 + bit
    mask: int = 1
    what: str = "a bit"


@dataclass
class Outcome:
    """What the check said. verdict: found, silent, failed."""

    verdict: str
    text: str = ""
    seconds: float = 0.0
    rules: tuple[str, ...] = ()


# --- one check ---------------------------------------------------------------------------------------

FROZEN: Frozen  # of this process, set before the others are forked
FIELDS: list[Field]


def answer(frozen: Frozen) -> dict[str, Any]:
    """What `ktf-pt-check --json` says, without the time. KtfError if it refuses, and says why."""
    context = Plain(frozen.session())
    CheckCommand().invoke(context, "--json")
    found: dict[str, Any] = json.loads(context.text)
    if not found["ok"] and "error" in found:
        said = str(found["error"])
        raise (RuntimeError if said.startswith("internal error") else KtfError)(said)
    found.pop("seconds")
    return found


def judge(frozen: Frozen) -> Outcome:
    """Runs the command; a Python error of ours is an outcome, too."""
    started = time.process_time()
    try:
        found = answer(frozen)
    except KtfError as e:
        return Outcome("found", f"refused: {e}", time.process_time() - started, ("refused",))
    except Exception:  # the campaign's last resort: it must count, not end
        return Outcome("failed", traceback.format_exc(), time.process_time() - started)
    seconds = time.process_time() - started
    rules = tuple(sorted({v["rule"] for v in found["violations"]}))
    if found["total"]:
        return Outcome("found", found["violations"][0]["message"], seconds, rules)
    if found["in_progress"]:
        return Outcome("found", f"in progress: {found['in_progress']}", seconds, ("in progress",))
    return Outcome("silent", "", seconds)


def turn(frozen: Frozen, flip: Flip) -> None:
    """Turns the bits over; a second time: back."""
    mask = flip.mask << (flip.at & 7)
    size = (mask.bit_length() + 7) // 8
    frozen.bytes_at(flip.at >> 3, size)[:] ^= np.frombuffer(mask.to_bytes(size, "little"), np.uint8)


def try_flip(flip: Flip) -> Outcome:
    """Breaks, checks, mends."""
    turn(FROZEN, flip)
    try:
        return judge(FROZEN)
    finally:
        turn(FROZEN, flip)


def try_page(page: tuple[int, int, int]) -> Outcome:
    """Random bytes over [first, last) of physical memory."""
    first, last, seed = page
    place = FROZEN.bytes_at(first, last - first)
    saved = place.copy()
    place[:] = bytearray(random.Random(seed).randbytes(last - first))
    try:
        return judge(FROZEN)
    finally:
        place[:] = saved


# --- what is broken -----------------------------------------------------------------------------------


Chooser = Callable[[int, random.Random], Flip]  # of a field, by its number: where in it, and what


def some_bit(number: int, rng: random.Random) -> Flip:
    """Any bit of the field."""
    one = FIELDS[number]
    return Flip(number, int(one.places[rng.randrange(len(one.places))]) + rng.randrange(one.bits))


def some_value(number: int, rng: random.Random) -> Flip:
    """0, all ones, one more or one less in one of its places; of a longer blank, in one word of it."""
    one = FIELDS[number]
    at, bits = int(one.places[rng.randrange(len(one.places))]), one.bits
    if bits > WORD:
        at, bits = at + WORD * rng.randrange(bits // WORD), WORD
    ones, size = (1 << bits) - 1, ((at & 7) + bits + 7) // 8
    raw = int.from_bytes(FROZEN.bytes_at(at >> 3, size).tobytes(), "little")
    old = raw >> (at & 7) & ones
    values = {"0": 0, "all ones": ones, "+1": old + 1 & ones, "-1": old - 1 & ones}
    what = rng.choice([name for name, value in values.items() if value != old])
    return Flip(number, at, old ^ values[what], what)


def choose(numbered: Iterable[int], count: int, chooser: Chooser, rng: random.Random) -> list[Flip]:
    """As many of each structure, and in it of each field; the rest by chance."""
    by_structure: dict[str, list[int]] = {}
    for number in numbered:
        by_structure.setdefault(FIELDS[number].structure, []).append(number)
    for numbers in by_structure.values():
        rng.shuffle(numbers)
    flips = []
    for i in range(count):
        numbers = list(by_structure.values())[i % len(by_structure)]
        flips.append(chooser(numbers[i // len(by_structure) % len(numbers)], rng))
    return flips


@dataclass
class Tally:
    """Of one structure or field."""

    flips: int = 0
    found: int = 0
    harmless: int = 0
    missed: int = 0


@dataclass
class Campaign:
    """All that came of it."""

    flips: list[Flip]
    outcomes: list[Outcome]

    def tally(self) -> tuple[dict[str, Tally], dict[str, Tally]]:
        """By structure, and by field."""
        structures: dict[str, Tally] = {}
        by_field: dict[str, Tally] = {}
        for flip, outcome in zip(self.flips, self.outcomes):
            one = FIELDS[flip.field]
            for table, key in ((structures, one.structure), (by_field, one.key())):
                t = table.setdefault(key, Tally())
                t.flips += 1
                if outcome.verdict == "found":
                    t.found += 1
                elif outcome.verdict == "silent" and harmless(flip):
                    t.harmless += 1
                else:
                    t.missed += 1
        return structures, by_field


def harmless(flip: Flip) -> str:
    """The reason why nobody need see it; "" if there is none."""
    key = FIELDS[flip.field].key()
    return next((why for name, why in HARMLESS.items() if re.fullmatch(name, key)), "")


# --- runs ----------------------------------------------------------------------------------------------


def enter(path: str) -> None:
    """Makes this process's own copy of the guest."""
    global FROZEN, FIELDS
    with open(f"{path}/facts", "rb") as f:
        FROZEN = Frozen(pickle.load(f), f"{path}/memory")
    FIELDS = fields(Database(FROZEN.session()))


def run_gdb(guest: Guest, path: str, *setup: str, **env: str) -> str:
    """tests/campaigns/bitflip_gdb.py inside GDB on the guest, which stays halted; what it printed."""
    command = gdb_command(guest.port, "-batch")
    command += [word for line in setup for word in ("-ex", line)]
    command += ["-x", str(ROOT / "tests/campaigns/bitflip_gdb.py")]
    more = {"BITFLIP": path, "KTF_RAMFILE": str(guest.ramfile), **env}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **more},
        check=False,
    )
    if "\nPASS\n" not in done.stdout:
        raise RuntimeError(f"GDB: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def in_guest(guest: Guest, path: str, flips: list[Flip]) -> list[str]:
    """The same flips in the real guest, by the command in GDB; what differs from what was said of the copy."""
    wanted = []
    for flip in flips:
        turn(FROZEN, flip)
        wanted.append({"at": flip.at, "mask": flip.mask, "said": answer(FROZEN)})
        turn(FROZEN, flip)
    Path(path, "wanted").write_text(json.dumps(wanted), encoding="ascii")
    said = run_gdb(guest, path, BITFLIP_STEP="compare")
    return [line for line in said.splitlines() if line.startswith("differs: ")]


# --- the report ----------------------------------------------------------------------------------------


def print_report(c: Campaign) -> int:
    """The table by structure, harmless fields with their reasons, what was missed; how many are."""
    structures, by_field = c.tally()
    print(f"{'structure':42}{'flips':>7}{'found':>7}{'harmless':>9}{'missed':>7}")
    total = Tally()
    for name, t in sorted(structures.items()):
        print(f"{name:42}{t.flips:7}{t.found:7}{t.harmless:9}{t.missed:7}")
        for key, value in asdict(t).items():
            setattr(total, key, getattr(total, key) + value)
    print(f"{'all':42}{total.flips:7}{total.found:7}{total.harmless:9}{total.missed:7}")
    print("harmless by definition:")
    for pattern, why in HARMLESS.items():
        count = sum(t.harmless for key, t in by_field.items() if re.fullmatch(pattern, key))
        flips = sum(t.flips for key, t in by_field.items() if re.fullmatch(pattern, key))
        if flips:
            print(f"  {count:5} of {flips:5} flips of {pattern}: {why}")
    rules = Counter(r for o in c.outcomes for r in o.rules)
    print("found by: " + ", ".join(f"{r} {n}" for r, n in sorted(rules.items())))
    for key, t in sorted(by_field.items()):
        if t.missed:
            print(f"MISSED {t.missed} of {t.flips}: {key}")
    return total.missed


def failures(what: str, outcomes: list[Outcome]) -> Iterator[str]:
    """What must not be, whatever is broken: errors of ours, and checks that take too long."""
    for o in outcomes:
        if o.verdict == "failed":
            yield f"{what}: {o.text}"
        if o.seconds > SLOW:
            yield f"{what}: {o.seconds:.1f} s: {o.text}"


def overwrite(pool: ProcessPoolExecutor, count: int, rng: random.Random) -> list[str]:
    """Pages of random bytes; what went wrong."""
    every = pages(Database(FROZEN.session()))
    rng.shuffle(every)
    chosen = [every[i % len(every)] for i in range(count)]
    work = [(first, end, rng.randrange(1 << 32)) for _, first, end in chosen]
    outcomes = list(pool.map(try_page, work, chunksize=4))
    silent = [c for c, o in zip(chosen, outcomes) if o.verdict == "silent"]
    wrong = [
        f"random bytes in {name}, {first:#x} to {end:#x}: no finding" for name, first, end in silent
    ]
    wrong += failures("random bytes", outcomes)
    found = sum(o.verdict == "found" for o in outcomes)
    slowest = max((o.seconds for o in outcomes), default=0.0)
    kinds = len({name for name, _, _ in chosen})
    print(
        f"{count} pages of random bytes, of {kinds} structures: {found} found, the slowest in {slowest:.2f} s"
    )
    return wrong


def tried(pool: ProcessPoolExecutor, flips: list[Flip]) -> Campaign:
    """What comes of each; those that nobody sees are printed at once."""
    outcomes = []
    for flip, outcome in zip(flips, pool.map(try_flip, flips, chunksize=8)):
        outcomes.append(outcome)
        if outcome.verdict != "found" and not harmless(flip):
            what = f"{FIELDS[flip.field].key()}: {flip.what}: bit {flip.at:#x}"
            print(f"{outcome.verdict}: {what}: {outcome.text}", flush=True)
    return Campaign(flips, outcomes)


def judged(what: str, c: Campaign) -> list[str]:
    """Prints the report; what went wrong."""
    if not c.flips:
        return []
    slowest = max(o.seconds for o in c.outcomes)
    print(
        f"{what}, of {len({f.field for f in c.flips})} fields; the slowest check took {slowest:.2f} s"
    )
    missed = print_report(c)
    return ([f"{missed} {what} were missed"] if missed else []) + list(failures(what, c.outcomes))


def campaign(args: argparse.Namespace, guest: Guest, path: str) -> list[str]:
    """Everything; what went wrong."""
    run_gdb(guest, path, "hbreak busy_ready", "continue", BITFLIP_STEP="freeze")
    enter(path)
    rng = random.Random(args.seed)
    healthy = judge(FROZEN)
    if healthy.verdict != "silent":
        return [f"the healthy guest: {healthy}"]
    flips = choose(range(len(FIELDS)), args.flips, some_bit, rng)
    wide = [number for number, one in enumerate(FIELDS) if one.bits > 1]
    values = choose(wide, args.values, some_value, rng)
    mine = (os.getpid(),)
    with ProcessPoolExecutor(args.jobs, get_context("fork"), end_with, mine) as pool:
        bits, others = tried(pool, flips), tried(pool, values)
        wrong = overwrite(pool, args.pages, rng)
    wrong += judged("flips of a bit", bits) + judged("values of a field", others)
    whole = [
        f for c in (bits, others) for f, o in zip(c.flips, c.outcomes) if o.verdict != "failed"
    ]
    some = rng.sample(whole, args.real)
    differs = in_guest(guest, path, some)
    print(f"{len(some)} of them in the guest itself, by GDB: {len(differs)} answers differ")
    return wrong + differs


def main() -> int:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=20000)
    parser.add_argument("--values", type=int, default=2500, help="fields that get another value")
    parser.add_argument("--pages", type=int, default=500, help="pages of random bytes")
    parser.add_argument("--real", type=int, default=40, help="flips that GDB repeats in the guest")
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    args.seed = random.randrange(1 << 32) if args.seed is None else args.seed
    os.umask(0o077)
    print(f"seed {args.seed}", flush=True)
    started = time.monotonic()
    with Guest(stopped=True, timeout=7200, **GUEST) as guest:
        wrong = campaign(args, guest, str(guest.dir))
        guest.cont()  # healthy again: its own test takes all apart, and counts
        status = guest.wait()
        if status != EXIT_SUCCESS:
            wrong.append(f"the guest ended with status {status}: {guest.tail()}")
    return campaign_end("bitflip", wrong, started, args)


if __name__ == "__main__":
    sys.exit(main())
