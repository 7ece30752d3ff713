"""Metrics over an option: the sweeps of the papers."""

from __future__ import annotations

from collections.abc import Mapping

from hf_logitmix.analysis.runs import Curve
from hf_logitmix.figure import Figure
from hf_logitmix.figures.style import look_of, open_axes


def metric_curves(
    panels: Mapping[str, tuple[Mapping[str, Curve], Mapping[str, Curve]]], x_label: str, title: str = ""
) -> Figure:
    """A panel for each metric, a line for each experiment; bands are one standard deviation, where runs are several.

    So are drawn: accuracy and calibration of Mixup over alpha (Neuhaus, Kazantsev, Vezin, Mixup training, figures 1 and
    2, as numbers), LaMix over beta and label smoothing over its factor (figures 4 and 6), MCEL over eps and over label
    noise (Negi et al., figures 3 and 5), LogitMix over its hyperparameters (poster).

    Args:
        panels: title -> (curves by name, and those of a single value, which are drawn across the panel).
        x_label: what the option is.
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no panels.
    """
    if not panels:
        raise ValueError("panels is empty: pass at least one metric with its curves.")
    figure = Figure(figsize=(3.7 * len(panels) + 0.4, 3.9), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    every = dict.fromkeys(name for curves, flat in panels.values() for name in (*curves, *flat))
    looks = {name: look_of(number) for number, name in enumerate(every)}
    handles = {}
    for panel, (name, (curves, flat)) in zip(axes, panels.items(), strict=True):
        for label, curve in curves.items():
            (handles[label],) = panel.plot(
                curve.x, curve.mean, marker="o", markersize=4.5, linewidth=1.8, **looks[label]
            )
            if (curve.runs > 1).any():
                low, high = curve.mean - curve.std, curve.mean + curve.std
                panel.fill_between(curve.x, low, high, color=looks[label]["color"], alpha=0.15, linewidth=0)
        for label, curve in flat.items():
            colour = looks[label]["color"]
            handles[label] = panel.axhline(curve.mean[0], color=colour, linestyle=(0, (1, 1.5)), linewidth=1.6)
        panel.set(title=name, xlabel=x_label)
        open_axes(panel)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(3, len(handles)), frameon=False)
    if title:
        figure.suptitle(title)
    return figure
