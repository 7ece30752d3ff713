"""List the methods; of one, its parts, its options with their defaults, and its papers.

hf-logitmix methods
hf-logitmix methods mixup
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from hf_logitmix.commands.parser import Parser, did_you_mean, row, width
from hf_logitmix.method import Method
from hf_logitmix.methods import METHODS
from hf_logitmix.options import Option, options_of
from hf_logitmix.part import Part


def values_of(method: Method) -> Iterator[tuple[Option, Any]]:
    """The options of a method's parts with their values."""
    for name, part in method.parts.items():
        for option in options_of(part, name):
            value: Any = part
            for step in option.path[1:]:
                value = getattr(value, step)
            yield option, value


def in_short(part: Any) -> str:
    """A part as one would write it: with the options that are not its defaults."""
    if not is_dataclass(part):
        return repr(part)
    plain = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(part)}
    values = {f.name: getattr(part, f.name) for f in fields(part) if f.repr}
    shown = {name: in_short(value) for name, value in values.items() if value != plain[name]}
    if len(values) == 1:  # Beta(0.4)
        return f"{type(part).__name__}({', '.join(shown.values())})"
    return f"{type(part).__name__}({', '.join(f'{name}={value}' for name, value in shown.items())})"


def rows_of(method: Method) -> str:
    """Which rows a step trains on, in words."""
    return " or ".join({"both": "clean and mixed"}.get(kind, kind) for kind in sorted(method.objective.kinds))


def shown_parts(method: Method) -> dict[str, Part]:
    """The parts that make the difference: without pairing and mixing where no rows are mixed."""
    return {name: part for name, part in method.parts.items() if method.mixes or name not in ("pairing", "mixing")}


def in_words(part: Part) -> str:
    """The docstring of a part up to its attributes, without the paragraphs that hold formulas."""
    text = re.split(r"^(?:Attributes|Raises|Args|Example):$", inspect.getdoc(type(part)) or "", flags=re.MULTILINE)[0]
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return "\n".join(
        paragraph.replace("`", "")
        for paragraph in paragraphs
        if paragraph and ":math:" not in paragraph and ".. math::" not in paragraph and "\\" not in paragraph
    )


def overview() -> str:
    """A line for each method."""
    width = max(map(len, METHODS)) + 2
    lines = [f"{name:<{width}}{', '.join(map(in_short, shown_parts(m).values()))}" for name, m in METHODS.items()]
    return "\n".join([*lines, "", "hf-logitmix methods NAME tells of one what it does, its options and its papers."])


def page(name: str) -> str:
    """All about one method.

    Raises:
        ValueError: for a name that is not there.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} is unknown{did_you_mean(name, METHODS)}: hf-logitmix methods lists them.")
    method = METHODS[name]
    first = next(other for other, known in METHODS.items() if known == method)  # a page for names of one method
    lines = [f"{name}: trains on {rows_of(method)} rows"]
    for kind, part in shown_parts(method).items():
        lines += ["", f"{kind}: {in_short(part)}", *_wrapped(in_words(part), "  ")]
    lines += ["", "Options on a command line; get_method and MixTrainingArguments take them without the dashes:"]
    for option, value in values_of(method):
        if option.path[0] in shown_parts(method):
            is_open = option.field.metadata.get("command_line", True)
            told = option.field.metadata.get("help", "")
            lines += row(f"{'--' * is_open}{option.name}", told if is_open else f"{told} In Python.", in_short(value))
    for whole in fields(Method):
        if "help" in whole.metadata and getattr(method, whole.name) is None:
            lines += row(f"--{whole.name}", f"{whole.metadata['help']} (with every method)", None)
    if method.papers:
        lines += ["", "Papers:"]
        for paper in method.papers:
            lines += _wrapped(f"{paper.reference}: {paper.url}", "  ")
    lines += ["", f"Page: docs/methods/{first}.md", f'In Python: MixTrainer(..., method="{name}")']
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return [
        line
        for paragraph in text.split("\n")
        for line in textwrap.wrap(
            paragraph, width(), initial_indent=indent, subsequent_indent=indent, break_long_words=False
        )
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix methods", description=__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a method")
    name = parser.parse_args(argv).name
    print(overview() if name is None else page(name))
    return 0
