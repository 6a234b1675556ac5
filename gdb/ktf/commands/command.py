# SPDX-License-Identifier: BSD-2-Clause
# What every ktf command has in common: options, errors in one line or in JSON, help, completion.
"""Commands without gdb: a class with a docstring (its help), options, and run(); target.py registers it."""

from __future__ import annotations

import difflib
import json
import os
import traceback
from dataclasses import dataclass, field
from typing import Any, Iterable, Sequence

from ktf.errors import KtfError, UsageError
from ktf.kernel.context import Context

SCHEMA = 1


@dataclass(frozen=True)
class Option:
    """--name with that many values; choices only serve completion. many: may be given again."""

    name: str
    values: int = 0
    choices: Sequence[str] = ()
    many: bool = False


JSON = Option("--json")


@dataclass
class Args:
    """A parsed command line: options by name with their values, and the rest."""

    options: dict[str, list[str]] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """True if the option was given."""
        return name in self.options

    def value(self, name: str) -> str | None:
        """The first value of an option."""
        values = self.options.get(name)
        return values[0] if values else None


class Command:
    """A command. Subclasses set name and options and write run(); their docstring is the help."""

    name = ""
    options: Sequence[Option] = (JSON,)
    operand = ""  # what stands without an option: "expression", "location", "file", for completion

    def run(self, context: Context, args: Args) -> None:
        """Does it; KtfError for what the user should know."""
        raise NotImplementedError

    def choices(self, context: Context, option: str) -> Sequence[str]:
        """Completions of an option's value (of the operand, for ""); by default what the option lists."""
        return next((o.choices for o in self.options if o.name == option), ())

    def complete(self, context: Context, text: str, word: str | None) -> list[str]:
        """What could stand where the cursor is: values of the option before it, else options.

        GDB replaces only word, the end of the last of our words behind a "-" or ",".
        """
        token = self.token(text)
        before = text[: len(text) - len(token)].split()
        last = before[-1] if before else ""
        if any(o.name == last and o.values for o in self.options):
            start = token.replace("!", ",").rpartition(",")[2]
            found = list(self.choices(context, last))
        else:
            start = token
            found = [o.name for o in self.options] + list(self.choices(context, ""))
        skip = len(start) - len(word or "")
        return [c[skip:] for c in found if c.startswith(start) and skip >= 0]

    @staticmethod
    def token(text: str) -> str:
        """The word that is being typed."""
        return text.split()[-1] if text and not text[-1].isspace() else ""

    def takes_operand(self, text: str) -> bool:
        """Whether the word that is being typed, and begun, is the operand."""
        token = self.token(text)
        before = text[: len(text) - len(token)].split()
        values = {o.name: o.values for o in self.options}
        after = [w for i, w in enumerate(reversed(before[-2:])) if values.get(w, 0) > i]
        asked = any(values[word] == 2 for word in after)  # the ends of a range are expressions
        return bool(self.operand and token and not token.startswith("-") and (asked or not after))

    def parse(self, line: str) -> Args:
        """Splits and sorts a command line; UsageError for what it does not know."""
        args = Args()
        words = split(line)
        known = {o.name: o for o in self.options}
        while words:
            word = words.pop(0)
            if word not in known and not _like_option(word, known):
                args.rest.append(word)
                continue
            name, equals, value = word.partition("=")
            option = known.get(name)
            if option is None or (equals and not option.values):
                raise UsageError(self._no_option(word))
            if option.values and not option.many and args.has(name):
                raise UsageError(f"{name} is given twice; see `help {self.name}`")
            if equals:
                words.insert(0, value)
            given = words[: option.values]
            if len(given) < option.values or any(g in known or g.startswith("--") for g in given):
                what = "a value" if option.values == 1 else f"{option.values} values"
                some = ", ".join(option.choices[:4])
                raise UsageError(
                    f"{name} needs {what}{f', e.g. {some}' if some else ''}; see `help {self.name}`"
                )
            args.options.setdefault(name, []).extend(given)
            words = words[option.values :]
        return args

    def _no_option(self, word: str) -> str:
        """What to say of an option that there is not."""
        names = [o.name for o in self.options]
        near = difflib.get_close_matches("--" + word.lstrip("-").partition("=")[0], names, 1, 0.6)
        if word.partition("=")[0] in names:
            return f"{word.partition('=')[0]} takes no value; see `help {self.name}`"
        text = f"no option {word}; there are: {' '.join(names)}"
        return f"{text} ({near[0]} is meant?)" if near else text

    def invoke(self, context: Context, line: str) -> None:
        """Runs a command line. With --json an error is an object, else a KtfError is raised."""
        try:
            self.run(context, self.parse(line))
        except Exception as e:  # the one place where nothing may get through
            message = str(e) if isinstance(e, KtfError) else internal_error(e)
            if "--json" not in line.split():
                raise KtfError(message) from e
            context.write(json_line(self.name, ok=False, error=message))


def _like_option(word: str, known: Iterable[str]) -> bool:
    """Whether a word is meant for an option: --NAME, or -NAME of a known one; `-1` and `-symbol` are expressions."""
    return word.startswith("--") or (word.startswith("-") and f"-{word.partition('=')[0]}" in known)


def internal_error(error: Exception) -> str:
    """A mistake of ours in one line: what and where."""
    text = " ".join(str(error).split()) or type(error).__name__
    if type(error).__module__ == "gdb":
        return text
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"internal error: {type(error).__name__}: {text}{at}"


def json_line(command: str, ok: bool = True, **values: Any) -> str:
    """One object on one line."""
    head = {"schema": SCHEMA, "command": command, "ok": ok}
    return json.dumps({**head, **values}, separators=(",", ":")) + "\n"


def split(line: str) -> list[str]:
    """Words at blanks, except inside brackets and quotes, so that expressions stay whole.

    UsageError for a quote or bracket that is not closed.
    """
    words: list[str] = []
    depth, quote, word = 0, "", ""
    for c in line:
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth = max(depth - 1, 0)
        elif c.isspace() and not depth:
            words += [word] if word else []
            word = ""
            continue
        word += c
    if quote or depth:
        raise UsageError(f"a {'quote' if quote else 'bracket'} is not closed")
    return words + ([word] if word else [])
