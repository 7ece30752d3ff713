"""What a run tells while it goes on: images a second in the log, and ``summary.csv`` with a row an epoch."""

from __future__ import annotations

import csv
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import find_batch_size
from transformers import Trainer, TrainerCallback

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object

SUMMARY = "summary.csv"
COLUMNS = ("epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr")
_OF_EVALUATION = {
    "eval_loss": ("eval_loss", 1),
    "eval_top1": ("eval_accuracy", 100),
    "eval_top5": ("eval_accuracy_top5", 100),
}


class SpeedMixin(_Base):
    """Logs ``images_per_second`` beside the loss: of the steps since the last line, all processes together.

    The time is that of steps and of waiting for their images; evaluating and saving are left out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._stopwatch = _Stopwatch()
        super().__init__(*args, **kwargs)
        self.add_callback(self._stopwatch)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._stopwatch.images += find_batch_size(inputs) or 0
        return super().training_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and (found := self._stopwatch.read()):
            logs["images_per_second"] = found * self.args.world_size
        super().log(logs, *args, **kwargs)


class _Stopwatch(TrainerCallback):
    """Runs while steps are made."""

    def __init__(self) -> None:
        self.images = 0
        self._seconds, self._since = 0.0, time.perf_counter()

    def read(self) -> float:
        """Images of this process a second since it was last read; 0 where there were none."""
        self.on_step_end()
        found = self.images / self._seconds if self._seconds else 0.0
        self.images, self._seconds = 0, 0.0
        return found

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        self._seconds, self._since = self._seconds + now - self._since, now

    def _go_on(self, *args: Any, **kwargs: Any) -> None:
        self._since = time.perf_counter()

    on_epoch_begin = on_evaluate = on_save = _go_on

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.images, self._seconds, self._since = 0, 0.0, time.perf_counter()


class SummaryMixin(_Base):
    """Writes ``summary.csv`` into the output folder, a row an epoch, in the columns and units of timm's train.py.

    Epochs count from 0; top-1 and top-5 are in per cent; ``train_loss`` is the mean over the epoch's steps (of a run
    that was resumed in it: since then), and ``lr`` the rate for the step after it. What was not evaluated is empty. A
    resumed run keeps the rows of the epochs before, and a fresh one begins anew.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._summary = _Summary(self)
        self.add_callback(self._summary)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self._summary.loss = self._summary.loss + loss.detach()
        return loss


class _Summary(TrainerCallback):
    """Holds the rows of ``summary.csv`` and writes them whenever one is new or gets its evaluation."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.rows: list[dict[str, Any]] = []
        self.loss: torch.Tensor | float = 0.0
        self._first_step, self._row_of_step = 0, -1
        self._evaluated: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rows, self._row_of_step = [], -1
        path = Path(str(args.output_dir)) / SUMMARY
        if state.global_step and path.exists():
            with open(path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < int(state.epoch or 0)]

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss, self._first_step, self._evaluated = 0.0, state.global_step, {}

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps = state.global_step - self._first_step
        if not steps:  # a run that was resumed behind the last step of an epoch
            return
        loss = torch.as_tensor(self.loss, device=args.device).reshape(1)
        self.rows.append(
            {
                "epoch": math.ceil(state.epoch) - 1,
                "train_loss": self.trainer.accelerator.gather(loss).mean().item() / steps,
                **self._evaluated,
                "lr": self.trainer._get_learning_rate(),
            }
        )
        self._row_of_step = state.global_step
        self._write(args)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        found = {
            column: metrics[name] * factor
            for column, (name, factor) in _OF_EVALUATION.items()
            if name in (metrics or {})
        }
        if state.global_step == self._row_of_step and self.rows:
            self.rows[-1] |= found
            self._write(args)
        else:
            self._evaluated = found

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self._row_of_step = -1  # what is evaluated from now on belongs to no epoch

    def _write(self, args: Any) -> None:
        if not args.should_save:
            return
        path = Path(str(args.output_dir)) / SUMMARY
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with open(new, "w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(self.rows)
        os.replace(new, path)
