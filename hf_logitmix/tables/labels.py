"""Labels of a column: which kind they are, which classes there are, and the numbers that a model learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset

from hf_logitmix.soft_labels import first_fault

REGRESSION, ONE, SEVERAL = "regression", "single_label_classification", "multi_label_classification"


@dataclass(frozen=True)
class Labels:
    """What labels are.

    Attributes:
        problem_type: as transformers calls it.
        names: of the classes, in order; empty for regression.
        soft: whether a label is a probability for each class.
        rows: whether labels come as a number for each class.
        named: whether the names came with the data or with a model, so that a label may be a class's number too.
    """

    problem_type: str
    names: tuple[str, ...] = ()
    soft: bool = False
    rows: bool = False
    named: bool = field(default=False, compare=False)

    def encode(self, values: Sequence[Any], where: str) -> np.ndarray:
        """The numbers that a model learns: [N] class ids, [N] floats for regression, or [N, K] floats.

        Args:
            values: of `label_values`, without None.
            where: what holds them, for errors.

        Raises:
            ValueError: with the first row whose label is none of these.
        """
        if self.problem_type == REGRESSION:
            return np.array([_as_score(value, f"{where}, row {row}") for row, value in _numbered(values)])
        if self.rows:
            return self._encode_rows(values, where)
        ids = {name: number for number, name in enumerate(self.names)}
        if self.problem_type == ONE:
            found = [self._id_of(value, ids, f"{where}, row {row}") for row, value in _numbered(values)]
            return np.array(found, dtype=np.int64)
        encoded = np.zeros((len(values), len(self.names)), dtype=np.float32)
        for row, several in _numbered(values):
            if not isinstance(several, list):
                raise ValueError(
                    f"{where}, row {row}: label {several!r} is no list, and the training labels are lists."
                )
            for value in several:
                encoded[row - 1, self._id_of(value, ids, f"{where}, row {row}")] = 1
        return encoded

    def _id_of(self, value: Any, ids: dict[str, int], where: str) -> int:
        if isinstance(value, list):
            raise ValueError(f"{where}: label {value!r} is a list, and the training labels are one class an example.")
        if (name := str(value)) in ids:
            return ids[name]
        if self.named and _is_id(value) and 0 <= int(value) < len(ids) and not any(map(_is_id, ids)):
            return int(value)
        raise ValueError(f"{where}: label {name!r} is none of the {len(ids)} classes: {few(self.names)}.")

    def _encode_rows(self, values: Sequence[Any], where: str) -> np.ndarray:
        count = len(self.names)
        for row, value in _numbered(values):
            if not isinstance(value, list) or len(value) != count or not all(map(_is_score, value)):
                raise ValueError(
                    f"{where}, row {row}: label {value!r} is no list of {count} numbers, one for each class."
                )
        encoded = np.array(values, dtype=np.float32).reshape(len(values), count)
        if self.soft and (found := first_fault(torch.from_numpy(encoded.astype(float)))):
            number, fault, fix = found
            raise ValueError(
                f"{where}, row {number + 1}: the soft label {fault}: {fix}, or leave --soft_labels out if several "
                "classes may hold at once."
            )
        if not self.soft and (others := np.argwhere((encoded != 0) & (encoded != 1))).size:
            number, column = others[0]
            raise ValueError(
                f"{where}, row {number + 1}: label {values[number]!r} holds {values[number][column]!r}, and the "
                "training labels are rows of 0 and 1: pass --soft_labels true for probabilities of classes."
            )
        return encoded


LABELS = ("label", "labels", "target", "score")  # what a column of them is called
PROBABILITY = "p_"  # before the name of a class, in predictions.csv and in columns of soft labels


def label_values(data: Dataset, column: str) -> list[Any]:
    """The labels of a column as they stand there, ids of a ClassLabel as its names.

    None is in the place of what is missing: of empty strings, of NaN, and of the id -1 that a ClassLabel has for it.
    """
    names = class_names(data, column)

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [int(one) if isinstance(one, bool) else plain(one) for one in value]
        if value is None or value == "" or value != value:
            return None
        if names and isinstance(value, int):
            return None if value < 0 else names[value] if value < len(names) else value
        return value

    return [plain(value) for value in data.with_format(None)[column][:]]


def label_rows(data: Dataset, columns: Sequence[str], where: str) -> list[Any]:
    """The labels of several columns, one for each class: a list of numbers each, which a csv has written out.

    None is in the place of a label that is missing in all of them, and in a list for one that is missing there alone.

    Raises:
        ValueError: for what is no number, with its row.
    """
    found = []
    of_columns = zip(*(label_values(data, column) for column in columns), strict=True)
    for number, values in enumerate(of_columns, start=1):
        for column, value in zip(columns, values, strict=True):
            if value is not None and not _is_score(value):
                raise ValueError(f"{where}, row {number}: {value!r} in column {column!r} is no number.")
        row = [value if value is None else float(value) for value in values]
        found.append(None if all(value is None for value in row) else row)
    return found


def names_of_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The classes that columns are called by, without the ``p_`` that all of them may begin with.

    Example:
        >>> names_of_columns(["p_no", "p_yes"]), names_of_columns(["p_no", "yes"])
        (('no', 'yes'), ('p_no', 'yes'))
    """
    has_prefix = all(len(name) > len(PROBABILITY) and name.startswith(PROBABILITY) for name in columns)
    return tuple(name.removeprefix(PROBABILITY) if has_prefix else name for name in columns)


