"""What the evaluations of a Trainer found, as long as they are of the model as it is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn
from transformers import Trainer

from hf_logitmix.calibration.bootstrap import intervals
from hf_logitmix.calibration.metrics import calibration_metrics, one_class_remark, scaled_metrics
from hf_logitmix.calibration.registry import is_brief
from hf_logitmix.calibration.served import FOLDED
from hf_logitmix.models import unwrap
from hf_logitmix.part import LabelSpec

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of, with what else it asks of it."""

        model: nn.Module

        @property
        def label_spec(self) -> LabelSpec: ...
else:
    _Base = object

logger = logging.getLogger(__name__)

N_BINS = 10
_BEFORE = -1  # the step of evaluations of weights that were trained on
SINGLE = "single_label_classification"


class Evaluation(NamedTuple):
    """What an evaluation found."""

    step: int
    folds: int
    examples: int
    metrics: dict[str, float]
    rows: tuple[np.ndarray, np.ndarray] | None  # logits [N, K] and labels, of one label an example
    data: Any  # what was evaluated


class EvaluationsMixin(_Base):
    """Remembers the last evaluation of each set of examples.

    An evaluation of another step is not told: neither one from before training, nor the last one of a run whose best
    checkpoint is another.
    """

    _evaluated: dict[str, Evaluation] | None = None
    _evaluating: Any = None

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._evaluated = {name: one._replace(step=_BEFORE) for name, one in (self._evaluated or {}).items()}
        return super()._inner_training_loop(*args, **kwargs)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        outer, own = self._evaluating, cast(Any, self.eval_dataset)
        named = own[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset
        self._evaluating = own if named is None else named
        try:
            return super().evaluate(eval_dataset, *args, **kwargs)
        finally:
            self._evaluating = outer

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        dataloader = args[0] if args else kwargs["dataloader"]
        data = dataloader.dataset if self._evaluating is None else self._evaluating
        prefix = kwargs.get("metric_key_prefix", args[4] if len(args) > 4 else "eval")
        if str(prefix).startswith("eval"):
            known, state = self._evaluated or {}, (self.state.global_step, self._folds())
            known = {name: one for name, one in known.items() if (one.step, one.folds) == state}
            found = {name.removeprefix(f"{prefix}_"): value for name, value in (output.metrics or {}).items()}
            numbers = {name: value for name, value in found.items() if _is_number(value) and not name.endswith("time")}
            known[str(prefix)] = Evaluation(*state, output.num_samples or 0, numbers, self._rows_of(output), data)
            self._evaluated = known
        return output

    def _rows_of(self, output: Any) -> tuple[np.ndarray, np.ndarray] | None:
        logits, labels = output.predictions, output.label_ids
        logits = logits[0] if isinstance(logits, tuple) else logits
        if (
            self.label_spec.problem_type != SINGLE
            or not isinstance(logits, np.ndarray)
            or not isinstance(labels, np.ndarray)
        ):
            return None
        shapes = (labels.shape, logits.shape[:1], logits.shape)
        fits = logits.ndim == 2 and logits.shape[1] == self.label_spec.num_labels and shapes[0] in shapes[1:]
        return (logits, labels) if fits and np.isfinite(logits).all() else None

    def _folds(self) -> int:
        return len(getattr(getattr(unwrap(self.model), "config", None), FOLDED, None) or ())

    def _load_best_model(self) -> None:
        super()._load_best_model()
        best, now = getattr(self.state, "best_global_step", None), self.state.global_step
        kept = {name: one for name, one in (self._evaluated or {}).items() if one.step == best}
        self._evaluated = {name: one._replace(step=now) for name, one in kept.items()}

    def _current_evaluations(self) -> dict[str, Evaluation]:
        """Those of the model as it is."""
        now, known = (self.state.global_step, self._folds()), self._evaluated or {}
        current = {name: one for name, one in known.items() if (one.step, one.folds) == now}
        if known and not current:
            logger.warning(
                "The model was changed after its last evaluation, so its card has no figures: evaluate again."
            )
        return current


class Figures:
    """The figures of all evaluations, for one card."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.intervals: dict[str, tuple[float, float]] = {}
        self.split_of: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.remarks: list[str] = []

    def add(self, split: str, suffix: str, one: Evaluation) -> None:
        values, reach = dict(one.metrics), {}
        if one.rows is not None:
            values |= calibration_metrics(*one.rows, n_bins=N_BINS)
            values |= scaled_metrics(*one.rows, n_bins=N_BINS) if one.examples > 1 else {}
            reach = intervals(*one.rows, n_bins=N_BINS)
            if remark := one_class_remark(*one.rows):
                self.remarks.append(f"On `{split}`: {remark}")
        end = f"_{suffix}" if suffix else ""
        for name, value in values.items():
            if is_brief(name) and not name.startswith("temperature"):
                self.metrics[name + end] = value
                self.split_of[name + end] = split
                self.intervals |= {name + end: reach[name]} if name in reach else {}
        self.counts[split] = one.examples


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, torch.Tensor))
