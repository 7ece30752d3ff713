"""Metrics over the temperature of the softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_logitmix.calibration.registry import METRICS
from hf_logitmix.figure import Figure
from hf_logitmix.figures.style import look_of, open_axes


def metrics_over_temperature(
    curves: Mapping[str, Mapping[str, Any]], temperatures: Sequence[float], title: str = ""
) -> Figure:
    """A panel for each metric, a line for each run; a ring marks the best temperature, the dashed line is T = 1.

    After figure 4 of Müller, Kornblith, Hinton (When Does Label Smoothing Help?, NeurIPS 2019), which draws BLEU and
    NLL of translation. Of a classifier accuracy is the same at every T, so a calibration error stands in its place.

    Args:
        curves: run -> metric -> [T] values, as `hf_logitmix.analysis.over_temperatures` gives them.
        temperatures: [T].
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no curves.
    """
    if not curves:
        raise ValueError("curves is empty: pass at least one run.")
    names = list(next(iter(curves.values())))
    figure = Figure(figsize=(4.4 * len(names) + 0.3, 3.8), layout="constrained")
    axes, handles = figure.subplots(1, len(names), squeeze=False)[0], {}
    for panel, name in zip(axes, names, strict=True):
        for number, (run, values) in enumerate(curves.items()):
            found, look = np.asarray(values[name], dtype=float), look_of(number)
            (handles[run],) = panel.plot(temperatures, found, linewidth=1.8, **look)
            best = int(found.argmax() if METRICS[name].higher_is_better else found.argmin())
            panel.plot(temperatures[best], found[best], "o", markersize=8, fillstyle="none", color=look["color"])
        panel.axvline(1, color="black", linestyle="--", linewidth=0.9, alpha=0.6)
        panel.set(title=METRICS[name].title, xlabel="temperature T", xscale="log")
        ticks = [t for t in (0.25, 0.5, 1, 2, 4) if min(temperatures) <= t <= max(temperatures)]
        panel.set_xticks(ticks, [f"{t:g}" for t in ticks], minor=False)
        panel.set_xticks([], minor=True)
        open_axes(panel)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    if title:
        figure.suptitle(title)
    return figure
