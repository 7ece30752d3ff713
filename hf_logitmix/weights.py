"""What the loss of an example is multiplied by: the weight of its class, and one of its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hf_logitmix.part import LabelSpec
from hf_logitmix.ranges import check_range


def weights_of(labels: Tensor, class_weights: Tensor | None, sample_weight: Tensor | None) -> Tensor | None:
    r"""FloatTensor[B], the product of the two weights of each example; None where both are None.

    Args:
        labels: of the batch; where there are class weights class ids, or soft labels r, whose weight is
            :math:`\sum_k r_k w_k`.
        class_weights: FloatTensor[K].
        sample_weight: FloatTensor[B].

    Raises:
        ValueError: for a sample_weight that is not [B] finite numbers >= 0; on a GPU as in `check_range`.
    """
    if sample_weight is not None:
        if sample_weight.shape != labels.shape[:1]:
            shape = tuple(sample_weight.shape)
            raise ValueError(f"sample_weight has the shape {shape}: pass one number >= 0 an example, FloatTensor[B].")
        largest = torch.finfo(torch.float32).max
        check_range(sample_weight, 0, largest, "sample_weight", "pass a finite number >= 0")
    if class_weights is None:
        return sample_weight
    class_weights = class_weights.to(labels.device, non_blocking=True)
    of_class = (labels * class_weights).sum(1) if labels.is_floating_point() else class_weights[labels]
    return of_class if sample_weight is None else of_class * sample_weight


def check_class_weights(weights: Any, labels: LabelSpec) -> None:
    """Raise ValueError for class weights without classes, or of another number of them; None is fine."""
    if weights is not None and labels.problem_type != "single_label_classification":
        raise ValueError(f"class_weights={weights!r} is for classes and this is {labels.problem_type}: leave it out.")
    if isinstance(weights, tuple) and len(weights) != labels.num_labels:
        raise ValueError(f"class_weights has {len(weights)} numbers and the model {labels.num_labels} classes.")


def balanced(counts: Tensor) -> list[float]:
    """Class weights N / (K N_k), as scikit-learn's ``class_weight="balanced"``.

    Raises:
        ValueError: for a class without examples.
    """
    if not counts.all():
        raise ValueError(f"class_weights='balanced' needs an example of every class, got counts {counts.tolist()}.")
    return [counts.sum().item() / (len(counts) * count) for count in counts.tolist()]


def as_class_weights(given: Any) -> tuple[float, ...] | str | None:
    """Class weights from what a user passes: numbers, their text on a command line, "balanced" or None.

    Raises:
        ValueError: for anything else.
    """
    if given is None or given == "balanced":
        return given
    try:
        numbers = tuple(float(number) for number in (given.split() if isinstance(given, str) else given))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(math.isfinite(number) and number >= 0 for number in numbers) or not any(numbers):
        raise ValueError(f"class_weights must be 'balanced' or a number >= 0 for each class, got {given!r}.")
    return numbers
