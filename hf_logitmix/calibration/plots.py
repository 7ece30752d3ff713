"""Reliability diagrams, and matrices of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_logitmix.calibration.registry import METRICS
from hf_logitmix.calibration.rows import Floats, Rows
from hf_logitmix.calibration.statistics import Statistics, bin_of, statistics_of
from hf_logitmix.figure import Figure
from hf_logitmix.targets.similarity import as_array

_BAR, _GAP, _CONFIDENCE, _HIST = "#3b6fb6", "#e07b6a", "#a8321e", "#8a8f99"
_LINES = ("#3b6fb6", "#d9722e", "#3f8f4f", "#8a4fa8", "#a8321e", "#5f6670", "#b8922e")
_POINTS = 1000  # of a curve, at most


def reliability_diagram(
    panels: Mapping[str, tuple[Any, Any]], n_bins: int = 10, title: str = "", *, bootstrap: int = 0, seed: int = 0
) -> Figure:
    """Accuracy against confidence, one column a panel, with the share of examples in each bin below.

    Blue is the accuracy of the examples in a bin, the red line their mean confidence, light red the gap between the
    two, the dashed line what a calibrated model would show. With ``bootstrap`` black marks tell how far each bar is to
    be trusted: they hold 95% of its values in samples of N examples, drawn with replacement from these N.

    Args:
        panels: name -> (logits [N, K], labels [N]), such as before and after temperature scaling.
        n_bins: bins of equal width, (lo, hi].
        title: over the whole figure.
        bootstrap: how many samples the band is made of, such as 1000; 0 for none.
        seed: of the samples; the same seed draws the same band.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no panels, a negative ``bootstrap``, and as
            `hf_logitmix.calibration.metrics.calibration_metrics`.
    """
    _check(panels)
    if bootstrap < 0:
        raise ValueError(f"bootstrap={bootstrap}: pass how many samples to draw, such as 1000, or 0 for no band.")
    figure = Figure(figsize=(3.6 * len(panels) + 0.4, 4.9), layout="constrained")
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1])
    for column, (name, (logits, labels)) in enumerate(panels.items()):
        found = statistics_of(Rows.of(logits, labels), n_bins)
        _panel(axes[:, column], name, found)
        if bootstrap:
            _draw_band(axes[0, column], found, bootstrap, seed)
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("share of\nexamples")
    handles, names = axes[0, 0].get_legend_handles_labels()
    ncols = 2 if len(panels) == 1 else len(names)
    figure.legend(handles, names, loc="outside lower center", ncols=ncols, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def class_matrix(matrix: Any, names: Sequence[str], title: str = "") -> Figure:
    """A heat map of a class similarity, or of target rows: row i shows where the mass of class i goes.

    Args:
        matrix: [K, K] numbers; a tensor is taken from its device.
        names: of the K classes.
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``. Up to 20 classes, every cell carries its number.

    Raises:
        ValueError: for a matrix that is not [K, K] for K names.
    """
    values, count = as_array(matrix).astype(float), len(names)
    if values.shape != (count, count) or not count:
        raise ValueError(f"matrix of shape {values.shape} and {count} names: pass a [K, K] matrix and K names.")
    side = min(2.6 + 0.55 * count, 14)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="Blues", vmin=0)
    axes.set(
        xticks=range(count), yticks=range(count), xticklabels=names, yticklabels=names, ylabel="class of the label"
    )
    axes.tick_params(axis="x", rotation=0 if max(map(len, names)) * count < 40 else 90)
    if count <= 20:
        for row, column in np.ndindex(values.shape):
            dark = values[row, column] > 0.6 * values.max()
            shown = f"{values[row, column]:.2f}".removeprefix("0") or "0"
            axes.text(column, row, shown, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    figure.colorbar(image, shrink=0.8)
    if title:
        figure.suptitle(title)
    return figure


def risk_coverage(panels: Mapping[str, tuple[Any, Any]], title: str = "") -> Figure:
    """The share of wrong answers among the most confident examples, against the share of examples that is answered.

    A model that knows when it is wrong has a curve that stays low and rises late. Where confidences are equal the
    curve is the mean over all orders of these examples. The legend gives the area under it (AURC).

    Args:
        panels: name -> (logits [N, K], labels [N]), such as two methods, or before and after temperature scaling.
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no panels, and as `hf_logitmix.calibration.metrics.calibration_metrics`.
    """
    _check(panels)
    is_few = len(panels) <= 4
    figure = Figure(figsize=(5.6 if is_few else 8.6, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, (logits, labels)) in enumerate(panels.items()):
        found = statistics_of(Rows.of(logits, labels), 1)
        risk = found.ranking.risk
        shown = np.unique(np.linspace(1, len(risk), min(len(risk), _POINTS)).astype(int))
        axes.plot(
            shown / len(risk),
            risk[shown - 1],
            color=_LINES[number % len(_LINES)],
            linestyle="-" if number < len(_LINES) else "--",
            linewidth=1.8,
            label=f"{name}, AURC {METRICS['aurc'].compute(found):.4f}",
        )
    axes.set(xlim=(0, 1), xlabel="coverage: share of examples answered", ylabel="risk: share of these that is wrong")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if is_few:
        figure.legend(loc="outside lower center", ncols=1 if len(panels) < 3 else 2, frameon=False)
    else:
        figure.legend(loc="outside right center", frameon=False, fontsize=8)
    if title:
        figure.suptitle(title)
    return figure


def bootstrap_band(found: Statistics, samples: int, seed: int = 0, level: float = 0.95) -> tuple[Floats, Floats]:
    """[B] the lower and the upper end of the accuracy of each bin over samples drawn with replacement.

    How many right and wrong examples of each bin are in a sample of N is multinomial, so that no example is drawn by
    itself. A bin that is empty in a sample has no accuracy there, and one that is empty in all of them is NaN.
    """
    index = bin_of(found.confidence, found.n_bins)
    cells = np.bincount(2 * index + (found.hits > 0), minlength=2 * found.n_bins)
    drawn = np.random.default_rng(seed).multinomial(len(index), cells / len(index), size=samples)
    wrong, right = drawn.reshape(samples, found.n_bins, 2).transpose(2, 0, 1).astype(float)
    lower, upper = np.full((2, found.n_bins), np.nan)
    for b in range(found.n_bins):
        filled = wrong[:, b] + right[:, b] > 0
        if filled.any():
            accuracy = right[filled, b] / (wrong + right)[filled, b]
            lower[b], upper[b] = np.quantile(accuracy, [(1 - level) / 2, (1 + level) / 2])
    return lower, upper


def _check(panels: Mapping[str, tuple[Any, Any]]) -> None:
    if not panels:
        raise ValueError("panels is empty: pass at least one name with its logits and labels.")


def _draw_band(axes: Any, found: Statistics, samples: int, seed: int) -> None:
    lower, upper = bootstrap_band(found, samples, seed)
    n_bins, (b,) = found.n_bins, np.nonzero(~np.isnan(lower))
    middle, acc = (b + 0.5) / n_bins, found.bins.accuracy[b]
    # a resampled mean lies on both sides of its own, but for a bin where all are right or all wrong
    reach = np.stack([(acc - lower[b]).clip(min=0), (upper[b] - acc).clip(min=0)])
    axes.errorbar(middle, acc, reach, fmt="none", ecolor="black", capsize=3, linewidth=1.2, label="95% of samples")


def _panel(axes: Any, name: str, found: Statistics) -> None:
    bins, n_bins = found.bins, found.n_bins
    weight, conf, acc = bins.weight, bins.confidence, bins.accuracy
    middle, width = (np.arange(n_bins) + 0.5) / n_bins, 1 / n_bins
    filled = weight > 0
    top, bottom = axes
    top.bar(middle[filled], acc[filled], width, color=_BAR, edgecolor="white", label="accuracy")
    top.bar(
        middle[filled],
        (conf - acc)[filled],
        width,
        bottom=acc[filled],
        color=_GAP,
        alpha=0.55,
        edgecolor=_GAP,
        label="gap",
    )
    edges = (middle - width / 2)[filled], (middle + width / 2)[filled]
    top.hlines(conf[filled], *edges, color=_CONFIDENCE, linewidth=2, label="mean confidence")
    top.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="calibrated")
    top.set(xlim=(0, 1), ylim=(0, 1), title=name)
    text = "\n".join(f"{METRICS[key].title} {METRICS[key].compute(found):.3f}" for key in ("accuracy", "ece", "oe"))
    top.text(0.04, 0.96, f"{text}\nn = {len(found.hits)}, {n_bins} bins", va="top", fontsize=9)
    bottom.bar(middle, weight, width, color=_HIST, edgecolor="white")
    bottom.set(xlabel="confidence")
