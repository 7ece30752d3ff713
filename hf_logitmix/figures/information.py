"""How much logits tell of their inputs, over training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hf_logitmix.figure import Figure
from hf_logitmix.figures.style import look_of, open_axes


def information_over_training(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], examples: int, title: str = ""
) -> Figure:
    """A line for each run: mutual information of inputs and a difference of logits at each snapshot, up to log N.

    After figure 6 of Müller, Kornblith, Hinton (When Does Label Smoothing Help?, NeurIPS 2019): teachers that were
    trained with label smoothing end lower, and what they have lost a student cannot learn from them. At log 2 the two
    classes are told apart, and examples of one class are not.

    Args:
        curves: run -> (steps, information in nats), as `hf_logitmix.analysis.mutual_information` estimates it.
        examples: N.
        title: over the figure.

    Returns:
        a figure; save it with ``figure.savefig(path)``.

    Raises:
        ValueError: for no curves.
    """
    if not curves:
        raise ValueError("curves is empty: pass at least one run.")
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, (steps, values)) in enumerate(curves.items()):
        axes.plot(steps, values, marker="o", markersize=4, linewidth=1.8, label=name, **look_of(number))
    for value, told in ((math.log(examples), f"log {examples}, all examples told apart"), (math.log(2), "log 2")):
        axes.axhline(value, color="black", linestyle=":", linewidth=0.9, alpha=0.6)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "bottom"}
        axes.annotate(told, (0, value), (5, 2), fontsize=8, color="#444a53", **place)
    axes.set(xlabel="optimizer steps", ylabel="mutual information, nats", ylim=(0, 1.12 * math.log(examples)))
    open_axes(axes)
    figure.legend(loc="outside lower center", ncols=min(2, len(curves)), frameon=False)
    if title:
        figure.suptitle(title)
    return figure
