"""What the parts of a method may look at before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from hf_logitmix.digest import digest
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.soft_labels import classes_of
from hf_logitmix.training.labels import check_labels, label_column


@dataclass(frozen=True)
class TrainingSet:
    """What the parts of a method may look at before the first step.

    Attributes:
        dataset: the Trainer's training set.
        model: the model as it is loaded.
        num_labels: K.
        collator: makes a batch of a list of examples.
        folder: of the run, where what is found here is kept; None keeps nothing.
        resumed_from: the checkpoint that the run goes on from, so that the model is not as it was loaded; or None.
        shows_progress: whether long work shows a progress bar.
        processing_class: the Trainer's: a tokenizer, or a processor that holds one.
    """

    dataset: Any
    model: nn.Module
    num_labels: int
    collator: Callable[[list[Any]], Mapping[str, Any]] | None = None
    folder: Path | None = None
    resumed_from: Path | None = None
    shows_progress: bool = True
    processing_class: Any = None

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the Trainer or of the collator, which may be wrapped; None where neither has one."""
        collator: Any = self.collator
        while (inner := getattr(collator, "collator", getattr(collator, "data_collator", None))) is not None:
            collator = inner  # of a MixCollator, or of transformers' RemoveColumnsCollator
        known = (self.processing_class, *(getattr(one, "tokenizer", None) for one in (self.processing_class, collator)))
        return next((one for one in known if hasattr(one, "all_special_ids")), None)

    @property
    def can_be_looked_at(self) -> bool:
        """Whether examples can be read by their number."""
        is_streamed = isinstance(self.dataset, IterableDataset) or not hasattr(self.dataset, "__getitem__")
        return not is_streamed and hasattr(self.dataset, "__len__")

    def labels(self) -> np.ndarray:
        """The class of each example, [N] integers; of soft labels the one with most mass.

        Raises:
            ValueError: for a dataset without a length or without labels, and for labels outside 0..K-1.
        """
        return classes_of(self._labels()).astype(np.int64)

    def _labels(self) -> np.ndarray:
        """Class ids [N], or soft labels [N, K]."""
        labels = label_column(self.dataset)
        if labels is None:
            if not self.can_be_looked_at:
                raise ValueError(
                    "train_dataset has no length or is a stream, so its classes cannot be looked at: pass class_counts "
                    "(infogain) or class_similarity (mcel)."
                )
            names = [name for name in ("labels", "label") if len(self.dataset) and name in self.dataset[0]]
            if not names:
                raise ValueError(
                    "train_dataset has neither `labels` nor `label` in its rows, so its classes cannot be looked at: "
                    "rename the column, or pass class_counts (infogain) or class_similarity (mcel)."
                )
            labels = np.asarray([np.asarray(self.dataset[index][names[0]]) for index in range(len(self.dataset))])
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        check_labels(labels, self.num_labels, "single_label_classification", "train_dataset")
        return labels

    def numbers(self) -> np.ndarray:
        """The label of each example of a regression, [N] floats.

        Raises:
            ValueError: for a dataset whose labels must be computed.
        """
        labels = label_column(self.dataset)
        if labels is None:
            raise ValueError("train_dataset is a stream or computes its labels, so they cannot be looked at.")
        return labels.astype(float).reshape(-1)

    def class_counts(self) -> Tensor:
        """Number of examples of each class, LongTensor[K], of soft labels their sum, [K] floats; raises as `labels`."""
        labels = self._labels()
        if labels.ndim == 2:
            return torch.from_numpy(labels.sum(0, dtype=np.float64))
        return torch.from_numpy(np.bincount(labels.astype(np.int64), minlength=self.num_labels))

    def fingerprint(self) -> str:
        """Tells whether two training sets are the same; empty where that cannot be known without computing examples."""
        if isinstance(self.dataset, datasets.Dataset):
            return str(self.dataset._fingerprint)
        if not isinstance(self.dataset, list):
            return str(getattr(self.dataset, "fingerprint", ""))  # of an ImageSet
        rows = [{name: _numbers(value) for name, value in row.items()} for row in self.dataset]
        if any(value is None for row in rows for value in row.values()):
            return ""
        return digest(str(len(rows)), rows).hex()  # type: ignore[arg-type]

    def first_batch(self) -> dict[str, Tensor] | None:
        """The tensors of the first two examples; None where they cannot be read by their number."""
        if self.collator is None or not self.can_be_looked_at:
            return None
        with torch.random.fork_rng(devices=[]):  # a collator may augment
            return next(self.batches(np.arange(min(2, len(self.dataset)))), None)

    def batches(self, indices: np.ndarray, size: int = 64) -> Iterator[dict[str, Tensor]]:
        """The tensors of some examples, without labels, in batches on the model's device."""
        if self.collator is None:
            raise ValueError("the training set comes without a collator: pass class_similarity, a [K, K] tensor.")
        device = next(self.model.parameters()).device
        for start in range(0, len(indices), size):
            batch = self.collator([self.dataset[int(index)] for index in indices[start : start + size]])
            left_out = ("label", "labels", "sample_weight", *MixPlan._fields)
            yield {
                name: value.to(device)
                for name, value in batch.items()
                if isinstance(value, Tensor) and name not in left_out
            }


def _numbers(value: Any) -> Tensor | None:
    """A value as a tensor, or None where it is no number and no array of numbers."""
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # numpy's way of saying that the rows of a list are of unequal length
        return None
    return torch.from_numpy(np.array(array)) if array.dtype.kind in "biuf" else None
