"""What a comparison says, in plain English, and on one screen of a terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from hf_logitmix.evidence.comparison import Against, Comparison, Row
from hf_logitmix.evidence.significance import LEVEL

# What the verdict is about besides the task's own metric, and how it is called.
_TOLD = {"ece": "calibration error", "nll": "NLL", "nll_scaled": "NLL after temperature scaling"}
_WIDTH = 17  # of a column


def verdict(comparison: Comparison) -> list[str]:
    """A sentence or two on each method, and what to take from it all.

    A difference is called one where its interval leaves 0 out and the corrected test agrees, and "no difference"
    otherwise, which is not to say that there is none: it was not seen with so many seeds and examples.
    """
    methods = comparison.rows[1:]
    if not methods:
        return [f"{comparison.baseline} alone: there is nothing to compare it with."]
    if all(len(row.common) < 2 for row in methods):
        return [
            f"Fewer than two seeds in common with {comparison.baseline}: no difference can be told from the luck of a "
            "seed. Run at least three of each, better five."
        ]
    return [*(f"{row.label}: {_of_row(comparison, row)}." for row in methods), "", *_what_to_take(comparison)]


def _of_row(comparison: Comparison, row: Row) -> str:
    own = next(iter(comparison.metrics))
    told = {own: comparison.metrics[own], **_TOLD}
    if len(row.common) < 2:
        return f"fewer than two seeds in common with {comparison.baseline}, too few to tell"
    shown = {name: row.against[name] for name in told if name in row.against}
    parts = [
        f"{'better' if of.is_better else 'worse'} {told[name]} ({difference(of)})"
        for name, of in shown.items()
        if of.counts
    ]
    if not shown:
        return "nothing could be compared"
    same = [told[name] for name, of in shown.items() if not of.counts]
    return "; ".join([*parts, *([f"no difference in {_listed(same)}"] if same else [])])


def _what_to_take(comparison: Comparison) -> list[str]:
    own = next(iter(comparison.metrics))
    lines = []
    for name, what in {own: comparison.metrics[own], **_TOLD}.items():
        if not any(name in row.against for row in comparison.rows):
            continue
        better = [row.label for row in comparison.rows[1:] if name in row.against and _is(row.against[name], True)]
        worse = [row.label for row in comparison.rows[1:] if name in row.against and _is(row.against[name], False)]
        found = [f"better than {comparison.baseline}: {_listed(better)}" if better else "nothing is better"]
        found += [f"worse: {_listed(worse)}"] if worse else []
        lines.append(f"{what[0].upper()}{what[1:]}: {'; '.join(found)}.")
    return lines


def _is(of: Against, better: bool) -> bool:
    return of.counts and of.is_better == better


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def difference(of: Against, digits: int = 3) -> str:
    """A difference with its interval, as ``-0.044 [-0.051, -0.037]``."""
    value, low, high = of.difference
    shown = f"{value:+.{digits}f}"
    return shown if math.isnan(low) else f"{shown} [{low:+.{digits}f}, {high:+.{digits}f}]"


def screen(comparison: Comparison) -> str:
    """A comparison on one screen: means, differences to the baseline, and the verdict."""
    width = max(12, *(len(row.label) + 2 for row in comparison.rows))
    heads = [*comparison.metrics.values(), "time"]
    lines = [comparison.title, f"{'':<{width}}" + "".join(f"{head:>{_WIDTH}}" for head in heads)]
    for row in comparison.rows:
        cells = [_cell(row, name) for name in comparison.metrics]
        cells.append("" if row.time is None else f"{row.time:.2f} ")
        lines.append(f"{row.label:<{width}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells))
    counts = sorted({len(row.records) for row in comparison.rows})
    seeds = " or ".join(map(str, counts))
    lines += [
        f"Means over {seeds} seed{'s' if counts != [1] else ''}; in brackets the difference from "
        f"{comparison.baseline}, * where that counts: the",
        f"{LEVEL:.0%} interval leaves 0 out and the paired test over seeds agrees (Holm). Scaled: after cross-fitted "
        "temperature scaling.",
    ]
    return "\n".join([*lines, *(f"Note: {remark}" for remark in comparison.remarks), "", *verdict(comparison)])


def _cell(row: Row, name: str, digits: int = 3) -> str:
    if name not in row.values:
        return ""
    mean = f"{statistics.fmean(row.values[name]):.{digits}f}"
    if name not in row.against:
        return f"{mean} "
    own = row.against[name]
    return f"{mean} ({own.difference.value:+.{digits}f}){'*' if own.counts else ' '}"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """``mean ± standard deviation``; the mean of one value alone, and nothing of none."""
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} \u00b1 {statistics.stdev(values):.{digits}f}"
