"""Whether methods differ from a baseline: means over seeds, paired differences, and when a difference counts."""

from __future__ import annotations

import logging
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_logitmix.calibration.differences import Difference, difference_of_samples, sampled
from hf_logitmix.calibration.registry import columns, metric_of
from hf_logitmix.calibration.rows import Floats
from hf_logitmix.evidence.fairness import GROUP, check_one_experiment, check_same_examples, remarks_on
from hf_logitmix.evidence.records import Record, labels_of, values_of
from hf_logitmix.evidence.significance import LEVEL, holm, paired_t
from hf_logitmix.glue.tasks import TASKS

logger = logging.getLogger(__name__)


Samples = Mapping[Path, dict[str, Floats] | None]  # path of a record -> metric -> its values, as `sampled` gives them


@dataclass(frozen=True)
class Against:
    """How much higher a metric is than the baseline's.

    Attributes:
        difference: of the means over common seeds, with its interval.
        p: of the paired t-test over seeds, corrected by Holm over the methods; None for a single seed.
        higher_is_better: whether a positive difference is better.
        over_examples: whether the interval is over examples too, and not over seeds alone.
    """

    difference: Difference
    p: float | None
    higher_is_better: bool
    over_examples: bool

    @property
    def counts(self) -> bool:
        """Whether the interval leaves 0 out and the test agrees."""
        _, low, high = self.difference
        return self.p is not None and self.p < 1 - LEVEL and not low <= 0 <= high

    @property
    def is_better(self) -> bool:
        return (self.difference.value > 0) == self.higher_is_better


@dataclass(frozen=True)
class Row:
    """A method: over its seeds the values of each metric, and each of them against the baseline.

    Attributes:
        label: its name, and what it is told besides.
        records: a run for each seed.
        values: name of a metric -> the values of the runs; left out where a run lacks it.
        against: name of a metric -> how it differs; empty for the baseline, and without a common seed.
        common: the seeds that the baseline has too.
        time: time of training over that of the baseline, the median over common seeds; None if it is not known.
    """

    label: str
    records: tuple[Record, ...]
    values: Mapping[str, list[float]]
    against: Mapping[str, Against]
    common: tuple[int, ...]
    time: float | None

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.records]


@dataclass(frozen=True)
class Comparison:
    """Methods on one task and on the same examples.

    Attributes:
        title: which task, with how many examples, on which model.
        task: its name.
        metrics: name of a metric -> what heads its column, the task's own first.
        baseline: the label of the row that the others are held against.
        rows: the baseline first.
        remarks: what makes a comparison less fair, a sentence each.
    """

    title: str
    task: str
    metrics: Mapping[str, str]
    baseline: str
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]


def compare(
    records: Sequence[Record],
    baseline: str = "vanilla",
    only: Sequence[str] = (),
    samples: Samples | None = None,
) -> list[Comparison]:
    r"""Hold every method against a baseline, on each task for itself.

    A difference is of the means over the seeds that both have. Its interval is of the bootstrap over seeds and examples
    (`hf_logitmix.calibration.differences`) where the logits of all of these runs were kept, otherwise of the t
    distribution over seeds. Beside it stands the paired t-test over seeds, with the p-values of all methods of a task
    corrected by Holm (1979).

    Args:
        records: of one or more tasks.
        baseline: a label, as `hf_logitmix.evidence.records.labels_of` makes them.
        only: labels of those that are held against it, for which p-values are corrected; none stands for all.
        samples: `samples_of` the records, where several comparisons are made of them; None draws them here.

    Raises:
        ValueError: if no task has the baseline (of one that has not, a warning tells), and for two runs of one method
            with one seed.
    """
    groups: dict[tuple, list[Record]] = defaultdict(list)
    for run in records:
        noise = run.values.get("settings", {}).get("label_noise")
        groups[(*(run.values.get(key) for key in GROUP), noise)].append(run)
    named = [(runs, labels_of(runs)) for runs in groups.values()]
    compared = [(runs, labels) for runs, labels in named if baseline in labels] or named  # of which each is refused
    for runs, labels in named:
        if compared is not named and baseline not in labels:
            logger.warning(
                "%s: there is no %s, so nothing is told of %s.",
                *(_title(runs[0].values), baseline, ", ".join(dict.fromkeys(labels))),
            )
    return [_compare(runs, labels, baseline, only, samples) for runs, labels in compared]


def samples_of(records: Sequence[Record]) -> Samples:
    """The metrics of bootstrap samples of each run, by its path; None where logits were not kept."""
    return {run.path: _sampled(run) for run in records}


