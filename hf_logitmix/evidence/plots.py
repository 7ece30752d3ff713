"""Pictures of several methods at once: reliability, accuracy against a loss, and the terms of losses over training."""

# ruff: noqa: E402
from __future__ import annotations

from hf_logitmix import _requirements

_requirements.require(_requirements.PLOTS, "hf_logitmix.evidence.plots")

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_logitmix.calibration.registry import METRICS
from hf_logitmix.calibration.rows import Rows
from hf_logitmix.calibration.statistics import statistics_of
from hf_logitmix.evidence.comparison import Comparison
from hf_logitmix.evidence.significance import paired_t
from hf_logitmix.figure import Figure

_BAR, _GAP, _WORSE, _LINE = "#3b6fb6", "#e07b6a", "#a8321e", "#9aa0aa"
_COLORS = ("#3b6fb6", "#d9722e", "#3f8f4f", "#8a4fa8", "#a8321e", "#5f6670", "#b8922e", "#2e8f8f")
_MARKERS = "osD^vPX*"
# What a log holds besides the terms of a loss.
_NO_TERMS = {
    *("loss", "lam_mean", "grad_norm", "grad_clipped", "learning_rate", "epoch", "step"),
    *("images_per_second", "num_input_tokens_seen"),
}


def color(number: int) -> str:
    return _COLORS[number % len(_COLORS)]


def reliability_grid(panels: Mapping[str, tuple[Any, Any]], n_bins: int = 10, columns: int = 4) -> Figure:
    """Accuracy (blue) and its distance from the mean confidence (red) in bins of confidence, a panel for each method.

    Args:
        panels: name -> (logits [N, K], labels [N]).
        n_bins: bins of equal width.
        columns: panels beside one another.

    Raises:
        ValueError: for no panels.
    """
    if not panels:
        raise ValueError("panels is empty: pass at least one name with its logits and labels.")
    width = min(columns, len(panels))
    height = math.ceil(len(panels) / width)
    figure = Figure(figsize=(2.5 * width, 2.5 * height + 0.3), layout="constrained")
    places = figure.subplots(height, width, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, (logits, labels)) in zip(places, panels.items(), strict=False):
        found = statistics_of(Rows.of(logits, labels), n_bins)
        bins, filled = found.bins, found.bins.weight > 0
        middle = (np.arange(n_bins) + 0.5)[filled] / n_bins
        accuracy, confidence = bins.accuracy[filled], bins.confidence[filled]
        axes.bar(middle, accuracy, 1 / n_bins, color=_BAR, edgecolor="white", linewidth=0.5)
        axes.bar(middle, confidence - accuracy, 1 / n_bins, bottom=accuracy, color=_GAP, alpha=0.6)
        axes.plot([0, 1], [0, 1], "--", color="black", linewidth=0.8)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_title(name, fontsize=8)
        axes.text(0.05, 0.93, f"ECE {METRICS['ece'].compute(found):.3f}", va="top", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("confidence", fontsize=9)
    figure.supylabel("accuracy", fontsize=9)
    return figure


def one_against_another(points: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> Figure:
    """A point for each method: the means over seeds of two metrics, with 95% intervals (t distribution over seeds).

    Args:
        points: name -> (values of the metric to the right, values of the metric upwards), one a seed.
        x, y: what the axes are called.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, both) in enumerate(points.items()):
        (mean_x, reach_x), (mean_y, reach_y) = (_interval(values) for values in both)
        axes.errorbar(
            mean_x,
            mean_y,
            xerr=reach_x,
            yerr=reach_y,
            color=color(number),
            marker=_MARKERS[(number // len(_COLORS) + number) % len(_MARKERS)],
            markersize=7,
            elinewidth=0.8,
            alpha=0.9,
            label=name,
        )
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return figure


def forest(comparison: Comparison, metrics: Sequence[str]) -> Figure:
    """How far each method is from the baseline, a panel for each metric, with intervals.

    Blue is better and red is worse where the difference counts (`Against.counts`), and grey is all else.

    Args:
        comparison: of one task.
        metrics: names; those that the comparison lacks are left out.
    """
    rows = [row for row in comparison.rows if row.against]
    shown = [name for name in metrics if name in comparison.metrics]
    figure = Figure(figsize=(2.0 + 2.3 * len(shown), 0.8 + 0.26 * len(rows)), layout="constrained")
    places = figure.subplots(1, max(len(shown), 1), sharey=True, squeeze=False)[0]
    for axes, name in zip(places, shown, strict=False):
        axes.axvline(0, color="black", linewidth=0.8)
        for place, row in enumerate(rows):
            if name not in row.against:
                continue
            own = row.against[name]
            value, low, high = own.difference
            tint = (_BAR if own.is_better else _WORSE) if own.counts else _LINE
            axes.plot([low, high], [place, place], color=tint, linewidth=2, solid_capstyle="butt")
            axes.plot(value, place, "o", color=tint, markersize=5)
        axes.set_title(comparison.metrics[name], fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
    places[0].set_yticks(range(len(rows)), [row.label for row in rows])
    places[0].invert_yaxis()
    figure.suptitle(f"{comparison.task}: distance from {comparison.baseline}", fontsize=10)
    return figure


def _interval(values: Sequence[float]) -> tuple[float, float]:
    found, _ = paired_t(values)
    return found.value, 0.0 if math.isnan(found.high) else found.high - found.value


def terms_of(histories: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, tuple[list[int], list[float]]]:
    """The terms of a loss over training, the mean over runs: name -> (steps, values).

    Args:
        histories: ``trainer.state.log_history`` of each seed.
    """
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for history in histories:
        for entry in (entry for entry in history if "loss" in entry):
            own = {name: value for name, value in entry.items() if name not in _NO_TERMS and value is not None}
            for name, value in (own or {"loss": entry["loss"]}).items():
                found[name][int(entry["step"])].append(value)
    return {
        name: (sorted(of), [statistics.fmean(of[step]) for step in sorted(of)]) for name, of in sorted(found.items())
    }


def learning_curves(histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], columns: int = 4) -> Figure:
    """What each method's loss is made of over training, a panel for each, means over seeds.

    Args:
        histories: name -> the ``log_history`` of each seed.
        columns: panels beside one another.
    """
    width = min(columns, max(len(histories), 1))
    height = math.ceil(max(len(histories), 1) / width)
    figure = Figure(figsize=(2.8 * width, 2.3 * height + 0.5), layout="constrained")
    places = figure.subplots(height, width, squeeze=False).ravel()
    every = {name: terms_of(of) for name, of in histories.items()}
    names = list(dict.fromkeys(term for terms in every.values() for term in terms))
    for axes, (title, terms) in zip(places, every.items(), strict=False):
        for name, (steps, values) in terms.items():
            axes.plot(steps, values, color=color(names.index(name)), label=name, linewidth=1.4)
        axes.set_title(title, fontsize=8)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places[len(every) :]:
        axes.set_visible(False)
    known = {label: line for axes in places for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if known:
        figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.supxlabel("step", fontsize=9)
    return figure
