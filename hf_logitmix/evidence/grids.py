"""Tables as text: for pages (Markdown), papers (LaTeX) and spreadsheets (CSV)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hf_logitmix.evidence.comparison import Comparison, Row
from hf_logitmix.evidence.verdict import difference, spread

# What LaTeX reads as something else.
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"\u00b1": r"$\pm$", "<": "$<$", ">": "$>$"}


@dataclass(frozen=True)
class Grid:
    """A table: its head, and rows of as many cells."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def markdown(grid: Grid) -> str:
    lines = [grid.head, ["---"] * len(grid.head), *grid.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(grid: Grid) -> str:
    """A ``tabular`` with the rules of booktabs."""
    head, *rows = ([_in_latex(cell) for cell in line] for line in (grid.head, *grid.rows))
    body = [f"{' & '.join(row)} \\\\" for row in rows]
    begin, end = f"\\begin{{tabular}}{{{'l' * len(grid.head)}}}", "\\end{tabular}"
    return "\n".join([begin, "\\toprule", f"{' & '.join(head)} \\\\", "\\midrule", *body, "\\bottomrule", end])


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def comma_separated(grid: Grid) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([grid.head, *grid.rows])
    return written.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Grid], str]] = {"markdown": markdown, "latex": latex, "csv": comma_separated}


def against_baseline(comparisons: Sequence[Comparison], metrics: Sequence[str] | None = None) -> Grid:
    """A row for each task, method and metric: mean and deviation, and how it differs from the baseline.

    Args:
        comparisons: of one baseline.
        metrics: names of those that are wanted, in their order; None for all.
    """
    head = ["task", "method", "metric", "value", "seeds", f"minus {comparisons[0].baseline}", "p (Holm)", "counts"]
    rows = [
        [comparison.task, row.label, comparison.metrics[name], value, str(len(row.seeds)), *_told(row, name)]
        for comparison in comparisons
        for name in (metrics or comparison.metrics)
        if name in comparison.metrics
        for row in comparison.rows
        for value in [spread(row.values.get(name, []))]
    ]
    return Grid(head, rows)


def _told(row: Row, name: str) -> list[str]:
    if name not in row.against:
        return ["", "", ""]
    own = row.against[name]
    p = "" if own.p is None else "< .001" if own.p < 0.001 else f"{own.p:.3f}"
    return [difference(own), p, ("better" if own.is_better else "worse") if own.counts else "no"]


def side_by_side(comparison: Comparison, metrics: Sequence[str]) -> Grid:
    """A row for each method, a column for each metric: the mean, and how far it is from the baseline's.

    A difference that counts is in bold.
    """
    shown = [name for name in metrics if name in comparison.metrics]
    head = ["method", *(comparison.metrics[name] for name in shown), "seeds"]
    rows = [[row.label, *(_both(row, name) for name in shown), str(len(row.seeds))] for row in comparison.rows]
    return Grid(head, rows)


def _both(row: Row, name: str) -> str:
    if name not in row.values:
        return ""
    mean = spread(row.values[name]).split(" ")[0]
    if name not in row.against:
        return mean
    own = row.against[name]
    return f"{mean}, **{difference(own)}**" if own.counts else f"{mean}, {difference(own)}"
