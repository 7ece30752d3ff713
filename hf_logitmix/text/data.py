"""Texts with labels of one's own: from files, from a folder or from the Hub, as a run reads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from hf_logitmix.soft_labels import classes_of
from hf_logitmix.tables.files import read_file, read_named
from hf_logitmix.tables.labels import (
    REGRESSION,
    SEVERAL,
    Labels,
    are_multi_hot,
    class_names,
    few,
    label_rows,
    label_values,
    labels_of,
    labels_of_columns,
    names_of_columns,
)
from hf_logitmix.text.columns import Columns, check_columns, find_columns
from hf_logitmix.training.splits import hold_out, stratified

SPLITS: Mapping[str, tuple[str, ...]] = {  # what they are called
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
TEXTS = ("text", "text_pair")
HELD, HELD_TO_CALIBRATE = "held out", "held out to calibrate"  # what parts of the training set are called


@dataclass(frozen=True)
class Table:
    """A table as it was found, and what errors call it."""

    data: Dataset
    where: str


@dataclass(frozen=True)
class TextData:
    """Texts with labels.

    Attributes:
        columns: that they were found in.
        labels: what the labels are.
        splits: any of ``train``, ``validation`` and ``test``, with the columns ``text``, ``text_pair`` for pairs, and
            ``label``, which a test split may lack.
    """

    columns: Columns
    labels: Labels
    splits: Mapping[str, Dataset]

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of the texts in ``splits``."""
        return TEXTS[: len(self.columns.texts)]

    def has_labels(self, split: str) -> bool:
        return split in self.splits and "label" in self.splits[split].column_names

    def targets(self, split: str) -> np.ndarray:
        """The labels of a split, as `Labels.encode` made them."""
        return np.asarray(self.splits[split].with_format(None)["label"][:])

    def __str__(self) -> str:
        of = {SEVERAL: "several classes an example", "regression": "numbers"}.get(self.labels.problem_type, "classes")
        of = "probabilities of classes" if self.labels.soft else of
        names = f" ({len(self.labels.names)}: {few(self.labels.names)})" if self.labels.names else ""
        sizes = ", ".join(f"{len(data):,} {split}" for split, data in self.splits.items())
        texts, labels = (" + ".join(found) or "none" for found in (self.columns.texts, self.columns.labels))
        return f"texts: {texts}; labels: {labels}, {of}{names}; examples: {sizes}"


def tables_of_files(files: Mapping[str, str | None]) -> dict[str, Table]:
    """Split -> table, of split -> path; a split without one is left out.

    Raises:
        ValueError: as `read_file`, and for one file in two places.
    """
    _check_apart({split: path and str(Path(path).resolve()) for split, path in files.items()}, "file")
    return {
        split: Table(read_file(path, f"{split}_file"), Path(path).name)
        for split, path in files.items()
        if path is not None
    }


def tables_of_name(
    name: str, config: str | None = None, called: Mapping[str, str | None] | None = None
) -> dict[str, Table]:
    """The same of a folder or an id of the Hub.

    Args:
        name, config: as in `read_named`.
        called: split -> its name there; None finds it by `SPLITS`.

    Raises:
        ValueError: as `read_named`, for a name that is not there, for two that may be the same split, and for one name
            in two places.
    """
    _check_apart(called or {}, "split_name")
    found, tables = read_named(name, config), {}
    taken = set((called or {}).values())  # which no other split is found by
    for split, usual in SPLITS.items():
        chosen = (called or {}).get(split)
        if chosen is not None and chosen not in found:
            raise ValueError(f"{split}_split_name={chosen!r} is no split of {name}, which has {', '.join(found)}.")
        names = [chosen] if chosen is not None else [one for one in usual if one in found and one not in taken]
        if len(names) > 1:
            raise ValueError(f"{name} has the splits {' and '.join(names)}: choose one with --{split}_split_name.")
        if names:
            tables[split] = Table(found[names[0]], f"split {names[0]} of {name}")
    if not tables:
        raise ValueError(
            f"{name} has the splits {', '.join(found)}, none of which is train, validation or test by its name: name "
            "them with --train_split_name, --validation_split_name and --test_split_name."
        )
    return tables


def _check_apart(called: Mapping[str, str | None], argument: str) -> None:
    """Refuse to train, choose and measure on the same examples."""
    places: dict[str, str] = {}
    for split, name in called.items():
        if name is not None and (other := places.setdefault(name, split)) != split:
            raise ValueError(
                f"{other}_{argument} and {split}_{argument} are both {Path(name).name}: pass other examples for one."
            )


