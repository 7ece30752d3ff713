"""Parsers that tell a user in one sentence what is wrong, and what was probably meant."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from shutil import get_terminal_size
from typing import Any, NoReturn

LEFT, WIDTH = 33, 110  # columns of the help of arguments, in a terminal that is wide enough


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` with what is nearest to a word, or nothing where nothing is near.

    Nearest are the first one that has the word for its initials (lr for learning_rate), and the shortest that begins
    with it.
    """
    every, bare = list(dict.fromkeys(known)), word.lstrip("-")
    near = [one for one in every if "".join(part[:1] for part in one.lstrip("-").split("_")) == bare]
    near += [one for one in sorted(every, key=len) if len(bare) > 1 and one.startswith(word)]
    near += get_close_matches(word, every, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` that takes no abbreviations and prints a problem without the usage.

    The exit status of a problem is 2, as argparse has it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        fixed = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*args, **{**kwargs, **fixed})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        found, unknown = self.parse_known_args(args, namespace)
        self.refuse(unknown)
        return found

    def parse_with_rest(self, argv: Sequence[str] | None = None) -> tuple[Any, list[str]]:
        """What this parser reads, and the options that it does not know, which are passed on.

        What comes first must be the positional argument: behind an option that is not known here, its value would be
        taken for it.
        """
        words = sys.argv[1:] if argv is None else list(argv)
        first = next((action.dest for action in self._actions if not action.option_strings), "")
        if words and words[0].startswith("-") and words[0] not in ("-h", "--help"):
            self.error(f"{first} comes before the options: {self.prog} {first.upper()} {words[0]} ...")
        return self.parse_known_args(words)

    def refuse(self, unknown: Sequence[str]) -> None:
        """End with one sentence on the words that nothing reads, if there are any."""
        if not unknown:
            return
        options = [word.partition("=")[0].replace("-", "_") for word in unknown if word.startswith("--")]
        known = [name for action in self._actions for name in action.option_strings]
        if not options:
            self.error(f"{' '.join(unknown)}: belongs to no option; --help lists them.")
        told = [f"--{name[2:]}{did_you_mean(f'--{name[2:]}', known)}" for name in options]
        self.error(f"unknown {', '.join(told)}; --help lists the options.")


def width() -> int:
    """Columns of a help."""
    return min(WIDTH, get_terminal_size((WIDTH, 24)).columns)


def row(left: str, told: str, default: Any) -> list[str]:
    """An argument with its help and, where it has one, its default."""
    value = getattr(default, "value", default)
    shown = "" if value is None or value is False or value in ("", [], {}) else f" [{value}]"
    lines = textwrap.wrap(" ".join(told.split()) + shown, max(width() - LEFT, 20)) or [""]
    own_line = len(left) + 3 > LEFT
    first = [f"  {left}"] if own_line else [f"  {left:<{LEFT - 2}}{lines[0]}".rstrip()]
    return [*first, *(" " * LEFT + line for line in (lines if own_line else lines[1:]))]
