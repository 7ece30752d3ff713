"""What networks make of the plane."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from hf_logitmix.figure import Figure
from hf_logitmix.figures.style import CLASSES

_COLUMNS, _PANEL = 5, 2.35  # panels in a row, inches of a side


def colours_of(probabilities: Any) -> np.ndarray:
    r"""A colour for each row of probabilities, [.., 3]: the classes' own, mixed, and paler the less sure.

    It is :math:`s \sum_k p_k c_k + (1 - s)\, \mathrm{white}` with :math:`s = (\max_k p_k - 1/K) / (1 - 1/K)`, so that a
    uniform row is white and a sure one has the full colour of its class.

    Args:
        probabilities: [.., K], K from 2 to 10.

    Raises:
        ValueError: for another K.
    """
    p = np.asarray(probabilities, dtype=float)
    count = p.shape[-1]
    if not 2 <= count <= len(CLASSES):
        raise ValueError(f"{count} classes: pass probabilities of 2 to {len(CLASSES)}.")
    own = p @ np.array([to_rgb(colour) for colour in CLASSES[:count]])
    sure = ((p.max(-1, keepdims=True) - 1 / count) / (1 - 1 / count)).clip(0, 1)
    return (sure * own + (1 - sure)).clip(0, 1)


def _dark(colour: str) -> tuple[float, ...]:
    """A colour for points on a surface of that colour."""
    return tuple(0.68 * part for part in to_rgb(colour))


def probability_surfaces(
    panels: Mapping[str, tuple[Any, str]], reach: float, points: Any, labels: Any, title: str = ""
) -> Figure:
    """The probabilities of several networks over a square of the plane, with the points that they were trained on.

    A colour is that of the likeliest class, and white where none is; the black line is where the likeliest class
    changes. After figure 1 of LogitMix (Bang, Baek et al., IJCAI 2022).

    Args:
        panels: name -> (probabilities [H, W, K] over the square, rows from its lower side up, and what is said below).
        reach: from the origin to a side.
        points: [N, 2].
        labels: [N] their classes.
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no panels, and for other shapes.
    """
    if not panels:
        raise ValueError("panels is empty: pass at least one name with its probabilities.")
    xy, classes = np.asarray(points, dtype=float), np.asarray(labels)
    if xy.ndim != 2 or xy.shape[1] != 2 or len(xy) != len(classes):
        raise ValueError(f"points {xy.shape} and {len(classes)} labels: pass [N, 2] points and N labels.")
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(_PANEL * columns + 0.2, (_PANEL + 0.42) * rows + 0.45), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    box, count = (-reach, reach, -reach, reach), 0
    for panel, (name, (probabilities, told)) in zip(axes.flat, panels.items(), strict=False):
        p = np.asarray(probabilities, dtype=float)
        count = p.shape[-1]
        panel.imshow(colours_of(p), origin="lower", extent=box, interpolation="bilinear")
        for k in range(count):
            others = np.delete(p, k, axis=-1).max(-1)
            panel.contour(p[..., k] - others, [0], extent=box, colors="black", linewidths=0.7, alpha=0.75)
        for k in range(count):
            own = xy[classes == k]
            panel.scatter(*own.T, s=5.5, color=_dark(CLASSES[k]), edgecolors="white", linewidths=0.35, zorder=3)
        panel.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
        panel.spines[:].set_color("#c8ccd2")
        panel.set_title(name, fontsize=9.5, fontweight="bold", pad=3)
        panel.set_xlabel(told, fontsize=7.5, labelpad=3, color="#444a53")
    handles: list[Any] = [
        Line2D([], [], marker="s", linestyle="", markersize=9, color=CLASSES[k], label=f"sure of class {k}")
        for k in range(count)
    ]
    handles.append(
        Line2D(
            [], [], marker="s", linestyle="", markersize=9, color="white", markeredgecolor="#8a8f99", label="undecided"
        )
    )
    handles.append(Line2D([], [], color="black", linewidth=1, label="the likeliest class changes"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    if title:
        figure.suptitle(title)
    return figure
