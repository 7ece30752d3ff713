"""Which columns of a table hold the texts and the label: those that are named, or those whose names are usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset, Value

from hf_logitmix.tables.labels import LABELS, is_number

TEXTS = ("text", "sentence")
PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2")),
    *(("text_a", "text_b"), ("text", "text_pair")),
)
QUESTION = "question"  # pairs with the only other text


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Attributes:
        texts: one, or two for pairs.
        labels: one, or several with a number for each class; empty where there are no labels.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def of_labels(self) -> str:
        """The columns of the labels, for errors."""
        named = " and ".join(map(repr, self.labels))
        return f"columns {named}" if len(self.labels) > 1 else f"column {named}"


def find_columns(
    data: Dataset,
    where: str,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | Sequence[str] | None = None,
    needs_label: bool = True,
) -> Columns:
    """The columns of a table, found where they are not named.

    The label is ``label``, ``labels``, ``target`` or ``score``. The texts are a usual pair (``sentence1`` and
    ``sentence2``, ``premise`` and ``hypothesis``, ...), ``text`` or ``sentence``, ``question`` with the only other
    text, or the only text there is. Case does not matter. A column of numbers is no text, though they be written out.

    Args:
        data: the table.
        where: what it is called in errors.
        text, text_pair, label: names; None finds it, but no second text is looked for beside a ``text`` that is named.
            Several of ``label`` are a column for each class.
        needs_label: whether labels must be there.

    Raises:
        ValueError: for a name that is not there, and for columns that cannot be told; with those that are there.
    """
    labels = (label,) if isinstance(label, str) else tuple(label or ())
    wanted = [("text_column", text), ("text_pair_column", text_pair), *(("label_column", name) for name in labels)]
    for argument, name in wanted:
        if name is not None and name not in data.column_names:
            raise ValueError(f"{argument}={name!r} is no column of {where}, whose columns are {_listed(data)}.")
    if text_pair is not None and text is None:
        raise ValueError(f"text_pair_column={text_pair!r} is the second text: pass --text_column too.")
    named = [name for name in (text, text_pair, *labels) if name is not None]
    if twice := [name for name in named if named.count(name) > 1]:
        raise ValueError(f"column {twice[0]!r} is named twice: pass a column of its own for each of text and label.")
    labels = labels or _find_label(data, where, named, needs_label)
    if text is not None:
        return Columns((text,) if text_pair is None else (text, text_pair), labels)
    return Columns(_find_texts(data, where, labels), labels)


def check_columns(data: Dataset, columns: Columns, where: str) -> None:
    """Refuse a table that lacks columns of another, or holds something else than texts in them.

    Raises:
        ValueError: with the columns that are there, or with the number of the first row without a text.
    """
    for name in (*columns.texts, *columns.labels):
        if name not in data.column_names:
            raise ValueError(
                f"{where} has no column {name!r} as the training data has; its columns are {_listed(data)}."
            )
    for name in columns.texts:
        if not _holds_strings(data, name):
            raise ValueError(
                f"{where}: column {name!r} holds {data.features[name]} and no texts: name another with --text_column; "
                f"the columns are {_listed(data)}."
            )
        for number, value in enumerate(data.with_format(None)[name][:], start=1):
            if value is None or not value.strip():
                raise ValueError(
                    f"{where}, row {number}: no text in column {name!r}: fill it in, or leave the row out."
                )


def _find_label(data: Dataset, where: str, taken: Sequence[str], needs_label: bool) -> tuple[str, ...]:
    found = [name for name in data.column_names if name.lower() in LABELS and name not in taken]
    if len(found) == 1 or (not found and not needs_label):
        return tuple(found)
    which = f"columns {' and '.join(found)} may all be" if found else f"no column is called {', '.join(LABELS)}, to be"
    raise ValueError(f"{where}: {which} the label: name it with --label_column; the columns are {_listed(data)}.")


def _find_texts(data: Dataset, where: str, labels: Sequence[str]) -> tuple[str, ...]:
    strings = {name.lower(): name for name in data.column_names if name not in labels and _holds_strings(data, name)}
    usual = [pair for pair in PAIRS if set(pair) <= strings.keys()]
    in_pairs = {name for pair in usual for name in pair}
    usual += [(name,) for name in TEXTS if name in strings and name not in in_pairs]  # type: ignore[misc]
    if not usual:
        texts = [name for name in strings if _are_texts(data, strings[name])]
        others = [name for name in texts if name != QUESTION]
        if QUESTION in texts and len(others) == 1:
            usual = [(QUESTION, others[0])]
        elif len(texts) == 1:
            usual = [(texts[0],)]  # type: ignore[list-item]
    elif len(usual) == 1 and usual[0] == ("sentence",) and QUESTION in strings:
        usual = [(QUESTION, "sentence")]
    if len(usual) != 1:
        several = " or ".join("+".join(strings[name] for name in names) for names in usual)
        fault = f"the text may be {several}" if usual else "no column is the text by its name or as the only one"
        raise ValueError(
            f"{where}: {fault}: name it with --text_column, and a second one with --text_pair_column; the columns are "
            f"{_listed(data)}."
        )
    return tuple(strings[name] for name in usual[0])


def _holds_strings(data: Dataset, name: str) -> bool:
    feature = data.features[name]
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")


def _are_texts(data: Dataset, name: str) -> bool:
    """Whether a column of strings holds anything but numbers that are written out."""
    return any(value and not is_number(value) for value in data.with_format(None)[name][:])


def _listed(data: Dataset) -> str:
    return ", ".join(data.column_names)
