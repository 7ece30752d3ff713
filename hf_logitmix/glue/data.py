"""GLUE data, from the Hub or from folders in the layout of the classic download."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
from datasets import Dataset, load_dataset

from hf_logitmix.glue.tasks import Split, Task
from hf_logitmix.training.splits import hold_out

logger = logging.getLogger(__name__)

HUB_NAME = "nyu-mll/glue"


def load_task(
    task: Task, splits: tuple[str, ...], glue_dir: str | None = None, train_file: str | None = None
) -> dict[str, list[tuple[Split, Dataset]]]:
    """The splits of a task as datasets with the columns of ``task.texts`` and, but for test, ``label``.

    Args:
        task: from `hf_logitmix.glue.tasks.TASKS`.
        splits: any of ``train``, ``dev``, ``test``.
        glue_dir: folder with one folder a task (``CoLA``, ``SST-2``, ...); None loads from the Hub.
        train_file: another training file, as a path or as a name in the task's folder.

    Returns:
        for each name of ``splits`` a list of (split, dataset): one, or two for MNLI's dev and test.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: for a file that cannot be read as the task's, with its name and line.
    """
    wanted = {"train": (task.train,) if task.train else (), "dev": task.dev, "test": task.test}
    if train_file and glue_dir is None:
        raise ValueError("--train_file names a file of the classic layout: pass --glue_dir too.")
    if "train" in splits and not task.train:
        raise ValueError(
            f"task {task.name!r} has no training data: pass --do_predict alone and a model that was fine-tuned on MNLI."
        )
    loaded = {}
    for name in splits:
        parts = []
        for number, split in enumerate(wanted[name]):
            if glue_dir is None:
                parts.append((split, _from_hub(task, split)))
                continue
            path = Path(glue_dir) / task.folder / split.file
            if name == "train" and train_file:
                path = Path(train_file) if Path(train_file).is_file() else path.with_name(train_file)
            if number and not path.is_file():
                logger.warning("%s/%s is not there: only %s is used.", task.folder, split.file, wanted[name][0].file)
                continue
            parts.append((split, read_split(task, split, path)))
        loaded[name] = parts
    return loaded


def with_validation(
    splits: dict[str, list[tuple[Split, Dataset]]], share: float, seed: int, name: str = "validation"
) -> dict[str, list[tuple[Split, Dataset]]]:
    """The same splits with a part of the training set as ``validation`` or ``calibration``; see `hold_out`."""
    named = ("val_split",) if name == "validation" else ("calibration_split", "fit a temperature on")
    if "train" not in splits:
        raise ValueError(f"{named[0]}={share} holds out training examples and there is no training: leave it out.")
    ((split, data),) = splits["train"]
    kept, held = hold_out(np.asarray(data.with_format(None)["label"][:]), share, seed, *named)
    return {**splits, "train": [(split, data.select(kept))], name: [(split, data.select(held))]}


def _from_hub(task: Task, split: Split) -> Dataset:
    data = load_dataset(HUB_NAME, task.name, split=split.hub)
    if not len(data):
        raise ValueError(f"split {split.hub!r} of {HUB_NAME} {task.name} is empty.")
    kept = [*task.texts, *(["label"] if "label" in split.columns else [])]
    return data.select_columns(kept)


def read_split(task: Task, split: Split, path: Path) -> Dataset:
    """Read one TSV file: UTF-8 with or without a byte order mark, no quoting, every field kept as text.

    Raises:
        FileNotFoundError: if the file is not there, with the layout that is expected.
        ValueError: for a missing column, a row of another width, an unknown label or a file without rows.
    """
    if not path.is_file():
        instead = "--no_do_eval leaves evaluation out" if split in task.dev else "leave --do_predict out"
        instead = "--train_file names another training file" if split == task.train else instead
        raise FileNotFoundError(
            f"{path} is not there: --glue_dir needs the classic layout {task.folder}/{split.file}; {instead}."
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): it is damaged or not this task's.") from error
    lines = [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")] if text else []
    header = None if split.width else (lines[0] if lines else [])
    expected = len(header) if header is not None else split.width
    position = {name: _position(column, header, path) for name, column in split.columns.items()}
    rows: dict[str, list] = {name: [] for name in split.columns}
    skipped = 0
    for number, fields in enumerate(lines[0 if header is None else 1 :], start=1 if header is None else 2):
        if len(fields) != expected:
            if task.skips_malformed and "label" in split.columns:  # a test row that is left out would shift the others
                skipped += 1
                continue
            raise ValueError(
                f"{path}, line {number}: {len(fields)} columns instead of {expected} "
                f"({_describe(split, header)}): the file is truncated or not this task's."
            )
        for name, at in position.items():
            text = fields[at]
            rows[name].append(_label(task, text, f"{path}, line {number}") if name == "label" else text)
    if skipped:
        logger.warning("%s: skipped %d rows with another number of columns than %d.", path.name, skipped, expected)
    if not rows[task.texts[0]]:
        raise ValueError(f"{path} holds no examples: expected rows with the columns {_describe(split, header)}.")
    return Dataset.from_dict(rows)


def _position(column: str | int, header: list[str] | None, path: Path) -> int:
    if isinstance(column, int) or header is None:
        return int(column)
    if column not in header:
        raise ValueError(
            f"{path}, line 1: column {column!r} is missing; the header reads {', '.join(header) or 'nothing'}."
        )
    return header.index(column)


def _describe(split: Split, header: list[str] | None) -> str:
    if header is not None:
        return ", ".join(header)
    named = {column: name for name, column in split.columns.items()}
    return ", ".join(named.get(at, f"column {at + 1}") for at in range(split.width))


def _label(task: Task, text: str, where: str) -> int | float:
    if task.is_regression:
        low, high = task.score_range or (-math.inf, math.inf)
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not low <= score <= high:
            raise ValueError(f"{where}: label {text!r} is not a number from {low:g} to {high:g}.")
        return score
    if text in task.label_names:
        return task.label_names.index(text)
    if text in map(str, range(task.num_labels)):
        return int(text)
    raise ValueError(f"{where}: label {text!r} is none of {', '.join(task.label_names)} or 0 to {task.num_labels - 1}.")
