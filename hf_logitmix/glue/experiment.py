"""A run on a GLUE task: its own metrics, and files that the GLUE server reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from hf_logitmix.glue.tasks import Split, Task, task_metrics
from hf_logitmix.text.experiment import TextExperiment

Splits = Mapping[str, list[tuple[Split, Dataset]]]


@dataclass(frozen=True)
class Experiment(TextExperiment):
    """What is trained on what; attributes as in `TextExperiment`, with a task and splits of `hf_logitmix.glue`."""

    task: Task
    splits: Splits
    data_name: str = "nyu-mll/glue"

    @property
    def config(self) -> str:
        return self.task.name

    def metrics(self, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
        return task_metrics(self.task, labels, logits)

    def write_predictions(self, split: Any, logits: np.ndarray, folder: Path) -> None:
        write_submission(self.task, split, logits, folder / "submission")

    def _logits(self, predictions: Any) -> np.ndarray:
        """Predictions with a column for each of the task's classes, in its order, which a model may not keep.

        Raises:
            ValueError: for a model whose classes have other names.
        """
        logits = super()._logits(predictions)
        names = {str(name).lower(): column for column, name in (self.model.config.id2label or {}).items()}
        if self.task.is_regression or all(name.startswith("label_") for name in names):
            return logits
        if not set(self.task.label_names) <= set(names):
            raise ValueError(
                f"the model's classes are {', '.join(names)} and the task's {', '.join(self.task.label_names)}: pass a "
                "model of this task."
            )
        return logits[:, np.array([names[name] for name in self.task.label_names], dtype=int)]


def write_submission(task: Task, split: Split, logits: np.ndarray, folder: Path) -> Path:
    """Write predictions as the GLUE server expects them: a header, then index and prediction, by tabs."""
    folder.mkdir(parents=True, exist_ok=True)
    if task.is_regression:
        low, high = task.score_range or (-np.inf, np.inf)
        values = [f"{value:.3f}" for value in np.clip(logits[:, 0], low, high)]
    else:
        classes = logits.argmax(1)
        values = [task.label_names[k] if task.writes_names else str(k) for k in classes]
    path = folder / split.submission
    lines = [f"{number}\t{value}" for number, value in enumerate(values)]
    path.write_text("index\tprediction\n" + "\n".join(lines) + "\n")
    return path
