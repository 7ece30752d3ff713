"""Soft labels: the label of an example is a row of probabilities of the classes, which sum to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_logitmix.models import unwrap

TOLERANCE = 5e-3  # of the sum of a row, which half precision rounds
_NEARLY = 0.05  # of a sum, up to which rows look like probabilities that were rounded
_FIXES = (
    "set problem_type='single_label_classification' in the model's config (or soft_labels=True in "
    "MixTrainingArguments) if they are probabilities of the classes, 'multi_label_classification' if several classes "
    "may hold at once"
)


def problem_type_of(model: nn.Module) -> str | None:
    """What a model's configuration says of its labels; None where it leaves that open."""
    return getattr(getattr(unwrap(model), "config", None), "problem_type", None)


def are_soft(model: nn.Module, labels: Tensor) -> bool:
    """Whether the labels of a batch are probabilities: rows of floats, of a model with one label an example.

    Raises:
        ValueError: where that cannot be told; see `refuse_unclear`. On a GPU, which is not waited for, it is an assert.
    """
    if labels.dim() != 2 or labels.shape[1] < 2 or not labels.is_floating_point():
        return False
    problem_type = problem_type_of(model)
    if problem_type is None:
        refuse_unclear_tensor(labels)
    return problem_type == "single_label_classification"


def refuse_unclear_tensor(labels: Tensor) -> None:
    """`refuse_unclear` of a batch of labels [B, K]; on a GPU, which is not waited for, it is an assert."""
    if labels.is_cuda:
        has_fractions = ((labels > 0) & (labels < 1)).any()
        sum_to_1 = (labels >= 0).all() & ((labels.float().sum(-1) - 1).abs() <= _NEARLY).all()
        torch._assert_async(~(has_fractions & sum_to_1), f"labels are fractions that sum to 1: {_FIXES}.")
    elif not labels.is_meta:
        refuse_unclear(labels.detach().cpu().double().numpy(), "labels")


def refuse_unclear(rows: np.ndarray, name: str) -> None:
    """Refuse fractions in rows that all sum to 1, which would be taken for several labels that hold at once.

    Rows of zeros and ones are left alone: transformers takes them for multi-label.

    Raises:
        ValueError: with what to set, which ends the doubt.
    """
    has_fractions = bool(((rows > 0) & (rows < 1)).any())
    if has_fractions and (rows >= 0).all() and (np.abs(rows.sum(-1, dtype=float) - 1) <= _NEARLY).all():
        raise ValueError(f"{name} has rows of fractions that sum to 1, and problem_type is not set: {_FIXES}.")


def check_distributions(rows: Tensor, name: str = "labels") -> None:
    """Refuse rows that are no probabilities: negative or NaN, or of a sum that is further than `TOLERANCE` from 1.

    On a GPU nothing waits for the answer: there it is a device-side assert of CUDA.

    Args:
        rows: FloatTensor[N, K].
        name: of what holds them.

    Raises:
        ValueError: with the first such row, for rows that are anywhere else.
    """
    if rows.is_cuda:
        good = _are_distributions(rows).all()
        torch._assert_async(good, f"{name} has a row that is no probabilities: numbers >= 0 that sum to 1.")
    elif not rows.is_meta and (found := first_fault(rows)):
        number, fault, fix = found
        raise ValueError(
            f"{name}: the soft label of example {number} {fault}: {fix}, or set "
            "problem_type='multi_label_classification' in the model's config if several classes may hold at once."
        )


def first_fault(rows: Tensor) -> tuple[int, str, str] | None:
    """The first of rows [N, K] that is no probabilities: its number, what is wrong, and the fix; None if all are."""
    wrong = _are_distributions(rows).logical_not()
    if not wrong.any():
        return None
    number = int(wrong.nonzero()[0])
    row = rows[number]
    if bool((row >= 0).all()):
        return number, f"sums to {_sums(row).item():g} and not to 1", "divide each row by its sum"
    return number, f"holds {row[~(row >= 0)][0].item():g}", "pass numbers >= 0 that sum to 1"


def _are_distributions(rows: Tensor) -> Tensor:
    return (rows >= 0).all(-1) & ((_sums(rows) - 1).abs() <= TOLERANCE)


def _sums(rows: Tensor) -> Tensor:
    return rows.sum(-1, dtype=torch.float64 if rows.dtype == torch.float64 else torch.float32)


def classes_of(labels: Any) -> Any:
    """Class ids [N] as they are; of soft labels [N, K] the class with most mass, the first of several that have it."""
    return labels.argmax(1) if labels.ndim == 2 and labels.shape[1] > 1 else labels
