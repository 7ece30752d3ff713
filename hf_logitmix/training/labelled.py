"""The labels of a Trainer's datasets and batches: what they are, and evaluation against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from hf_logitmix.criteria import CrossEntropy, RowLoss
from hf_logitmix.method import Method
from hf_logitmix.models import SPECIAL_TOKENS, unwrap
from hf_logitmix.part import LabelSpec
from hf_logitmix.soft_labels import problem_type_of
from hf_logitmix.training import labels as labels_
from hf_logitmix.training import other_libraries
from hf_logitmix.training.collator import take_plan

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of."""

        model: nn.Module
        method: Method

        def _check_data(self) -> None: ...

        def _keeps_labels(self) -> bool: ...
else:
    _Base = object


class LabelsMixin(_Base):
    """Finds out what labels are from the model, the datasets or the batches, and evaluates against them."""

    _are_soft = False
    _loss_was_asked = False

    @property
    def label_spec(self) -> LabelSpec:
        """What the labels of the training set are; ``soft`` as far as the set or its batches have shown."""
        return labels_.label_spec(self.model)._replace(soft=self._are_soft)

    def _check_labels(self) -> None:
        """The labels of the datasets that the Trainer was made with, and what the model is told of them."""
        self._expect_soft_labels()
        self._labels_are_open = problem_type_of(self.model) is None
        self._check_data()
        found = labels_.check_datasets(self.train_dataset, self.eval_dataset, self.model, self._keeps_labels())
        self._labels_are_checked = found is not None
        if found is not None:
            self._note_soft(found.soft)

    def _expect_soft_labels(self) -> None:
        if getattr(self.args, "soft_labels", False):
            labels_.expect_soft_labels(self.model)

    def _note_soft(self, are_soft: bool) -> None:
        if not are_soft and getattr(self.args, "soft_labels", False):
            raise ValueError("soft_labels=True, and train_dataset has one class id an example: leave it out.")
        self._are_soft = are_soft

    def _take_labels(self, inputs: dict[str, Any]) -> Tensor:
        """Take the labels out of a batch, and check them unless those of the dataset were checked.

        In the first batch of a run a mistake is told in a sentence, for which a GPU is waited for; in later ones, on a
        GPU, it is an assert of CUDA.
        """
        if inputs.get("labels") is None:
            names, advice = ", ".join(inputs), other_libraries.why_no_labels(inputs)
            raise ValueError(f"the batch holds no `labels`, only {names}: {advice}.")
        given = inputs.pop("labels")
        if not self._labels_are_checked and self._labels_are_open:
            labels_.refuse_unclear_batch(self.model, given if self._loss_was_asked else given.cpu())
        is_new = labels_.note_multi_label(self.model, given)
        num_labels, problem_type, was_soft = self.label_spec
        labels = labels_.as_labels(given, num_labels, problem_type)
        if not self._labels_are_checked:
            shown = labels if self._loss_was_asked else labels.cpu()
            labels_.check_batch(shown, num_labels, problem_type)
            self._note_soft(labels_.is_soft(labels, problem_type))
        if is_new or self._are_soft != was_soft:
            self.method.check(self.model, self.label_spec)  # again, now that it is known what they are
        return labels

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        inputs = dict(inputs)
        take_plan(inputs)  # a MixCollator serves evaluation too
        inputs.pop("sample_weight", None)  # evaluation counts every example alike
        inputs.pop(SPECIAL_TOKENS, None)
        if isinstance(labels := inputs.get("labels"), Tensor):
            if self._labels_are_open and not self._labels_are_checked:
                labels_.refuse_unclear_batch(self.model, labels)
            labels_.note_multi_label(self.model, labels)
            num_labels, problem_type, _ = labels_.label_spec(self.model)
            are_rows = problem_type == "multi_label_classification" or labels_.is_soft(labels, problem_type)
            if are_rows or labels.dtype == torch.bool:
                labels = inputs["labels"] = labels_.as_labels(labels, num_labels, problem_type)
                labels_.check_labels(labels.cpu().numpy(), num_labels, problem_type)
        config = getattr(unwrap(self.model), "config", None)
        before = getattr(config, "problem_type", None)
        try:
            return super().prediction_step(model, inputs, *args, **kwargs)
        finally:
            if config is not None:  # the model's own forward guesses a problem_type and keeps it
                config.problem_type = before


def evaluated_on_rows(model: nn.Module, inputs: dict[str, Any], return_outputs: bool) -> Any:
    """The cross-entropy with soft labels, for which the models of transformers have no loss, as they give theirs."""
    labels = inputs.pop("labels")
    outputs = model(**inputs)
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
    loss = RowLoss(CrossEntropy(), soft_labels=True)(logits, labels).mean()
    outputs = outputs if isinstance(outputs, Mapping) else (loss, *outputs)
    return (loss, outputs) if return_outputs else loss
