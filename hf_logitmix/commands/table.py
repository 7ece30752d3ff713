"""Collect runs into one table: mean and standard deviation over seeds, beside the published numbers.

    hf-logitmix table runs/first_results
    hf-logitmix table runs/first_results --against vanilla --format csv

With `--against` the table is of differences to a method: of means over common seeds, with an interval over seeds and
examples, and the paired t-test over seeds, corrected for the number of methods by Holm.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_logitmix import METHODS
from hf_logitmix.calibration.registry import columns
from hf_logitmix.commands.parser import Parser
from hf_logitmix.evidence.comparison import compare, own_metric
from hf_logitmix.evidence.grids import FORMATS, Grid, against_baseline, markdown
from hf_logitmix.evidence.records import placed, read_records
from hf_logitmix.evidence.verdict import spread
from hf_logitmix.glue.tasks import TASKS

# BERT-base on the GLUE dev sets, from the LogitMix poster (Bang, Baek et al., IJCAI 2022): each task's main metric, for
# MNLI on the mismatched set. They stand beside runs of that model alone.
PUBLISHED_MODELS = ("bert-base-uncased", "bert-base-cased")
PUBLISHED = {
    "vanilla": {"mnli": 84.73, "qqp": 91.25, "qnli": 91.43, "sst2": 93.12, "cola": 57.82, "stsb": 89.43, "mrpc": 87.75}
    | {"rte": 68.95},
    "mixup": {"mnli": 84.29, "qqp": 91.15, "qnli": 91.36, "sst2": 93.12, "cola": 58.82, "stsb": 89.44, "mrpc": 87.50}
    | {"rte": 67.87},
    "logitmix": {"mnli": 84.73, "qqp": 91.25, "qnli": 91.58, "sst2": 93.12, "cola": 58.85, "stsb": 89.45, "mrpc": 87.50}
    | {"rte": 70.04},
}
# Runs are seeds of one experiment if all of this is the same.
_SAME = ("task", "method_name", "method", "model", "data", "n_train", "n_eval", "selected_on", "settings")


def read_runs(folder: str | Path) -> list[dict[str, Any]]:
    """The values of `hf_logitmix.evidence.records.read_records`."""
    return [record.values for record in read_records(folder)]


def table(runs: Sequence[dict[str, Any]]) -> str:
    """`means` in Markdown."""
    return markdown(means(runs))


def means(runs: Sequence[dict[str, Any]]) -> Grid:
    """A row for each task or image dataset and each method, in the order of their tables: means over seeds.

    Where two rows of one task and method would look alike, what they differ in becomes a column. A column for a metric
    that no run has recorded is left out.
    """
    shown = {title: key for title, key in columns().items() if any(f"eval_{key}" in run for run in runs)}
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in sorted(
        runs, key=lambda run: (*placed(run["task"], TASKS), *placed(run["method_name"], METHODS), run["seed"])
    ):
        groups[tuple(str(run.get(key)) for key in _SAME)].append(run)
    differing = _differing([members[0] for members in groups.values()])
    published = {key: _published(members[0]) for key, members in groups.items()}
    header = ["task", "method", *differing, "metric", "value", *shown, "time / vanilla", "train / dev", "seeds"]
    header += ["published, BERT-base"] if any(published.values()) else []
    rows = []
    for key, members in groups.items():
        task, method = key[:2]
        noise = members[0].get("settings", {}).get("label_noise")
        metric = own_metric(members[0])
        metric = "accuracy_mm" if "eval_accuracy_mm" in members[0] else metric
        told = _told(members[0])
        if len({run["seed"] for run in members}) < len(members):
            raise ValueError(f"{task}: two runs of {method} have one seed: pass a folder that holds each run once.")
        cells = [
            f"{task}, {noise} label noise" if noise else task,
            *(method, *(told.get(name, "") for name in differing)),
            *(metric.replace("_", " "), _over_seeds(members, f"eval_{metric}")),
            *(_over_seeds(members, f"eval_{key}") for key in shown.values()),
            _over_seeds(cost_of(members, runs), "cost", digits=2),
            f"{members[0]['n_train']} / {members[0]['n_eval']}",
            str(len(members)),
            *([published[key]] if any(published.values()) else []),
        ]
        rows.append(cells)
    return Grid(header, rows)


def _told(run: dict[str, Any]) -> dict[str, str]:
    """What runs may differ in that the columns of the table do not show, name -> text."""
    shown = {**{key: run.get(key) for key in ("method", "model", "data")}, **run.get("settings", {})}
    return {name: str(value) for name, value in shown.items() if name != "label_noise"}


def _differing(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The names of what tells apart two rows of one task, label noise, method and numbers of examples."""
    alike: dict[str, list[dict[str, str]]] = defaultdict(list)
    for run in runs:
        keys = [*(run.get(key) for key in ("task", "method_name", "n_train", "n_eval"))]
        alike[str([*keys, run.get("settings", {}).get("label_noise")])].append(_told(run))
    names: dict[str, None] = {}
    for rows in alike.values():
        every = dict.fromkeys(name for row in rows for name in row)
        names |= {name: None for name in every if len({row.get(name) for row in rows}) > 1}
    return list(names)


def _published(run: dict[str, Any]) -> str:
    """The published number of the setting that a run is of, if there is one."""
    number = PUBLISHED.get(run["method_name"], {}).get(run["task"])
    is_other_set = run["task"] == "mnli" and "eval_accuracy_mm" not in run
    model = str(run.get("model", "")).split("/")[-1]
    return "" if number is None or is_other_set or model not in PUBLISHED_MODELS else f"{number / 100:.4f}"


def cost_of(members: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Time of a step of each run over that of the vanilla run with the same seed, where there is one."""
    same = [key for key in _SAME if key not in ("method_name", "method", "settings")] + ["seed", "device"]

    def name(run: dict[str, Any]) -> str:
        settings = {key: value for key, value in run.get("settings", {}).items() if key != "masks"}  # of mixing alone
        return str([*(run.get(key) for key in same), settings])

    speed = "train_steps_per_second"
    vanilla: dict[str, Any] = {}
    for run in runs:
        if run["method_name"] == "vanilla":
            vanilla.setdefault(name(run), run.get(speed))  # the plain one comes before those with options
    pairs = [(vanilla.get(name(run)), run.get(speed)) for run in members]
    return [{"cost": other / own} if own and other else {} for other, own in pairs]


def _over_seeds(runs: Sequence[dict[str, Any]], key: str, digits: int = 3) -> str:
    """Mean and deviation of a value; empty if a run lacks it."""
    values = [run[key] for run in runs if run.get(key) is not None]
    return spread(values, digits) if len(values) == len(runs) else ""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix table", description=__doc__)
    parser.add_argument("runs_dir", help="folder that holds the runs")
    parser.add_argument("--against", metavar="METHOD", help="differences to this method, such as vanilla, with tests")
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="how to write the table")
    options = parser.parse_args(argv)
    records = read_records(options.runs_dir)
    if options.against is None:
        grid = means([record.values for record in records])
    else:
        comparisons = compare(records, options.against)
        grid = against_baseline(comparisons)
        for comparison in comparisons:
            for remark in comparison.remarks:
                print(f"{comparison.task}: {remark}", file=sys.stderr)
    print(FORMATS[options.format](grid))
    return 0
