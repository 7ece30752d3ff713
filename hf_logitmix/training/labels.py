"""What labels are: their form, what decides it, and what is wrong with them."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Sized
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn

from hf_logitmix.models import unwrap
from hf_logitmix.part import LabelSpec
from hf_logitmix.ranges import check_all
from hf_logitmix.soft_labels import check_distributions, problem_type_of, refuse_unclear, refuse_unclear_tensor

logger = logging.getLogger(__name__)


def label_spec(model: nn.Module) -> LabelSpec:
    """Number of outputs and problem type of a classification model, by the rules of transformers.

    Raises:
        ValueError: for a model without ``num_labels``, and for regression of several numbers.
    """
    config = getattr(unwrap(model), "config", None)
    num_labels = getattr(config, "num_labels", None)
    if num_labels is None:
        raise ValueError(f"{type(model).__name__} has no config.num_labels: pass a transformers classification model.")
    problem_type = getattr(config, "problem_type", None)
    problem_type = problem_type or ("regression" if num_labels == 1 else "single_label_classification")
    if problem_type == "regression" and num_labels > 1:
        raise ValueError(f"regression with num_labels={num_labels} is not supported: use a model with one output.")
    return LabelSpec(num_labels, problem_type)


def are_open(model: nn.Module, labels: Any) -> bool:
    """Whether labels are rows of a number a class, and ``problem_type`` does not say what they mean."""
    num_labels = getattr(getattr(unwrap(model), "config", None), "num_labels", 1)
    return num_labels > 1 and labels.shape[1:] == (num_labels,) and problem_type_of(model) is None


def note_multi_label(model: nn.Module, labels: Any) -> bool:
    """Set ``problem_type`` where it is open and the labels are rows of numbers, as transformers does in its forward.

    Returns:
        whether it was open.
    """
    is_open = are_open(model, labels)
    if is_open:
        unwrap(model).config.problem_type = "multi_label_classification"  # type: ignore[union-attr]
    return is_open


def refuse_unclear_batch(model: nn.Module, labels: Tensor) -> None:
    """Refuse a batch of what may be soft labels, where ``problem_type`` was left open.

    Batches before it may have had rows of zeros and ones alone, for which it was set.

    Raises:
        ValueError: for such a batch; on a GPU as `refuse_unclear_tensor`.
    """
    if labels.dim() != 2 or labels.shape[1] < 2:
        return
    try:
        refuse_unclear_tensor(labels)
    except ValueError:
        unwrap(model).config.problem_type = None  # type: ignore[union-attr]
        raise


def expect_soft_labels(model: nn.Module) -> None:
    """Set ``problem_type`` to what ``soft_labels=True`` means.

    Raises:
        ValueError: for a model of which it says something else, or with a single output.
    """
    spec = label_spec(model)
    if spec.problem_type != "single_label_classification":
        raise ValueError(
            f"soft_labels=True is for probabilities of classes, and the model is for {spec.problem_type} with "
            f"num_labels={spec.num_labels}: leave it out, or load the model for "
            "problem_type='single_label_classification'."
        )
    unwrap(model).config.problem_type = spec.problem_type  # type: ignore[union-attr]


def as_labels(labels: Tensor, num_labels: int, problem_type: str) -> Tensor:
    """Labels in the form that the losses read: class ids [B], real numbers [B], or soft or multi-hot floats [B, K]."""
    if problem_type == "regression":
        return _as_floats(labels.reshape(len(labels)))
    if problem_type == "multi_label_classification":
        return _as_floats(labels.reshape(len(labels), num_labels))
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() == 2 and labels.shape[1] == num_labels:
        return _as_floats(labels)
    if labels.dtype == torch.bool:
        labels = labels.long()
    if labels.is_floating_point() or labels.dim() != 1:
        raise ValueError(
            f"labels are {labels.dtype} of shape {tuple(labels.shape)} and the model has num_labels={num_labels}: pass "
            f"integer class ids, rows of {num_labels} probabilities, or num_labels=1 for regression."
        )
    return labels


def _as_floats(labels: Tensor) -> Tensor:
    return labels if labels.dtype == torch.float64 else labels.float()


def check_datasets(train: Any, evaluation: Any, model: nn.Module, keeps_labels: bool = True) -> LabelSpec | None:
    """Check sizes, and the labels where a dataset gives them without computing its examples.

    Args:
        train, evaluation: what was passed as datasets.
        model: is trained on the labels.
        keeps_labels: whether labels come out of the collator as they are in a dataset; rows of numbers are checked
            there otherwise.

    Returns:
        what the labels of the training set are; None where they could not be checked, and each batch must be.

    Raises:
        ValueError: for an empty dataset and for labels that the model cannot have.
    """
    found: LabelSpec | None = None
    named = evaluation.items() if isinstance(evaluation, dict) else [("", evaluation)]
    datasets = {"train_dataset": train, **{f"eval_dataset {name}".strip(): data for name, data in named}}
    for name, data in datasets.items():
        if isinstance(data, Sized) and len(data) == 0:
            raise ValueError(f"{name} is empty: pass at least one example.")
        labels = label_column(data)
        if labels is None:
            continue
        if found is not None and are_open(model, labels):
            raise ValueError(
                f"{name} has rows of {found.num_labels} numbers and train_dataset one number an example: set "
                "problem_type='single_label_classification' in the model's config if they are probabilities of the "
                "classes, or pass labels of one kind."
            )
        if keeps_labels or labels.ndim == 1:
            spec = check_known_labels(labels, model, name)
            found = spec if data is train else found
        elif data is train:
            note_multi_label(model, labels)
    return found


def check_known_labels(labels: np.ndarray, model: nn.Module, name: str) -> LabelSpec:
    """Check all labels of a dataset, and settle by them what the model leaves open.

    Raises:
        ValueError: for labels that the model cannot have, and for rows that may be soft labels or multi-label.
    """
    if are_open(model, labels):
        refuse_unclear(labels, name)
        note_multi_label(model, labels)
        has_fractions = ((labels > 0) & (labels < 1)).any()
        if has_fractions or (labels.sum(1) == 1).all():
            logger.warning(
                "%s: problem_type is not set, so labels are taken as multi-label, as in transformers, though %s: set "
                "problem_type='single_label_classification' in the model's config if they are probabilities of "
                "classes, or 'multi_label_classification'.",
                *(name, "they are fractions" if has_fractions else "each example has one label"),
            )
    num_labels, problem_type, _ = label_spec(model)
    check_labels(labels, num_labels, problem_type, name)
    return LabelSpec(num_labels, problem_type, is_soft(labels, problem_type))


def is_soft(labels: Any, problem_type: str) -> bool:
    """Whether labels that were checked are rows of probabilities of classes."""
    return problem_type == "single_label_classification" and labels.ndim == 2 and labels.shape[1] > 1


def check_labels(labels: np.ndarray, num_labels: int, problem_type: str, name: str = "labels") -> None:
    """Refuse NaN labels, class ids outside 0..K-1, and soft labels that are no probabilities of K classes.

    A class without examples is fine.
    """
    bad = ~np.isfinite(labels.astype(float))
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        raise ValueError(f"{name}: label {labels[row]} of example {row} is not a finite number: remove or mend it.")
    if is_soft(labels, problem_type):
        if labels.shape[1] != num_labels:
            raise ValueError(
                f"{name}: labels have {labels.shape[1]} numbers an example and the model has num_labels={num_labels}: "
                "load it with num_labels for every class, or pass a probability for each of its classes."
            )
        check_distributions(torch.from_numpy(labels.astype(float)), name)
    if problem_type != "single_label_classification" or labels.ndim != 1:
        return
    outside = (labels < 0) | (labels >= num_labels) | (labels != np.floor(labels))
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"{name}: label {labels[row]} of example {row} is outside 0..{num_labels - 1}: the model was loaded with "
            f"num_labels={num_labels}; load it with num_labels for every class, or mend the label."
        )


def check_batch(labels: Tensor, num_labels: int, problem_type: str) -> None:
    """`check_labels` of a batch, in the form that the losses read.

    On a GPU, which is not waited for, class ids and soft labels are left to the losses, and NaN is an assert of CUDA.
    """
    if not labels.is_cuda:
        check_labels(labels.cpu().numpy(), num_labels, problem_type)
    elif labels.is_floating_point():
        check_all(labels.isfinite(), "a label is not a finite number: remove or mend it.")


def label_column(data: Any) -> np.ndarray | None:
    """The labels of a `datasets.Dataset`, of a list of dicts or of an `ImageSet`; None where they must be computed."""
    if getattr(data, "knows_labels", False):
        return as_numbers(data.labels)
    for name in ("labels", "label"):
        if isinstance(data, datasets.Dataset) and name in data.column_names:
            return as_numbers(data.with_format(None)[name][:])
        if isinstance(data, Sequence) and len(data) and isinstance(data[0], dict) and name in data[0]:
            return as_numbers([example[name] for example in data])
    return None


def as_numbers(values: Any) -> np.ndarray | None:
    """Labels as an array; None for texts, which a transform or a collator of the user's may turn into numbers."""
    plain = [value.tolist() if isinstance(value, (Tensor, np.ndarray)) else value for value in values]
    try:
        array = np.asarray(plain)
    except ValueError:  # numpy's way of saying that the rows of a list are of unequal length
        return None
    return array if np.issubdtype(array.dtype, np.number) or array.dtype == bool else None
