"""Is one method better than another? Paired differences of metrics, with intervals over seeds and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax

from hf_logitmix.calibration.registry import SCALED
from hf_logitmix.calibration.rows import Floats, as_float64, as_logits
from hf_logitmix.calibration.selective import aurc, rankings
from hf_logitmix.calibration.statistics import bin_of
from hf_logitmix.calibration.temperature import cross_fit

_BLOCK = 100  # samples at once, each with a weight for every example


class Difference(NamedTuple):
    """Of the mean over runs: the value, and the ends of its interval."""

    value: float
    low: float
    high: float


def differences(
    ours: Sequence[tuple[Any, Any]],
    theirs: Sequence[tuple[Any, Any]],
    *,
    n_bins: int = 10,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    r"""How much higher each metric is in our runs than in theirs, both on the same examples.

    .. math:: d = \frac1S \sum_s \big( m(z_s, y) - m(z'_s, y) \big)

    with an interval of the bootstrap: each sample draws S pairs of runs and N examples with replacement, the same
    examples for all runs, and the middle of the samples is moved so that their mean is d: a calibration error of a
    sample is larger than that of the examples by about what chance adds. Temperatures are cross-fitted once, on all
    examples of a run.

    Args:
        ours, theirs: of S seeds each, in the same order: (logits [N, K], labels [N] class ids), or of a regression
            (predictions [N, 1], labels [N] numbers).
        n_bins: of the calibration error.
        samples: of the bootstrap.
        level: of the interval.
        seed: of what is drawn.

    Returns:
        the metrics of `sampled`, each with its `Difference`; negative is lower in ours.

    Raises:
        ValueError: for other numbers of runs, none, and runs on other examples.
    """
    runs = [*ours, *theirs]
    if any(not np.array_equal(np.asarray(labels), np.asarray(runs[0][1])) for _, labels in runs):
        raise ValueError("the runs have other labels: pass runs that were evaluated on the same examples.")
    both = [[sampled(*run, n_bins=n_bins, samples=samples, seed=seed) for run in side] for side in (ours, theirs)]
    return difference_of_samples(*both, level=level, seed=seed)


def difference_of_samples(
    ours: Sequence[Mapping[str, Floats]],
    theirs: Sequence[Mapping[str, Floats]],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    """`differences` of runs that `sampled` has read, each once for however many comparisons.

    Raises:
        ValueError: for other numbers of runs, and none.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} runs: pass at least one of each, with the same seeds.")
    found = {}
    for name in ours[0]:
        apart = np.stack([a[name] - b[name] for a, b in zip(ours, theirs, strict=True)], 1)
        rng, count = np.random.default_rng([seed, 1]), len(ours)  # not the numbers that draw examples
        of_runs = [np.bincount(rng.integers(count, size=count), minlength=count) / count for _ in apart[1:]]
        value, drawn = apart[0].mean(), (apart[1:] * np.stack(of_runs)).sum(1)
        low, high = np.quantile(drawn - drawn.mean() + value, [(1 - level) / 2, (1 + level) / 2])
        found[name] = Difference(float(value), float(low), float(high))
    return found


def sampled(logits: Any, labels: Any, *, n_bins: int = 10, samples: int = 2000, seed: int = 0) -> dict[str, Floats]:
    """Metrics of one run on its N examples, and on samples of N of them, drawn with replacement.

    Args:
        logits, labels: (logits [N, K], class ids [N]), or of a regression (predictions [N, 1], numbers [N]).
        n_bins, samples, seed: as in `differences`; the same seed draws the same examples for all runs.

    Returns:
        name -> [1 + samples], the first of the examples themselves: accuracy, ece, oe, nll and aurc, ``_scaled`` for
        ece, oe and nll, and matthews_correlation for two classes; of a regression pearson.
    """
    labels = np.asarray(labels)
    rng, size = np.random.default_rng(seed), len(labels)
    drawn = [np.arange(size), *(rng.integers(size, size=size) for _ in range(samples))]
    values = _of_scores if np.asarray(logits).ndim < 2 or np.asarray(logits).shape[1] == 1 else _of_classes
    return values(logits, labels, drawn, n_bins)


def _of_classes(logits: Any, labels: np.ndarray, drawn: Sequence[np.ndarray], n_bins: int) -> dict[str, Floats]:
    plain = as_float64(as_logits(logits))
    answers = plain.argmax(1)
    columns = {"accuracy": (answers == labels)[:, None].astype(float)}
    confidence: dict[str, Floats] = {}
    for form, z in (("", plain), (SCALED, cross_fit(logits, labels))):
        log_p = log_softmax(z, axis=1)
        confidence[form] = np.exp(log_p.max(1))
        in_bin = (bin_of(confidence[form], n_bins)[:, None] == np.arange(n_bins)).astype(float)
        parts = (in_bin, in_bin * confidence[form][:, None], in_bin * columns["accuracy"])
        columns[f"bins{form}"] = np.concatenate(parts, axis=1)
        columns[f"nll{form}"] = -log_p[np.arange(len(labels)), labels][:, None]
    if plain.shape[1] == 2:
        columns["matthews_correlation"] = np.stack([answers * labels, answers, labels], 1).astype(float)
    means = _means(columns, drawn)
    found = {name: means[name][:, 0] for name in ("accuracy", "nll", f"nll{SCALED}")}
    for form in ("", SCALED):
        mass, sure, right = np.split(means[f"bins{form}"], 3, axis=1)
        found[f"ece{form}"] = np.abs(sure - right).sum(1)
        found[f"oe{form}"] = (sure / np.where(mass > 0, mass, 1) * (sure - right).clip(min=0)).sum(1)
    hits = columns["accuracy"][:, 0]
    counts = (np.bincount(rows, minlength=len(labels)) for rows in drawn)
    found["aurc"] = np.array([aurc(ranking) for ranking in rankings(confidence[""], hits, counts)])
    if "matthews_correlation" in columns:
        both, answered, true = means["matthews_correlation"].T
        scale = np.sqrt((answered * (1 - answered) * true * (1 - true)).clip(min=0))  # a sum of weights may end above 1
        found["matthews_correlation"] = np.where(scale > 0, both - answered * true, 0) / np.where(scale > 0, scale, 1)
    return found


def _of_scores(predictions: Any, labels: np.ndarray, drawn: Sequence[np.ndarray], _: int) -> dict[str, Floats]:
    x, y = np.asarray(predictions, float).reshape(-1), labels.astype(float)
    x, y = x - x.mean(), y - y.mean()  # so that little is lost below
    mx, my, xx, yy, xy = _means({"": np.stack([x, y, x * x, y * y, x * y], 1)}, drawn)[""].T
    scale = np.sqrt((xx - mx**2).clip(min=0) * (yy - my**2).clip(min=0))
    return {"pearson": np.where(scale > 0, xy - mx * my, 0) / np.where(scale > 0, scale, 1)}


def _means(columns: Mapping[str, Floats], drawn: Sequence[np.ndarray]) -> dict[str, Floats]:
    """Of columns [N, C] the means over the rows of each sample, [R, C]."""
    size = len(drawn[0])
    found: dict[str, list[Floats]] = {name: [] for name in columns}
    for start in range(0, len(drawn), _BLOCK):
        weights = np.stack([np.bincount(rows, minlength=size) / size for rows in drawn[start : start + _BLOCK]])
        for name, values in columns.items():
            found[name].append(weights @ values)
    return {name: np.concatenate(blocks) for name, blocks in found.items()}
