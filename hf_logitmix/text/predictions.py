"""What a model says of examples, as a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from hf_logitmix.tables.labels import PROBABILITY
from hf_logitmix.text.task import TextTask

FILE = "predictions.csv"


def write_predictions(task: TextTask, logits: np.ndarray, path: Path) -> None:
    """Write logits as a csv, a row an example, in their order and counted from 1.

    ============ ===================================================================================
    one class    row, prediction, confidence, and a probability for each class, by softmax
    several      row, prediction (a JSON list of the classes above one half), and a probability for each, by sigmoid
    regression   row, prediction
    ============ ===================================================================================

    Args:
        task: names the classes.
        logits: [N, K] as they are served, a column for each class; [N, 1] for regression.
        path: of the file.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        is_sure = task.problem_type == "single_label_classification"
        named = [f"{PROBABILITY}{name}" for name in task.label_names]
        writer.writerow(["row", "prediction", *(["confidence"] if is_sure else []), *named])
        writer.writerows([row, *cells] for row, cells in enumerate(_cells(task, logits.astype(np.float64)), start=1))


def _cells(task: TextTask, logits: np.ndarray) -> Iterator[list[Any]]:
    if task.problem_type == "regression":
        yield from ([f"{value:.6g}"] for value in logits[:, 0])
        return
    has_one = task.problem_type == "single_label_classification"
    for p in softmax(logits, axis=1) if has_one else expit(logits):
        told = [f"{value:.6f}" for value in p]
        if has_one:
            yield [task.label_names[p.argmax()], told[p.argmax()], *told]
        else:
            holds = [name for name, value in zip(task.label_names, p, strict=True) if value > 0.5]
            yield [json.dumps(holds, ensure_ascii=False), *told]
