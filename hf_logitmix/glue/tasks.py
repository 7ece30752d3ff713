"""The GLUE tasks as data: texts, labels, metrics, and where each split lies on the Hub and in the classic folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hf_logitmix.soft_labels import classes_of
from hf_logitmix.text.metrics import METRICS


@dataclass(frozen=True)
class Split:
    """One file of a task.

    Attributes:
        hub: name of the split on the Hub.
        file: name in the classic GLUE folder.
        columns: our name -> header of the TSV column, or its number where the file has no header.
        width: number of columns of a file without a header, 0 where there is one.
        suffix: appended to the names of the metrics (MNLI's second dev set is ``_mm``).
        submission: name of the file that the GLUE server expects, for test splits.
    """

    hub: str
    file: str
    columns: Mapping[str, str | int]
    width: int = 0
    suffix: str = ""
    submission: str = ""

    @property
    def name(self) -> str:
        return self.hub


@dataclass(frozen=True)
class Task:
    """One GLUE task.

    Attributes:
        name: the configuration on the Hub, such as ``mrpc``.
        folder: in the classic layout, such as ``MRPC``.
        texts: one or two columns that hold the texts.
        label_names: of the classes, in the Hub's order; empty for regression.
        metrics: keys of `hf_logitmix.text.metrics.METRICS`; the first is the task's main one.
        train: None for the diagnostic set, which has no training data.
        dev, test: usually one split each; MNLI has two.
        writes_names: whether a submission holds class names instead of numbers.
        skips_malformed: whether the official labelled files hold broken rows, which are skipped with a count.
    """

    name: str
    folder: str
    texts: tuple[str, ...]
    label_names: tuple[str, ...]
    metrics: tuple[str, ...]
    train: Split | None
    dev: tuple[Split, ...]
    test: tuple[Split, ...]
    writes_names: bool = False
    skips_malformed: bool = False
    score_range: tuple[float, float] | None = None

    @property
    def is_regression(self) -> bool:
        return not self.label_names

    @property
    def num_labels(self) -> int:
        return 1 if self.is_regression else len(self.label_names)

    @property
    def problem_type(self) -> str:
        return "regression" if self.is_regression else "single_label_classification"


def _simple(
    name: str,
    folder: str,
    columns: dict[str, str],
    label: str,
    label_names: tuple[str, ...],
    metrics: tuple[str, ...] = ("accuracy",),
    writes_names: bool = False,
    skips_malformed: bool = False,
    score_range: tuple[float, float] | None = None,
) -> Task:
    """A task with the three files train.tsv, dev.tsv and test.tsv, each with a header."""
    labelled = {**columns, "label": label}
    return Task(
        name,
        folder,
        tuple(columns),
        label_names,
        metrics,
        train=Split("train", "train.tsv", labelled),
        dev=(Split("validation", "dev.tsv", labelled),),
        test=(Split("test", "test.tsv", columns, submission=f"{folder}.tsv"),),
        writes_names=writes_names,
        skips_malformed=skips_malformed,
        score_range=score_range,
    )


_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_NLI = {"premise": "sentence1", "hypothesis": "sentence2"}
_NLI_LABELLED = {**_NLI, "label": "gold_label"}
_NLI_NAMES = ("entailment", "neutral", "contradiction")
_COLA = {"sentence": 3, "label": 1}

_ALL = (
    Task(
        "cola",
        "CoLA",
        ("sentence",),
        ("unacceptable", "acceptable"),
        ("matthews_correlation", "accuracy"),
        train=Split("train", "train.tsv", _COLA, width=4),
        dev=(Split("validation", "dev.tsv", _COLA, width=4),),
        test=(Split("test", "test.tsv", {"sentence": "sentence"}, submission="CoLA.tsv"),),
    ),
    _simple("sst2", "SST-2", {"sentence": "sentence"}, "label", ("negative", "positive")),
    _simple(
        "mrpc",
        "MRPC",
        {"sentence1": "#1 String", "sentence2": "#2 String"},
        "Quality",
        ("not_equivalent", "equivalent"),
        ("accuracy", "f1"),
    ),
    _simple("stsb", "STS-B", _PAIR, "score", (), ("pearson", "spearmanr"), score_range=(0.0, 5.0)),
    _simple(
        "qqp",
        "QQP",
        {"question1": "question1", "question2": "question2"},
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        ("accuracy", "f1"),
        skips_malformed=True,
    ),
    Task(
        "mnli",
        "MNLI",
        ("premise", "hypothesis"),
        _NLI_NAMES,
        ("accuracy",),
        train=Split("train", "train.tsv", _NLI_LABELLED),
        dev=(
            Split("validation_matched", "dev_matched.tsv", _NLI_LABELLED),
            Split("validation_mismatched", "dev_mismatched.tsv", _NLI_LABELLED, suffix="_mm"),
        ),
        test=(
            Split("test_matched", "test_matched.tsv", _NLI, submission="MNLI-m.tsv"),
            Split("test_mismatched", "test_mismatched.tsv", _NLI, submission="MNLI-mm.tsv"),
        ),
        writes_names=True,
    ),
    _simple(
        "qnli",
        "QNLI",
        {"question": "question", "sentence": "sentence"},
        "label",
        ("entailment", "not_entailment"),
        writes_names=True,
    ),
    _simple("rte", "RTE", _PAIR, "label", ("entailment", "not_entailment"), writes_names=True),
    _simple("wnli", "WNLI", _PAIR, "label", ("not_entailment", "entailment")),
    Task(
        "ax",
        "diagnostic",
        ("premise", "hypothesis"),
        _NLI_NAMES,
        ("matthews_correlation",),
        train=None,
        dev=(),
        test=(Split("test", "diagnostic.tsv", _NLI, submission="AX.tsv"),),
        writes_names=True,
    ),
)

TASKS = MappingProxyType({task.name: task for task in _ALL})


def get_task(name: str) -> Task:
    """A task by its name on the Hub, in any case and also as its folder is called (``SST-2``, ``STS-B``).

    Raises:
        ValueError: for a name that is not there.
    """
    for task in _ALL:
        if name.lower() in (task.name, task.folder.lower()):
            return task
    raise ValueError(f"task_name={name!r} is unknown: pass one of {', '.join(TASKS)}.")


def task_metrics(task: Task, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The task's own metrics from logits [N, K], or [N, 1] for regression; of soft labels, of their arg max."""
    predictions = logits[:, 0] if task.is_regression else logits.argmax(1)
    return {name: METRICS[name](classes_of(labels), predictions) for name in task.metrics}
