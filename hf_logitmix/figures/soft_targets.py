"""The soft targets of LaMix over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_logitmix.figure import Figure
from hf_logitmix.figures.style import COLOURS, open_axes

_BINS = 60


def soft_targets_over_training(
    steps: Sequence[int], targets: Sequence[Any], soft: Sequence[Any], top: Sequence[float], title: str = ""
) -> Figure:
    """Where the values of targets and of global soft labels lie from the first snapshot (above) to the last, and the
    largest targets of blends.

    After figures 3 and 2 of LaMix (Bypassing the Random Input Mixing in Mixup, 2021). Each row of the first two panels
    is a histogram of all N x K values at a snapshot; the darker, the more of them.

    Args:
        steps: [S] of the snapshots.
        targets: of each snapshot the targets of a batch of originals, [N, K].
        soft: of each snapshot their global soft labels, [N, K].
        top: the mean of the largest targets of blends, largest first, as `hf_logitmix.analysis.top_targets` gives it.
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no snapshots, or lists of different length.
    """
    if not steps or not len(steps) == len(targets) == len(soft):
        raise ValueError(
            f"{len(steps)} steps, {len(targets)} targets and {len(soft)} soft labels: pass one each a step."
        )
    figure = Figure(figsize=(11.2, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.15, 1.15, 0.8])
    for panel, values, name in ((left, targets, "soft targets"), (middle, soft, "global soft labels")):
        flat = [np.asarray(one, dtype=float).ravel() for one in values]
        low, high = min(one.min() for one in flat), max(one.max() for one in flat)
        pad = 0.04 * (high - low) or 0.01
        edges = np.linspace(low - pad, high + pad, _BINS + 1)
        mass = np.stack([np.histogram(one, edges)[0] / len(one) for one in flat])
        panel.pcolormesh(edges, np.arange(len(flat) + 1), np.sqrt(mass), cmap="Blues", rasterized=True)
        shown = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 6)).astype(int))
        panel.set_yticks(shown + 0.5, [str(steps[number]) for number in shown])
        panel.invert_yaxis()
        panel.set(title=name, xlabel="value", ylabel="optimizer steps" if panel is left else "")
    right.bar(np.arange(1, len(top) + 1), top, color=COLOURS[0], width=0.7)
    for place, value in enumerate(top, start=1):
        right.annotate(f"{value:.2f}", (place, value), (0, 2), textcoords="offset points", ha="center", fontsize=8)
    right.set(title="largest targets of blends", xlabel="rank", ylabel="mean", xticks=range(1, len(top) + 1))
    open_axes(right)
    if title:
        figure.suptitle(title)
    return figure