def text_data(
    tables: Mapping[str, Table],
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | Sequence[str] | None = None,
    soft: bool = False,
    regression: bool | None = None,
    known: Labels | None = None,
    unlabelled: Collection[str] = (),
) -> TextData:
    """Texts and encoded labels of tables; the first one shows which columns they are in.

    Args:
        tables: split -> table, train first if it is there.
        text, text_pair, label: columns, found where None; see `find_columns`.
        soft, regression: what the labels are; see `labels_of`, and for several columns `labels_of_columns`.
        unlabelled: splits whose labels are not read.
        known: what a trained model's labels are, where there is no training split to tell it.

    Raises:
        ValueError: for columns that cannot be told, rows without a text or a label, and labels that training lacks.
    """
    first = next(iter(tables))
    needs_label = first != "test"
    columns = find_columns(
        *(tables[first].data, tables[first].where), text=text, text_pair=text_pair, label=label, needs_label=needs_label
    )
    if known is not None and len(columns.labels) > 1:
        columns = replace(columns, labels=_in_the_order_of(known, columns))
    values: dict[str, list[Any]] = {}
    for split, table in tables.items():
        there = [name for name in columns.labels if name in table.data.column_names]
        is_there = split not in unlabelled and bool(there)
        check_columns(table.data, columns if is_there or split != "test" else replace(columns, labels=()), table.where)
        if is_there:
            values[split] = _values(table, columns)
        if split == "test":
            missing = _missing(values.get("train", []))
            if all(value in missing for value in values.get(split, [])):
                values.pop(split, None)  # kept secret
        for row, value in enumerate(values.get(split, ()), start=1):
            if value is None or (isinstance(value, list) and None in value):
                raise ValueError(
                    f"{table.where}, row {row}: no label in {columns.of_labels}: fill it in, or leave the row out."
                )
    if known is not None:
        every = [value for of_split in values.values() for value in of_split]
        labels = replace(known, soft=soft, rows=soft or len(columns.labels) > 1 or _are_rows(known, every))
    elif first in values:
        labels = _labels(values[first], columns, tables[first], soft, regression)
    else:
        labels = Labels(REGRESSION)
    splits = {}
    for split, table in tables.items():
        data = table.data.with_format(None).select_columns(list(columns.texts))
        data = data.rename_columns(dict(zip(columns.texts, TEXTS, strict=False)))
        if split in values:
            data = data.add_column("label", labels.encode(values[split], table.where).tolist())
        splits[split] = data
    return TextData(columns, labels, splits)


def with_validation(data: TextData, share: float, seed: int) -> TextData:
    """The same with a part of the training set as ``held out``, each class's share kept; errors as in `hold_out`."""
    return _with_held_out(data, HELD, share, seed, "val_split", "choose a checkpoint on")


def with_calibration(data: TextData, share: float, seed: int) -> TextData:
    """The same with a part of what trains as ``held out to calibrate``; see `with_validation`."""
    return _with_held_out(data, HELD_TO_CALIBRATE, share, seed, "calibration_split", "fit a temperature on")


def _with_held_out(data: TextData, name: str, share: float, seed: int, argument: str, purpose: str) -> TextData:
    kept, held = hold_out(_groups(data, data.targets("train")), share, seed, argument, purpose)
    train = data.splits["train"]
    return replace(data, splits={**data.splits, "train": train.select(kept), name: train.select(held)})


def part(data: TextData, split: str, count: int | None, seed: int, argument: str, least: int = 1) -> Dataset:
    """A random part of a split, with each class's share kept and at least one example of each; all of it for None.

    Raises:
        ValueError: for a count below ``least`` or below the number of classes, with the argument that gave it.
    """
    whole = data.splits[split]
    if count is None or least <= len(whole) <= count:
        return whole
    if count < least:
        raise ValueError(f"{argument}={count}: pass at least {least}.")
    groups = _groups(data, data.targets(split))
    if count < (classes := len(np.unique(groups))):
        raise ValueError(f"{argument}={count}: pass at least {classes}, an example of each class.")
    return whole.select(stratified(groups, count, seed))


def _missing(known: Sequence[Any]) -> list[Any]:
    """What stands in the place of labels that are kept secret: nothing, or -1 where it is no label of training."""
    return [None] if "-1" in map(str, known) else [None, -1, "-1"]


def _values(table: Table, columns: Columns) -> list[Any]:
    if len(columns.labels) > 1:
        return label_rows(table.data, columns.labels, table.where)
    return label_values(table.data, columns.labels[0])


def _labels(values: list[Any], columns: Columns, table: Table, soft: bool, regression: bool | None) -> Labels:
    """What the labels of a table are, of which none is missing."""
    where = f"{columns.of_labels} of {table.where}"
    if len(columns.labels) == 1:
        names = class_names(table.data, columns.labels[0])
        return labels_of(values, where, names=names, soft=soft, regression=regression)
    if regression:
        raise ValueError(f"do_regression=True needs one number an example, and {where} are several.")
    return labels_of_columns(values, where, names_of_columns(columns.labels), soft=soft)


def _are_rows(known: Labels, values: Sequence[Any]) -> bool:
    """Whether labels of a model of several classes are a row of 0 and 1 each, and no lists of classes."""
    return known.problem_type == SEVERAL and are_multi_hot(values) and len(values[0]) == len(known.names)


def _in_the_order_of(known: Labels, columns: Columns) -> tuple[str, ...]:
    """The columns of the labels in the order of a model's classes."""
    named = dict(zip(names_of_columns(columns.labels), columns.labels, strict=True))
    if set(named) != set(known.names):
        raise ValueError(
            f"{columns.of_labels} are labels of the classes {few(tuple(named))}, and the model's are "
            f"{few(known.names) or 'none'}: name a column for each of these with --label_column."
        )
    return tuple(named[name] for name in known.names)


def _groups(data: TextData, targets: np.ndarray) -> np.ndarray:
    """What a part keeps the shares of: the classes, where an example has one."""
    if data.labels.problem_type == "single_label_classification":
        return classes_of(targets)
    return np.zeros(len(targets), dtype=np.int64)
