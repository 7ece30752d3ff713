"""Which terms of a loss are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hf_logitmix.figure import Figure
from hf_logitmix.figures.style import COLOURS, open_axes


def loss_ablation(panels: Mapping[str, Mapping[str, Sequence[float]]], title: str = "") -> Figure:
    """A row for each loss, a point for each run, a bar at their mean: which of LogitMix's three terms does what.

    After the ablation of the LogitMix poster (Bang, Baek et al., IJCAI 2022), which prints accuracies.

    Args:
        panels: metric -> loss -> its value in each run.
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no panels, or panels of different losses.
    """
    rows = list(next(iter(panels.values()), {}))
    if not rows or any(list(values) != rows for values in panels.values()):
        raise ValueError("panels must have the same losses, at least one: pass metric -> loss -> values.")
    figure = Figure(figsize=(3.9 * len(panels) + 1.2, 0.46 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for number, (panel, (name, values)) in enumerate(zip(axes, panels.items(), strict=True)):
        for row, loss in enumerate(rows):
            found = np.asarray(values[loss], dtype=float)
            panel.plot(
                found, np.full(len(found), row), "o", color=COLOURS[0], alpha=0.45, markersize=6, markeredgewidth=0
            )
            panel.plot(
                [found.mean()] * 2, [row - 0.3, row + 0.3], color=COLOURS[0], linewidth=3, solid_capstyle="round"
            )
            panel.annotate(
                f"{found.mean():.3f}", (found.mean(), row - 0.34), ha="center", va="bottom", fontsize=8, color="#444a53"
            )
        panel.set(title=name, yticks=range(len(rows)), ylim=(len(rows) - 0.4, -0.75))
        if not number:
            panel.set_yticklabels(rows)
        panel.margins(x=0.12)
        open_axes(panel)
    if title:
        figure.suptitle(title)
    return figure
