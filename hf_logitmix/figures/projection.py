"""The penultimate layer in the plane of three class templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_logitmix.figure import Figure
from hf_logitmix.figures.style import CLASSES

_SIDE = 3.1  # of a panel, in inches


def template_projections(panels: Mapping[str, tuple[Any, Any, Any]], classes: Sequence[str], title: str = "") -> Figure:
    """A panel for each run, all on one scale: the examples of three classes, and a star for each class's template.

    After figure 1 of Müller, Kornblith, Hinton (When Does Label Smoothing Help?, NeurIPS 2019). With label smoothing
    clusters are tight and equally far from one another; without it they are wide.

    Args:
        panels: run -> (points [N, 2], labels [N] in 0..2, templates [3, 2]), as
            `hf_logitmix.analysis.project_on_templates` gives points and templates.
        classes: names of the three.
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no panels or names of other than three classes.
    """
    if not panels or len(classes) != 3:
        raise ValueError(f"{len(panels)} panels and {len(classes)} classes: pass at least one panel, and three names.")
    figure = Figure(figsize=(_SIDE * len(panels) + 0.3, _SIDE + 0.75), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    every = np.concatenate([np.concatenate([points, stars]) for points, _, stars in panels.values()])
    low, high = every.min(0), every.max(0)
    middle, reach = (low + high) / 2, 0.54 * float((high - low).max())
    for panel, (name, (points, labels, stars)) in zip(axes, panels.items(), strict=True):
        for k, label in enumerate(classes):
            own = np.asarray(points)[np.asarray(labels) == k]
            panel.scatter(*own.T, s=7, color=CLASSES[k], alpha=0.55, linewidths=0, label=label)
        panel.scatter(*np.asarray(stars).T, s=150, marker="*", color=CLASSES[:3], edgecolors="black", linewidths=0.8)
        panel.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))
        panel.set(title=name, aspect="equal")
        panel.tick_params(labelsize=8, color="#8a8f99")
        panel.spines[:].set_color("#8a8f99")
        panel.grid(alpha=0.2)
    handles, names = axes[0].get_legend_handles_labels()
    (star,) = axes[0].plot([], [], "*", markersize=12, color="white", markeredgecolor="black")
    legend = figure.legend(
        [*handles, star], [*names, "template"], loc="outside lower center", ncols=4, frameon=False, markerscale=1.6
    )
    for handle in filter(None, legend.legend_handles[:3]):
        handle.set_alpha(1)
    if title:
        figure.suptitle(title)
    return figure
