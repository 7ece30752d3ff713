"""One run: tokenise, train, evaluate, predict, and leave everything that tells about it in one folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from hf_logitmix import MixTrainer, MixTrainingArguments
from hf_logitmix.calibration.metrics import watched_metrics
from hf_logitmix.glue.tasks import Split, Task, task_metrics
from hf_logitmix.models import longest_input
from hf_logitmix.training.runs import N_BINS, Run, RunMixin, calibration
from hf_logitmix.training.splits import HELD_OUT

logger = logging.getLogger(__name__)

Splits = Mapping[str, list[tuple[Split, Dataset]]]


@dataclass(frozen=True)
class Experiment:
    """What is trained on what.

    Attributes:
        task: from `hf_logitmix.glue.tasks`.
        splits: name -> (split, dataset) pairs, from `hf_logitmix.glue.data.load_task`; ``validation``, if it is there,
            is evaluated during training in the place of ``dev``, and ``calibration`` is what a temperature is fitted
            on.
        model: with a head for the task.
        tokenizer: of the model.
        base_model: name of the model for records, of a local path only its last part; None for one made from scratch.
        max_seq_length: longer inputs are cut.
        data_name: what the data is called in records.
        label_noise: what was done to the training labels, for records; None for nothing.
        settings: more settings for the records.
        split_sizes: name -> number of examples of a whole split, for those that were cut.
    """

    task: Task
    splits: Splits
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base_model: str | None
    max_seq_length: int = 128
    data_name: str = "nyu-mll/glue"
    label_noise: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    split_sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Where inputs are cut: ``max_seq_length``, or what the model and its tokenizer hold if that is less."""
        positions, is_fixed = longest_input(self.model)
        limits = [self.max_seq_length, self.tokenizer.model_max_length, *([positions] if is_fixed else [])]
        return min(limits)

    def run(self, args: MixTrainingArguments) -> dict[str, Any] | None:
        """Train, evaluate and predict as ``args`` says; write the output folder.

        Returns:
            what ``all_results.json`` holds, or None if the run was interrupted and saved.
        """
        if self.length < self.max_seq_length:
            logger.warning(
                "max_seq_length=%d: %s holds %d tokens, so longer inputs are cut to that.",
                *(self.max_seq_length, type(self.model).__name__, self.length),
            )
        data = {name: [(split, self._tokenise(part)) for split, part in parts] for name, parts in self.splits.items()}
        train, dev, validation = (data.get(name, []) for name in ("train", "dev", "validation"))
        watched = validation or dev
        trainer = GlueTrainer(
            model=self.model,
            args=args,
            train_dataset=train[0][1] if train else None,
            eval_dataset=watched[0][1] if watched else None,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            processing_class=self.tokenizer,
            compute_metrics=partial(self._compute_metrics, args.metric_for_best_model),
        )
        run = Run(
            trainer,
            self.task.name,
            self.data_name,
            self.base_model,
            self.task.label_names,
            self.scores,
            self._logits,
            settings={
                "max_seq_length": self.length,
                **({"label_noise": self.label_noise} if self.label_noise else {}),
                **self.settings,
            },
            config=self.task.name,
            split_sizes=self.split_sizes,
            validation=HELD_OUT if validation else "",
            calibration_data=data["calibration"][0][1] if "calibration" in data else None,
        )
        if train and not run.train():
            return None
        title = f"{self.task.name}, {run.results.get('method_name', run.model_name)}"
        for number, (split, part) in enumerate(dev):
            run.evaluate(part, split.hub, split.suffix, None if number else title)
        for split, part in data.get("test", []):
            prediction = trainer.predict(part, metric_key_prefix="predict")
            run.results["predicted_on"] = {**run.results.get("predicted_on", {}), split.hub: len(part)}
            if trainer.is_world_process_zero():
                write_submission(self.task, split, self._logits(prediction.predictions), run.output / "submission")
        return run.finish()

    def scores(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The task's metrics; for classes calibration too, before and after cross-fitted temperature scaling."""
        return task_metrics(self.task, labels, logits) | (
            {} if self.task.is_regression else calibration(logits, labels)
        )

    def _compute_metrics(self, chosen_by: str | None, prediction: Any) -> dict[str, float]:
        logits, labels = self._logits(prediction.predictions), np.asarray(prediction.label_ids)
        watched = {} if self.task.is_regression else watched_metrics(logits, labels, N_BINS, chosen_by)
        return watched | task_metrics(self.task, labels, logits)

    def _logits(self, predictions: Any) -> np.ndarray:
        """Predictions with a column for each of the task's classes, in its order, which a model may not keep.

        Raises:
            ValueError: for a model whose classes have other names.
        """
        logits = np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)
        names = {str(name).lower(): column for column, name in (self.model.config.id2label or {}).items()}
        if self.task.is_regression or all(name.startswith("label_") for name in names):
            return logits
        if not set(self.task.label_names) <= set(names):
            raise ValueError(
                f"the model's classes are {', '.join(names)} and the task's {', '.join(self.task.label_names)}: pass a "
                "model of this task."
            )
        return logits[:, np.array([names[name] for name in self.task.label_names], dtype=int)]

    def _tokenise(self, data: Dataset) -> Dataset:
        def encode(batch: dict[str, list]) -> dict[str, Any]:
            return dict(
                self.tokenizer(*(batch[name] for name in self.task.texts), truncation=True, max_length=self.length)
            )

        return data.map(encode, batched=True, remove_columns=list(self.task.texts), desc="tokenise")


class GlueTrainer(RunMixin, MixTrainer):
    """The Trainer of a run."""


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