def _compare(
    records: Sequence[Record], labels: Sequence[str], baseline: str, only: Sequence[str], samples: Samples | None
) -> Comparison:
    of_label: dict[str, dict[int, Record]] = defaultdict(dict)
    for run, label in zip(records, labels, strict=True):
        if run.seed in of_label[label]:
            raise ValueError(
                f"{of_label[label][run.seed].path} and {run.path} are both runs of {label} with seed {run.seed}: pass "
                "a folder with one of them."
            )
        of_label[label][run.seed] = run
    for label, runs in of_label.items():
        check_one_experiment(label, list(runs.values()))
    title = _title(records[0].values)
    if baseline not in of_label:
        raise ValueError(f"{title}: there is no {baseline}, only {', '.join(of_label)}: name one of them as baseline.")
    if strange := [label for label in only if label not in of_label]:
        raise ValueError(f"{title}: there is no {strange[0]}, only {', '.join(of_label)}: name some of them.")
    of_label = {label: runs for label, runs in of_label.items() if not only or label in (baseline, *only)}
    records = [run for runs in of_label.values() for run in runs.values()]
    metrics = metrics_of(records)
    if not metrics:
        raise ValueError(f"{title}: no run of {', '.join(of_label)} was evaluated: run them again with --do_eval.")
    samples = samples_of(records) if samples is None else samples
    order = sorted(of_label, key=lambda label: label != baseline)
    found = {label: _against(of_label[label], of_label[baseline], metrics, samples) for label in order[1:]}
    for name in metrics:
        tested = {label: of[name].p for label, of in found.items() if name in of}
        known = {label: p for label, p in tested.items() if p is not None}
        for label, p in zip(known, holm(list(known.values())), strict=True):
            found[label][name] = replace(found[label][name], p=p)
    rows = []
    for label in order:
        runs = of_label[label]
        common = tuple(seed for seed in runs if seed in of_label[baseline])
        values = {name: values_of(list(runs.values()), f"eval_{name}") for name in metrics}
        complete = {name: of for name, of in values.items() if of is not None}
        time = _time(runs, of_label[baseline], common)
        rows.append(Row(label, tuple(runs.values()), complete, found.get(label, {}), common, time))
    return Comparison(
        title, records[0].values["task"], metrics, baseline, tuple(rows), tuple(remarks_on(rows, metrics))
    )


def metrics_of(records: Sequence[Record]) -> dict[str, str]:
    """Name -> head of the columns: the task's own metric, then those of tables, as far as a run has them."""
    own = own_metric(records[0].values)
    heads = {own: own.replace("_", " "), **{name: head for head, name in columns().items()}}
    return {name: head for name, head in heads.items() if any(f"eval_{name}" in run.values for run in records)}


def own_metric(run: Mapping[str, Any]) -> str:
    """The metric that a run's task is judged by."""
    if run["task"] in TASKS:
        return TASKS[run["task"]].metrics[0]
    known = [name for name in ("accuracy", "pearson", "f1_micro", "rmse") if f"eval_{name}" in run]
    return known[0] if known else "accuracy"


def higher_is_better(name: str) -> bool:
    """Which way a metric is better; all of those that tasks are judged by are better the higher, but for rmse."""
    metric = metric_of(name)
    return metric.higher_is_better if metric else name != "rmse"


def _title(run: Mapping[str, Any]) -> str:
    noise = run.get("settings", {}).get("label_noise")
    return (
        f"{run['task']}{f' with {noise} label noise' if noise else ''}: {run.get('n_train', 0):,} training and "
        f"{run.get('n_eval', 0):,} evaluation examples, {run.get('model', 'a model')}"
    )


def _sampled(run: Record) -> dict[str, Floats] | None:
    """None where logits were not kept, and for labels that are no single class or number."""
    found = run.logits()
    return None if found is None or found[1].ndim > 1 else sampled(*found)


def _against(
    ours: Mapping[int, Record],
    theirs: Mapping[int, Record],
    metrics: Mapping[str, str],
    samples: Samples,
) -> dict[str, Against]:
    """Each metric against the baseline's, p-values as they are."""
    common = [seed for seed in ours if seed in theirs]
    pairs = [(ours[seed], theirs[seed]) for seed in common]
    if not pairs:
        return {}
    drawn: dict[str, Difference] = {}
    mine, others = ([samples[run.path] for run in side] for side in zip(*pairs, strict=True))
    if all(of is not None for of in [*mine, *others]):
        check_same_examples(pairs)
        drawn = difference_of_samples(mine, others, level=LEVEL)  # type: ignore[arg-type]
    found = {}
    for name in metrics:
        values = [tuple(run.values.get(f"eval_{name}") for run in pair) for pair in pairs]
        if any(None in pair for pair in values):
            continue
        apart = [mine - other for mine, other in values]  # type: ignore[operator]
        over_seeds, p = paired_t(apart)
        found[name] = Against(drawn.get(name, over_seeds), p, higher_is_better(name), name in drawn)
    return found


def _time(ours: Mapping[int, Record], theirs: Mapping[int, Record], common: Sequence[int]) -> float | None:
    """The median over seeds of pairs on one device; a resumed run, of whose time a part is known, is left out."""
    pairs = [(ours[seed].values, theirs[seed].values) for seed in common]
    known = [
        mine["train_seconds"] / other["train_seconds"]
        for mine, other in pairs
        if mine.get("device") == other.get("device")
        and all(run.get("train_seconds") and not run.get("resumed_from_step") for run in (mine, other))
    ]
    return statistics.median(known) if known else None
