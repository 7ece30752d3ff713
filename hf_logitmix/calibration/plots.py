"""Reliability diagrams, and matrices of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import softmax

from hf_logitmix.calibration.metrics import as_logits_and_labels, bin_means, bin_of, calibration_metrics
from hf_logitmix.targets.similarity import as_array

_BAR, _GAP, _CONFIDENCE, _HIST = "#3b6fb6", "#e07b6a", "#a8321e", "#8a8f99"


def reliability_diagram(panels: Mapping[str, tuple[Any, Any]], n_bins: int = 10, title: str = "") -> Figure:
    """Accuracy against confidence, one column a panel, with the share of examples in each bin below.

    Blue is the accuracy of the examples in a bin, the red line their mean confidence, light red the gap between the
    two, the dashed line what a calibrated model would show.

    Args:
        panels: name -> (logits [N, K], labels [N]), such as before and after temperature scaling.
        n_bins: bins of equal width, (lo, hi].
        title: over the whole figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no panels, and as `hf_logitmix.calibration.metrics.calibration_metrics`.
    """
    if not panels:
        raise ValueError("panels is empty: pass at least one name with its logits and labels.")
    figure = Figure(figsize=(3.6 * len(panels) + 0.4, 4.9), layout="constrained")
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False, height_ratios=[3, 1])
    for column, (name, (logits, labels)) in enumerate(panels.items()):
        _panel(axes[:, column], name, logits, labels, n_bins)
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("share of\nexamples")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
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


def _panel(axes: Any, name: str, logits: Any, labels: Any, n_bins: int) -> None:
    z, y = as_logits_and_labels(logits, labels)
    confidence = softmax(z, axis=1).max(1)
    hits = (z.argmax(1) == y).astype(float)
    weight, conf, acc = bin_means(confidence, hits, bin_of(confidence, n_bins), n_bins)
    values, middle, width = calibration_metrics(z, y, n_bins), (np.arange(n_bins) + 0.5) / n_bins, 1 / n_bins
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
    text = "\n".join(
        f"{label} {values[key]:.3f}" for label, key in (("accuracy", "accuracy"), ("ECE", "ece"), ("OE", "oe"))
    )
    top.text(0.04, 0.96, f"{text}\nn = {len(y)}, {n_bins} bins", va="top", fontsize=9)
    bottom.bar(middle, weight, width, color=_HIST, edgecolor="white")
    bottom.set(xlabel="confidence")
