"""Labels of a column: which kind they are, which classes there are, and the numbers that a model learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset

from hf_logitmix.soft_labels import check_distributions
from hf_logitmix.text.columns import is_number

REGRESSION, ONE, SEVERAL = "regression", "single_label_classification", "multi_label_classification"


@dataclass(frozen=True)
class Labels:
    """What labels are.

    Attributes:
        problem_type: as transformers calls it.
        names: of the classes, in order; empty for regression.
        soft: whether a label is a probability for each class.
        rows: whether labels come as a number for each class.
    """

    problem_type: str
    names: tuple[str, ...] = ()
    soft: bool = False
    rows: bool = False

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
        if _is_id(value) and 0 <= int(value) < len(ids) and not all(map(_is_id, ids)):
            return int(value)  # of classes that have names
        raise ValueError(f"{where}: label {name!r} is none of the {len(ids)} classes: {few(self.names)}.")

    def _encode_rows(self, values: Sequence[Any], where: str) -> np.ndarray:
        count = len(self.names)
        for row, value in _numbered(values):
            if not isinstance(value, list) or len(value) != count:
                raise ValueError(
                    f"{where}, row {row}: label {value!r} is no list of {count} numbers, one for each class."
                )
        encoded = np.array(values, dtype=np.float32)
        if self.soft:
            check_distributions(torch.from_numpy(encoded.astype(float)), where)
        return encoded


def label_values(data: Dataset, column: str) -> list[Any]:
    """The labels of a column as they stand there, ids of a ClassLabel as its names.

    None is in the place of what is missing: of empty strings, of NaN, and of the id -1 that a ClassLabel has for it.
    """
    names = class_names(data, column)

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        if value is None or value == "" or value != value:
            return None
        if names and isinstance(value, int):
            return names[value] if value >= 0 else None
        return value

    return [plain(value) for value in data.with_format(None)[column][:]]


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
        raise ValueError(f"soft_labels=True needs a column of lists of probabilities, and {where} holds {values[0]!r}.")
    if are_lists:
        if regression:
            raise ValueError(f"do_regression=True needs one number an example, and {where} holds lists.")
        return _labels_of_lists(values, where, names, soft)
    if names and not regression:
        return Labels(ONE, names)
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
    if width > 1 and not names and all(_is_score(one) and float(one) in (0, 1) for one in numbers):
        return Labels(SEVERAL, tuple(map(str, range(width))), rows=True)
    if any(isinstance(one, float) for one in numbers):
        raise ValueError(
            f"{where} holds lists of fractions: pass --soft_labels true if they are probabilities of the classes, or "
            "lists of the classes that hold."
        )
    found = names or _sorted_names(numbers)
    if len(found) < 2:
        raise ValueError(f"{where} names {len(found)} class: pass examples of at least two.")
    return Labels(SEVERAL, found)


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


def _as_score(value: Any, where: str) -> float:
    if not _is_score(value):
        raise ValueError(f"{where}: label {value!r} is no number, which a regression needs.")
    return float(value)


def _numbered(values: Sequence[Any]) -> enumerate:
    return enumerate(values, start=1)


def few(names: Sequence[str]) -> str:
    """Some names for a message."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
