"""What a network with a bottleneck of two units makes of its inputs, over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_logitmix.figure import Figure
from hf_logitmix.figures.style import CLASSES

_SIDE = 2.7


def embedding_over_training(
    rows: Mapping[str, Sequence[tuple[int, Any, Any]]], names: Sequence[str], title: str = ""
) -> Figure:
    """A row for each run and a column for each snapshot: the two units, each example a point in its class's colour.

    After figure 8 of LaMix (Bypassing the Random Input Mixing in Mixup, 2021): clusters that go on growing tighter
    after the training error is zero.

    Args:
        rows: run -> of each snapshot its step, the units [N, 2] in (-1, 1), and the labels [N].
        names: of the classes.
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no runs, or runs with different numbers of snapshots.
    """
    counts = {len(shown) for shown in rows.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError("rows must have the same number of snapshots, at least one: pass run -> snapshots.")
    (columns,) = counts
    figure = Figure(figsize=(_SIDE * columns + 0.4, (_SIDE + 0.2) * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey=True)
    for line, (run, shown) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(run)
        for panel, (step, units, labels) in zip(line, shown, strict=True):
            for k, name in enumerate(names):
                own = np.asarray(units)[np.asarray(labels) == k]
                panel.scatter(*own.T, s=6, color=CLASSES[k % len(CLASSES)], alpha=0.6, linewidths=0, label=name)
            panel.set(title=f"step {step}", xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal")
            panel.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1])
            panel.tick_params(labelsize=8, color="#8a8f99")
            panel.spines[:].set_color("#8a8f99")
    handles, told = axes[0, 0].get_legend_handles_labels()
    legend = figure.legend(
        handles, told, loc="outside lower center", ncols=min(10, len(told)), frameon=False, markerscale=2
    )
    for handle in filter(None, legend.legend_handles):
        handle.set_alpha(1)
    if title:
        figure.suptitle(title)
    return figure
