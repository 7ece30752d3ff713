"""What keeps a comparison from being fair: what makes it none is refused, and the rest is told."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_logitmix.evidence.records import Record, values_of

if TYPE_CHECKING:
    from hf_logitmix.evidence.comparison import Row

GROUP = ("task", "data", "model", "n_train", "n_eval")  # the same for all runs that are compared
_CLIPPED_APART = 0.1  # shares of clipped steps that differ by more are told of
_OF_METHODS = {"masks", "soft_labels"}  # settings that a method brings
_CALLED = {"batch_size": "per_device_train_batch_size"}  # settings whose argument has another name


def check_one_experiment(label: str, runs: Sequence[Record]) -> None:
    """Refuse seeds under one label that were trained in other ways, as records without a command line may be."""

    def told(run: Record) -> dict[str, Any]:
        own = {name: run.values.get(name) for name in ("method", "selected_on", *GROUP)}
        return {**own, **{f"settings.{name}": value for name, value in run.values.get("settings", {}).items()}}

    first = told(runs[0])
    for run in runs[1:]:
        own = told(run)
        if differs := [name for name in {**first, **own} if first.get(name) != own.get(name)]:
            raise ValueError(
                f"{runs[0].path} and {run.path} are both called {label} and differ in {', '.join(differs)}: pass a "
                "folder with one of them."
            )


def check_same_examples(pairs: Sequence[tuple[Record, Record]]) -> None:
    """Refuse runs that were evaluated on other examples than the first of them."""
    first = pairs[0][0].logits()
    for run in (run for pair in pairs for run in pair):
        other = run.logits()
        if first is None or other is None or not np.array_equal(first[1], other[1]):
            raise ValueError(f"{run.path} was evaluated on other examples than {pairs[0][0].path}: compare like runs.")


def remarks_on(rows: Sequence[Row], metrics: Mapping[str, str]) -> list[str]:
    """What is not the same for all, other than the methods."""
    base, told = rows[0], []
    clipped = {row.label: _mean_of(row, "train_grad_clipped") for row in rows}
    shares = {label: share for label, share in clipped.items() if share is not None}
    if base.label in shares and max(shares.values()) - min(shares.values()) > _CLIPPED_APART:
        least, most = (pick(shares, key=lambda label: shares[label]) for pick in (min, max))
        told.append(
            f"Gradients were clipped in {shares[least]:.0%} ({least}) to {shares[most]:.0%} ({most}) of the steps, "
            "which shortens some more than others: compare with --max_grad_norm 0 too."
        )
    besides = {row.label: _besides_the_method(row, base) for row in rows[1:]}
    told += [f"{label} and {base.label} differ in {', '.join(names)} too." for label, names in besides.items() if names]
    if strange := [row.label for row in rows[1:] if _of_other_data(row, base, ["train"])]:
        told.append(f"{', '.join(strange)}: trained on other examples or labels than {base.label}.")
    measured = sorted({name for run in base.records for name in run.values.get("measured_on") or {}})
    if strange := [row.label for row in rows[1:] if _of_other_data(row, base, measured)]:
        told.append(f"{', '.join(strange)}: evaluated on other examples than {base.label}, though their labels agree.")
    every = sorted({seed for row in rows for seed in row.seeds})
    if short := [f"{row.label} ({len(row.seeds)})" for row in rows if sorted(row.seeds) != every]:
        told.append(f"Not all have all {len(every)} seeds: {', '.join(short)}.")
    for name, head in metrics.items():
        lacking = [f"{row.label} ({run.seed})" for row in rows for run in row.records if _lacks(run, name)]
        if lacking:
            told.append(f"{head} is missing or not a number, so it is not compared: {', '.join(lacking)} (seed).")
    alone = [
        metrics[name]
        for name in metrics
        if any(not row.against[name].over_examples for row in rows if name in row.against)
    ]
    if alone:
        told.append(f"Intervals of {', '.join(alone)} are over seeds alone.")
    return told


def _lacks(run: Record, name: str) -> bool:
    return run.values.get(f"eval_{name}") is None


def _pairs(row: Row, base: Row) -> list[tuple[Record, Record]]:
    """The runs of a row, each with that of the baseline with its seed."""
    others = {run.seed: run for run in base.records}
    return [(run, others[run.seed]) for run in row.records if run.seed in others]


def _of_other_data(row: Row, base: Row, splits: Sequence[str]) -> bool:
    """Whether a run and that of the baseline with its seed are known to have had other data."""
    digests = [[run.values.get("digests", {}) for run in pair] for pair in _pairs(row, base)]
    return any(_apart(own, other, name) for own, other in digests for name in splits)


def _besides_the_method(row: Row, base: Row) -> list[str]:
    """What is known to be otherwise than with the baseline and is not in the label, with both values."""

    def known(run: Record) -> dict[str, Any]:
        versions = {f"version of {name}": version for name, version in run.values.get("versions", {}).items()}
        alone = {name: run.values.get(name) for name in ("selected_on", "device")}
        return {**run.values.get("settings", {}), **versions, **alone}

    found: dict[str, tuple[Any, Any]] = {}
    for own, other in ((known(run), known(base_run)) for run, base_run in _pairs(row, base)):
        found |= {name: (own[name], other[name]) for name in own if _apart(own, other, name)}
    in_label = set(row.label.split()) | set(base.label.split())
    return [
        f"{name} ({own} and {other})"
        for name, (own, other) in found.items()
        if name not in _OF_METHODS and f"--{_CALLED.get(name, name)}" not in in_label
    ]


def _apart(own: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    return None not in (own.get(name), other.get(name)) and own[name] != other[name]


def _mean_of(row: Row, name: str) -> float | None:
    values = values_of(row.records, name)
    return statistics.fmean(values) if values else None
