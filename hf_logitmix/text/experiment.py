"""One run: tokenise, train, evaluate, predict, and leave everything that tells about it in one folder."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import DataCollatorWithPadding, EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase

from hf_logitmix import MixTrainer, MixTrainingArguments
from hf_logitmix.analysis.snapshots import Snapshots, spread
from hf_logitmix.calibration.metrics import watched_metrics
from hf_logitmix.models import longest_input
from hf_logitmix.text.task import TextSplit, TextTask, has_one_class
from hf_logitmix.training.runs import N_BINS, Run, RunMixin, calibration
from hf_logitmix.training.splits import HELD_OUT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextExperiment(ABC):
    """What is trained on what; a subclass knows the metrics of its task, and the form of its predictions.

    Attributes:
        task: what is learned.
        splits: ``train``, ``dev``, ``test`` and ``validation`` -> (split, dataset) pairs, whose datasets have the
            columns of ``task.texts`` and, but for ``test``, ``label``; ``validation``, if it is there, is evaluated
            during training in the place of ``dev``, and ``calibration`` is what a temperature is fitted on.
        model: with a head for the task.
        tokenizer: of the model.
        base_model: name of the model for records, of a local path only its last part; None for one made from scratch.
        max_seq_length: longer inputs are cut.
        data_name: what the data is called in records.
        label_noise: what was done to the training labels, for records; None for nothing.
        settings: more settings for the records.
        split_sizes: name -> number of examples of a whole split, for those that were cut.
        validation_name: what ``validation`` is called in records.
    """

    task: TextTask
    splits: Mapping[str, Sequence[tuple[TextSplit, Dataset]]]
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    base_model: str | None
    max_seq_length: int = 128
    data_name: str = ""
    label_noise: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    split_sizes: Mapping[str, int] = field(default_factory=dict)
    validation_name: str = HELD_OUT

    @abstractmethod
    def metrics(self, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
        """The task's metrics, other than those of calibration."""

    @abstractmethod
    def write_predictions(self, split: TextSplit, logits: np.ndarray, folder: Path) -> None:
        """Write what the model predicts of a test split, into the folder of the run."""

    @property
    def config(self) -> str:
        """The data's configuration in the model card; empty for data without one."""
        return ""

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
        self._check_metric(args.metric_for_best_model)
        data = {name: [(split, self._tokenise(part)) for split, part in parts] for name, parts in self.splits.items()}
        train, dev, validation = (data.get(name, []) for name in ("train", "dev", "validation"))
        watched = validation or dev
        trainer = TextTrainer(
            model=self.model,
            args=args,
            train_dataset=train[0][1] if train else None,
            eval_dataset=watched[0][1] if watched else None,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            processing_class=self.tokenizer,
            compute_metrics=partial(self._compute_metrics, args.metric_for_best_model),
        )
        if snapshots := getattr(args, "snapshots", 0) if train else 0:
            if not has_one_class(self.task):
                raise ValueError(
                    f"snapshots are of one class an example, which {self.task.name} has not: leave them out."
                )
            some = train[0][1].select(spread(len(train[0][1]), snapshots))
            trainer.add_callback(Snapshots(trainer, some))
        run = Run(
            trainer,
            self.task.name,
            self.data_name,
            self.base_model,
            self.task.label_names if has_one_class(self.task) else (),
            self.scores,
            self._logits,
            settings={
                "max_seq_length": self.length,
                **({"label_noise": self.label_noise} if self.label_noise else {}),
                **self.settings,
            },
            config=self.config,
            split_sizes=self.split_sizes,
            validation=self.validation_name if validation else "",
            calibration_data=data["calibration"][0][1] if "calibration" in data else None,
        )
        if train and not run.train():
            return None
        title = f"{self.task.name}, {run.results.get('method_name', run.model_name)}"
        for number, (split, part) in enumerate(dev):
            run.evaluate(part, split.name, split.suffix, None if number else title)
        for split, part in data.get("test", []):
            prediction = trainer.predict(part, metric_key_prefix="predict")
            run.results["predicted_on"] = {**run.results.get("predicted_on", {}), split.name: len(part)}
            if trainer.is_world_process_zero():
                self.write_predictions(split, self._logits(prediction.predictions), run.output)
        return run.finish()

    def scores(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The task's metrics; for classes calibration too, before and after cross-fitted temperature scaling."""
        return self.metrics(labels, logits) | (calibration(logits, labels) if has_one_class(self.task) else {})

    def _compute_metrics(self, chosen_by: str | None, prediction: Any) -> dict[str, float]:
        logits, labels = self._logits(prediction.predictions), np.asarray(prediction.label_ids)
        watched = watched_metrics(logits, labels, N_BINS, chosen_by) if has_one_class(self.task) else {}
        return watched | self.metrics(labels, logits)

    def _check_metric(self, name: str | None) -> None:
        """Refuse a checkpoint's metric that evaluation will not give, by what it gives of made-up logits."""
        rng, count = np.random.default_rng(0), self.task.num_labels
        classes = np.arange(max(16, 2 * count)) % count
        logits = rng.normal(size=(len(classes), self.model.config.num_labels or count))
        of_others = {"regression": rng.normal(size=len(classes)), "multi_label_classification": np.eye(count)[classes]}
        labels: Any = of_others.get(self.task.problem_type, classes)
        given = ["loss", *self._compute_metrics(name, EvalPrediction(logits, labels))]
        if name is not None and name.removeprefix("eval_") not in given:
            raise ValueError(f"metric_for_best_model={name!r} is none of {', '.join(given)}: pass one of these.")

    def _logits(self, predictions: Any) -> np.ndarray:
        """Logits [N, K] with the columns of the task's classes, of what the model predicts."""
        return np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)

    def _tokenise(self, data: Dataset) -> Dataset:
        def encode(batch: dict[str, list]) -> dict[str, Any]:
            return dict(
                self.tokenizer(*(batch[name] for name in self.task.texts), truncation=True, max_length=self.length)
            )

        return data.map(encode, batched=True, remove_columns=list(self.task.texts), desc="tokenise")


class TextTrainer(RunMixin, MixTrainer):
    """The Trainer of a run."""
