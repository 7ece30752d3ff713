"""The options of a method: the fields of its parts, and of what those fields hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

RENAMED = {"drops": "milestones", "p": "norm", "s": "similarity_fn"}  # names of older releases, which still work


@dataclasses.dataclass(frozen=True)
class Option:
    """One field that is for a user to set.

    Attributes:
        name: as `hf_logitmix.get_method` and the command line take it.
        path: where it is: the name of a part, of a field, and of a field of what that holds (``alpha`` of a `Beta`).
        field: the field itself, with its help in ``metadata``.
    """

    name: str
    path: tuple[str, ...]
    field: dataclasses.Field[Any]

    @property
    def full_name(self) -> str:
        """The name that no other option shares."""
        return "__".join(self.path)


def options_of(part: Any, *path: str) -> Iterator[Option]:
    """Options of a part: fields that its `repr` shows, unless ``metadata["option"]`` says otherwise.

    That is True, False or another name for it. A field that holds a dataclass of settings has options of its own.
    """
    for field in dataclasses.fields(part) if dataclasses.is_dataclass(part) else ():
        told = field.metadata.get("option", field.repr)
        if not told:
            continue
        yield Option(told if isinstance(told, str) else field.name, (*path, field.name), field)
        if field.metadata.get("holds_options"):
            yield from options_of(getattr(part, field.name), *path, field.name)


def fields_of(parts: Mapping[str, Any]) -> list[Option]:
    """The options of some parts that are fields of these themselves."""
    return [option for name, part in parts.items() for option in options_of(part, name) if len(option.path) == 2]


def find(parts: Mapping[str, Any], name: str) -> Option:
    """The option of some parts that a name means: a short one that only one of them has, or a full one.

    Raises:
        ValueError: for a name that none of them has, or several; the message lists what can be passed.
    """
    every = [option for part, value in parts.items() for option in options_of(value, part)]
    found = [option for option in every if name in (option.name, option.full_name)]
    if len(found) == 1:
        return found[0]
    if not found and name in RENAMED:
        return find(parts, RENAMED[name])
    if found:
        names = " or ".join(option.full_name for option in found)
        raise ValueError(f"{name} is an option of several parts of this method: pass {names}.")
    accepted = ", ".join(dict.fromkeys(option.name for option in every))
    raise ValueError(
        f"{name} is not an option of this method: it has {accepted}; targets and criterion are of every method."
    )


def with_values(part: Any, path: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    """A copy of a part with some fields changed, its own or, along a path, those of what a field holds."""
    if not path:
        return dataclasses.replace(part, **values)
    first, *rest = path
    return dataclasses.replace(part, **{first: with_values(getattr(part, first), tuple(rest), values)})
