"""What a run has to know of a task of texts and of its splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class TextTask(Protocol):
    """What is learned of which texts; `hf_logitmix.glue.tasks.Task` is one, and `OwnTask`."""

    @property
    def name(self) -> str:
        """For records."""

    @property
    def texts(self) -> tuple[str, ...]:
        """One or two columns that hold the texts."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of the classes, in order; empty for regression."""

    @property
    def num_labels(self) -> int:
        """Outputs of a model."""

    @property
    def problem_type(self) -> str:
        """As transformers calls it: regression, single_label_classification or multi_label_classification."""


class TextSplit(Protocol):
    """What records call a split."""

    @property
    def name(self) -> str:
        """The split itself."""

    @property
    def suffix(self) -> str:
        """Appended to the names of its metrics."""


@dataclass(frozen=True)
class OwnTask:
    """A task of data of one's own; attributes as in `TextTask`."""

    name: str
    texts: tuple[str, ...]
    label_names: tuple[str, ...]
    problem_type: str

    @property
    def num_labels(self) -> int:
        return len(self.label_names) or 1


@dataclass(frozen=True)
class OwnSplit:
    """A split of data of one's own; attributes as in `TextSplit`."""

    name: str
    suffix: str = ""


def has_one_class(task: TextTask) -> bool:
    """Whether each example has one of the classes, so that probabilities are a softmax that can be calibrated."""
    return task.problem_type == "single_label_classification"