def class_names(data: Dataset, column: str) -> tuple[str, ...]:
    """The names that a column's ClassLabel gives, of single labels or of lists; empty for other columns."""
    feature = data.features[column]
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)  # of a column of lists
    return next((tuple(known.names) for known in (feature, inner) if isinstance(known, ClassLabel)), ())


def labels_of(
    values: Sequence[Any],
    where: str,
    *,
    names: tuple[str, ...] = (),
    soft: bool = False,
    regression: bool | None = None,
) -> Labels:
    """What labels are, by those of the training data.

    Lists are multi-label, of ids, of names or as rows of zeros and ones; with ``soft`` they are probabilities. Numbers
    with a decimal point are scores of a regression. All else is one class an example: its classes are the values that
    there are, sorted, by size if they are whole numbers.

    Args:
        values: of `label_values`, without None.
        where: what holds them, for errors.
        names: of the classes, where the data brings them.
        soft: whether they are soft labels.
        regression: whether they are scores; None tells it by the numbers.

    Raises:
        ValueError: for labels of several kinds, for fractions in lists without ``soft``, for a single class, and where
            each example has a class of its own.
    """
    are_lists = isinstance(values[0], list)
    if soft and not are_lists:
        raise ValueError(
            f"soft_labels=True needs a column of lists of probabilities, and {where} holds {values[0]!r}: name a "
            "column for each class, such as --label_column p_no p_yes."
        )
    if are_lists:
        if regression:
            raise ValueError(f"do_regression=True needs one number an example, and {where} holds lists.")
        return _labels_of_lists(values, where, names, soft)
    if names and not regression:
        return Labels(ONE, names, named=True)
    if regression is None:
        regression = all(_is_score(value) for value in values) and not all(_is_id(value) for value in values)
    if regression:
        return Labels(REGRESSION)
    found = names or _sorted_names(values)
    if len(found) < 2:
        raise ValueError(f"{where} holds one class alone, {found[0]!r}: pass examples of at least two.")
    if len(found) == len(values) > 2:
        raise ValueError(
            f"{where} has another value in each of its {len(values)} rows ({few(found)}), which are no classes: name "
            "another with --label_column, or pass --do_regression true for numbers."
        )
    return Labels(ONE, found)


def labels_of_columns(
    values: Sequence[list[float]], where: str, names: tuple[str, ...], *, soft: bool = False
) -> Labels:
    """What the labels in a column for each class are: probabilities with ``soft``, else 0 and 1 of several classes.

    Args:
        values: of `label_rows`, without None.
        where: what holds them, for errors.
        names: of the classes, which the columns have.
        soft: whether they are soft labels.

    Raises:
        ValueError: for other numbers than 0 and 1 without ``soft``.
    """
    if not soft and any(value not in (0, 1) for row in values for value in row):
        raise ValueError(
            f"{where} hold other numbers than 0 and 1: pass --soft_labels true if they are probabilities of classes."
        )
    return Labels(ONE if soft else SEVERAL, names, soft=soft, rows=True)


def _labels_of_lists(values: Sequence[Any], where: str, names: tuple[str, ...], soft: bool) -> Labels:
    numbers = [one for several in values if isinstance(several, list) for one in several]
    lengths = {len(several) for several in values if isinstance(several, list)}
    width = next(iter(lengths)) if len(lengths) == 1 else 0
    if soft:
        if width < 2:
            raise ValueError(
                f"soft_labels=True needs one probability a class in each row, and {where} has lists of several lengths."
            )
        return Labels(ONE, tuple(map(str, range(width))), soft=True, rows=True)
    if not names and are_multi_hot(values):
        return Labels(SEVERAL, tuple(map(str, range(width))), rows=True)
    if any(isinstance(one, float) for one in numbers):
        raise ValueError(
            f"{where} holds lists of fractions: pass --soft_labels true if they are probabilities of the classes, or "
            "lists of the classes that hold."
        )
    found = names or _sorted_names(numbers)
    if len(found) < 2:
        raise ValueError(f"{where} names {len(found)} class: pass examples of at least two.")
    return Labels(SEVERAL, found, named=bool(names))


def are_multi_hot(values: Sequence[Any]) -> bool:
    """Whether labels are lists of 0 and 1, of more than one number and of one length."""
    lengths = {len(several) if isinstance(several, list) else 0 for several in values}
    numbers = (one for several in values if isinstance(several, list) for one in several)
    return len(lengths) == 1 and min(lengths) > 1 and all(_is_score(one) and float(one) in (0, 1) for one in numbers)


def _sorted_names(values: Sequence[Any]) -> tuple[str, ...]:
    found = {str(value) for value in values}
    return tuple(sorted(found, key=int) if all(map(_is_id, found)) else sorted(found))


def _is_id(value: Any) -> bool:
    """Whether a value is a whole number, written as one; 1.0 and "01" are none."""
    if isinstance(value, str):
        return value.removeprefix("-").isdecimal() and str(int(value)) == value
    return isinstance(value, int) and not isinstance(value, bool)


def _is_score(value: Any) -> bool:
    if isinstance(value, str):
        return is_number(value) and math.isfinite(float(value))
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_number(text: str) -> bool:
    """Whether a string is a number that is written out."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _as_score(value: Any, where: str) -> float:
    if not _is_score(value):
        raise ValueError(f"{where}: label {value!r} is no number, which a regression needs.")
    return float(value)


def _numbered(values: Sequence[Any]) -> enumerate:
    return enumerate(values, start=1)


def few(names: Sequence[str]) -> str:
    """Some names for a message."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
