"""A comparison as one page of HTML that needs nothing else: no network, no files beside it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from hf_logitmix._version import __version__
from hf_logitmix.calibration.plots import risk_coverage
from hf_logitmix.evidence.comparison import Comparison, Row
from hf_logitmix.evidence.plots import forest, learning_curves, one_against_another, reliability_grid
from hf_logitmix.evidence.records import Record
from hf_logitmix.evidence.verdict import difference, spread, verdict
from hf_logitmix.figure import Figure

_STYLE = """
:root { color-scheme: light; --ink: #1d2330; --soft: #626b7a; --line: #dfe3ea; --good: #e3f2e6; --bad: #fbe6e2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1320px; padding: 2.2rem 1.4rem 4rem; color: var(--ink); background: #fff;
       font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p, ul { margin: .4rem 0; } .soft { color: var(--soft); }
.verdict { border-left: 4px solid #3b6fb6; background: #f4f7fb; padding: .6rem 1rem; margin: .8rem 0; }
.mind { border-left: 4px solid #d9722e; background: #fdf5ee; padding: .4rem 1rem; margin: .8rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid var(--ink); }
th button { all: unset; cursor: pointer; } th button::after { content: " \\2195" / ""; color: #b3bac6; }
th[aria-sort=ascending] button::after { content: " \\2191" / ""; color: var(--ink); }
th[aria-sort=descending] button::after { content: " \\2193" / ""; color: var(--ink); }
td small { display: block; color: var(--soft); font-size: .74rem; }
td.better { background: var(--good); } td.worse { background: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 1rem; align-items: start; }
figure { margin: 0; } figure.whole { grid-column: 1 / -1; } figure img { max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .84rem; }
details { border-bottom: 1px solid var(--line); padding: .3rem 0; } summary { cursor: pointer; }
pre { overflow-x: auto; background: #f6f7f9; padding: .7rem; font-size: .8rem; }
@media print { details, .figures { break-inside: avoid; } }
"""
_SCRIPT = """
for (const table of document.querySelectorAll("table.sorts")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const order = x === "" || y === "" ? (x === "") - (y === "") :
          isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
"""


def page(comparisons: Sequence[Comparison], title: str = "Comparison of methods") -> str:
    """The whole page: of each task its verdict, a table that sorts, pictures, and every run with its command."""
    body = [f"<h1>{escape(title)}</h1>", _introduction(comparisons)]
    for comparison in comparisons:
        body += _section(comparison)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            *body,
            f"<script>{_SCRIPT}</script></body></html>",
            "",
        ]
    )


def _introduction(comparisons: Sequence[Comparison]) -> str:
    runs = sum(len(row.records) for comparison in comparisons for row in comparison.rows)
    return (
        f'<p class="soft">{runs} runs; the page is by hf_logitmix {escape(__version__)}. A cell has the mean over '
        "seeds with its standard deviation, and below the distance from the baseline, with a 95% interval over seeds "
        "and examples. It is green (better) or red (worse) where the interval leaves 0 out and the paired test over "
        "seeds agrees, corrected for the number of methods (Holm). Scaled: after temperature scaling, cross-fitted in "
        "two halves of the evaluation examples. A click on a head sorts.</p>"
    )


def _section(comparison: Comparison) -> list[str]:
    lines = [f"<h2>{escape(comparison.title)}</h2>", '<div class="verdict">']
    lines += [f"<p>{escape(line)}</p>" for line in verdict(comparison) if line]
    lines += ["</div>", *(f'<p class="mind">{escape(remark)}</p>' for remark in comparison.remarks)]
    lines += ['<div class="wide">', _table(comparison), "</div>", '<div class="figures">']
    for caption, figure, is_whole in _figures(comparison):
        shown = base64.b64encode(_png(figure)).decode()
        kind = ' class="whole"' if is_whole else ""
        lines.append(
            f'<figure{kind}><img alt="{escape(caption)}" src="data:image/png;base64,{shown}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    runs = [_run(row, record) for row in comparison.rows for record in row.records]
    return [*lines, "</div>", f"<h3>Runs of {escape(comparison.task)}</h3>", *runs]


def _table(comparison: Comparison) -> str:
    heads = ["method", *comparison.metrics.values(), "time", "seeds"]
    lines = [
        '<table class="sorts"><thead><tr>',
        *(f"<th>{escape(head)}</th>" for head in heads),
        "</tr></thead><tbody>",
    ]
    for row in comparison.rows:
        cells = [f"<td>{escape(row.label)}</td>", *(_cell(row, name) for name in comparison.metrics)]
        time = "" if row.time is None else f"{row.time:.2f}"
        lines += ["<tr>", *cells, f"<td>{time}</td><td>{len(row.records)}</td>", "</tr>"]
    return "".join([*lines, "</tbody></table>"])


def _cell(row: Row, name: str) -> str:
    if name not in row.values:
        return '<td data-value=""></td>'
    values = row.values[name]
    shown, kind = escape(spread(values)), ""
    if name in row.against:
        own = row.against[name]
        shown += f"<small>{escape(difference(own))}</small>"
        kind = f' class="{"better" if own.is_better else "worse"}"' if own.counts else ""
    return f'<td data-value="{sum(values) / len(values)}"{kind}>{shown}</td>'


def _figures(comparison: Comparison) -> list[tuple[str, Figure, bool]]:
    """Caption, picture, and whether it takes the whole width; those for which the runs have kept what they show."""
    found: list[tuple[str, Figure, bool]] = []
    panels = {row.label: both for row in comparison.rows if (both := _pooled(row)) is not None}
    own = next(iter(comparison.metrics))
    if any(row.against for row in comparison.rows):
        caption = "Distance from the baseline with 95% intervals; blue (better) and red (worse) where it counts."
        found.append((caption, forest(comparison, [own, "ece", "nll", "nll_scaled", "aurc"]), True))
    for name in ("nll", "nll_scaled"):
        points = {
            row.label: (row.values[name], row.values[own])
            for row in comparison.rows
            if name in row.values and own in row.values
        }
        if points:
            figure = one_against_another(points, comparison.metrics[name], comparison.metrics[own])
            what = f"{comparison.metrics[own]} against {comparison.metrics[name]}"
            found.append((f"{what[0].upper()}{what[1:]}: means over seeds with 95% intervals.", figure, False))
    if panels:
        caption = "Reliability, all seeds together: blue the accuracy, red its distance from the confidence."
        found.append((caption, reliability_grid(panels), True))
        caption = "Risk against coverage, all seeds together: lower is better at knowing when it is wrong."
        found.append((caption, risk_coverage(panels), False))
    histories = {row.label: [of for run in row.records if (of := run.history())] for row in comparison.rows}
    if any(kept := {label: of for label, of in histories.items() if of}):
        found.append(("The terms of each loss over training, means over seeds.", learning_curves(kept), True))
    return found


def _pooled(row: Row) -> tuple[np.ndarray, np.ndarray] | None:
    """Logits and labels of all seeds one behind the other; None for other labels than classes, and without them."""
    every = [both for run in row.records if (both := run.logits()) is not None]
    if not every or every[0][1].ndim > 1 or every[0][0].ndim < 2 or every[0][0].shape[1] < 2:
        return None
    return np.concatenate([logits for logits, _ in every]), np.concatenate([labels for _, labels in every])


def _png(figure: Figure) -> bytes:
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=110, metadata={"Software": None})
    return written.getvalue()


def _run(row: Row, record: Record) -> str:
    values: Mapping[str, Any] = record.values
    git = values.get("git") or {}
    state = f"commit {git['commit'][:10]}{'' if git.get('clean') else ' with changes'}" if git else "no commit known"
    took = f"{values['train_seconds']:.0f} s" if values.get("train_seconds") else "time not known"
    memory = f"{values['peak_memory_mib']:.0f} MiB" if values.get("peak_memory_mib") else "memory not known"
    told = ", ".join([took, memory, str(values.get("device", "")), state])
    command = f"<pre>{escape(values['command'])}</pre>" if values.get("command") else ""
    rest = escape(json.dumps({name: v for name, v in values.items() if name != "command"}, indent=1))
    return (
        f"<details><summary>{escape(row.label)}, seed {record.seed} "
        f'<span class="soft">{escape(told)}</span></summary>{command}<pre>{rest}</pre></details>'
    )
