"""The command `hf-logitmix`: each subcommand is a module, which is imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import NoReturn

from hf_logitmix._requirements import COMMANDS as RUNS
from hf_logitmix._requirements import PLOTS, VISION, require
from hf_logitmix._version import __version__
from hf_logitmix.commands.parser import did_you_mean

NAME = "hf-logitmix"


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        module: has ``main(argv) -> int``, the exit status.
        told: what it does.
        needs: packages beyond those that the library needs, with the bounds of their versions.
    """

    module: str
    told: str
    needs: Mapping[str, str] = field(default_factory=dict)


COMMANDS = {
    "demo": Command("hf_logitmix.glue.demo", "compare three methods on synthetic sentences, offline, in minutes", RUNS),
    "glue": Command("hf_logitmix.glue.run", "fine-tune a text classifier on a GLUE task", RUNS),
    "text": Command("hf_logitmix.text.train", "fine-tune a text classifier on data of your own", RUNS),
    "images": Command("hf_logitmix.vision.train", "train an image classifier", {**RUNS, **VISION}),
    "compare": Command(
        "hf_logitmix.commands.compare", "learn whether methods help on your data: methods x seeds and a verdict", RUNS
    ),
    "sweep": Command("hf_logitmix.commands.sweep", "run tasks x methods x seeds of a file", RUNS),
    "table": Command("hf_logitmix.commands.table", "collect runs into one table, with tests against a baseline"),
    "report": Command("hf_logitmix.commands.report", "write a page of tables and pictures about runs", PLOTS),
    "cam": Command("hf_logitmix.vision.cam", "draw where in an image runs see its class", {**RUNS, **VISION}),
    "toy": Command("hf_logitmix.toy.command", "what every method makes of points, offline, in half a minute", PLOTS),
    "figure": Command("hf_logitmix.commands.figure", "draw a figure of a paper from runs", PLOTS),
    "methods": Command("hf_logitmix.commands.methods", "list the methods; of one: its parts, options and papers"),
}


def overview() -> str:
    """What there is, on one screen."""
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(
        [
            f"usage: {NAME} COMMAND ...",
            "",
            "LogitMix, Mixup and friends for Hugging Face Transformers.",
            "",
            *(f"  {name:<{width}}{command.told}" for name, command in COMMANDS.items()),
            "",
            f"{NAME} COMMAND --help tells more; {NAME} --version is {__version__}.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command line to its exit status; a problem of the user's is printed as one sentence."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        sys.exit(0)
    if name == "--version":
        print(__version__)
        sys.exit(0)
    if name not in COMMANDS:
        told = did_you_mean(name, COMMANDS) or f": pass one of {', '.join(COMMANDS)}"
        print(f"{NAME}: unknown command {name}{told}", file=sys.stderr)
        sys.exit(2)
    command, called = COMMANDS[name], f"{NAME} {name}"
    try:
        require(command.needs, called)
    except ImportError as problem:
        sys.exit(str(problem))
    module = import_module(command.module)
    exit_with = import_module("hf_logitmix.training.command_line").exit_with
    exit_with(partial(module.main, rest), called)
    raise AssertionError  # for a checker of types: it has left
