"""Infogain: weights of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_logitmix import papers
from hf_logitmix.part import LabelSpec
from hf_logitmix.targets.base import Targets
from hf_logitmix.training.training_set import TrainingSet


def infogain(class_counts: Tensor) -> Tensor:
    r"""Rows of the infogain loss, :math:`H_{yy} = \min_j N_j / N_y` and zero elsewhere.

    The loss :math:`-\sum_i H_{yi} \log p_i` then counts an example of a frequent class less. The orientation is that of
    Caffe's InfogainLoss; Negi et al. (Leveraging Class Similarity) print the transpose. Rows do not sum to 1.

    Args:
        class_counts: [K], number of training examples of each class.

    Returns:
        FloatTensor[K, K].

    Raises:
        ValueError: for a class without examples.
    """
    counts = class_counts.double()
    if counts.dim() != 1 or not ((counts > 0) & counts.isfinite()).all():
        raise ValueError(f"class_counts={class_counts.tolist()}: infogain needs at least one example of every class.")
    return torch.diag(counts.min() / counts).float()


@dataclass(frozen=True)
class Infogain(Targets):
    """Infogain weights of the classes; see `infogain`.

    Attributes:
        class_counts: number of training examples of each class; None counts them before training starts.
    """

    papers = (papers.CAFFE, papers.MCEL)

    class_counts: Sequence[int] | None = field(
        default=None,
        metadata={"help": "Training examples of each class; else they are counted.", "command_line": False},
    )
    are_distributions: ClassVar[bool] = False

    def check(self, model: Any, labels: LabelSpec) -> None:
        super().check(model, labels)
        if self.class_counts is not None:
            self.matrix(labels.num_labels)

    def setup(self, training_set: TrainingSet) -> Targets:
        return self if self.class_counts is not None else Infogain(training_set.class_counts().tolist())

    def matrix(self, num_labels: int) -> Tensor | None:
        if self.class_counts is None or len(self.class_counts) != num_labels:
            raise ValueError(f"class_counts={self.class_counts}: pass one number for each of {num_labels} classes.")
        return infogain(torch.as_tensor(self.class_counts))
