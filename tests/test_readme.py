"""What the README says is so: its code runs, and its figures are those of the records that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import default_data_collator

from glue_runs.table import read_runs, table
from helpers.data import examples
from helpers.models import tiny_bert
from helpers.training import arguments
from hf_logitmix import METHODS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "glue_runs" / "results"
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = examples(16)
    names = {"model": tiny_bert(), "args": arguments(tmp_path), "train_dataset": data, "eval_dataset": data}
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {**names, "collator": default_data_collator})


def test_the_diff_gives_a_script_that_trains(tmp_path):
    diff = re.search(r"```diff\n(.*?)```", README, flags=re.DOTALL).group(1)
    script = "\n".join(line[2:] for line in diff.splitlines() if not line.startswith("-"))
    data = examples(16)
    names = {"model": tiny_bert(), "args": arguments(tmp_path), "train_dataset": data, "eval_dataset": data}
    exec(script, names)
    assert names["trainer"].state.global_step == 3


def test_every_method_has_a_row():
    named = set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE))
    assert named == set(METHODS) - {"logitmix_m"}  # another name of logitmix


def test_the_demo_output_is_that_of_its_records():
    for method in ("vanilla", "mixup", "logitmix"):
        record = json.loads((RESULTS / "demo" / f"{method}.json").read_text())
        keys = ("accuracy", "ece", "oe", "nll", "ece_scaled", "nll_scaled", "temperature")
        shown = re.search(rf"^{method} +([\d. ]+)$", README, flags=re.MULTILINE).group(1).split()
        assert shown[:7] == [f"{record[f'eval_{key}']:.3f}" for key in keys]
        assert record["data"] == "synthetic"


def test_the_first_results_are_those_of_their_records():
    records = [json.loads(path.read_text()) for path in (RESULTS / "first_results").glob("*.json")]
    assert len(records) == 6
    for record in records:
        main = {"cola": "matthews_correlation", "mrpc": "accuracy"}[record["task"]]
        row = re.search(rf"^\| {record['task']} \| {record['method_name']} \|.*$", README, flags=re.MULTILINE).group(0)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        keys = (main, "ece", "oe", "nll", "ece_scaled", "nll_scaled")
        assert cells[3:9] == [f"{record[f'eval_{key}']:.3f}" for key in keys]
        assert cells[9:11] == [f"{record['n_train']} / {record['n_eval']}", "1"]


def test_the_step_costs_are_those_of_the_record():
    record = json.loads((ROOT / "benchmarks" / "step_cost.json").read_text())
    for name, ratio in record["ratios"].items():
        assert re.search(rf"^\| {re.escape(name)} \| {ratio['median']:.2f} \|", README, flags=re.MULTILINE), name


def test_the_page_of_results_is_what_the_records_say():
    """The rows of table.py, without task, metric, time and the published column; with the measured cost of a step."""
    text = (ROOT / "docs" / "results.md").read_text()
    runs = read_runs(RESULTS / "mnli_2000")
    assert len(runs) == 30
    ratios = json.loads((ROOT / "benchmarks" / "step_cost.json").read_text())["ratios"]
    places = {"manifold_mixup": ["mixup", "mixup at hidden:2"], "lamix": ["lamix, clean batch", "lamix, mixed batch"]}
    for line in table(runs).splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        kinds = [] if cells[1] == "vanilla" else places.get(cells[1], [cells[1]])
        cost = " or ".join(f"{ratios[f'{kind} / vanilla']['median']:.2f}" for kind in kinds) or "1"
        shown = [cells[1], *cells[3:9], cost, *cells[10:12]]
        assert f"| {' | '.join(shown)} |" in text, cells[1]


def test_the_table_of_images_is_what_the_records_say():
    text = (ROOT / "docs" / "results.md").read_text()
    runs = read_runs(RESULTS / "fashion_mnist_5000")
    assert len(runs) == 30
    ratios = json.loads((ROOT / "benchmarks" / "image_step_cost.json").read_text())["ratios"]
    for line in table(runs).splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        kinds = ["lamix, clean batch", "lamix, mixed batch"] if cells[1] == "lamix" else [cells[1]]
        costs = [f"{ratios[f'{kind} / vanilla']['median']:.2f}" for kind in kinds if f"{kind} / vanilla" in ratios]
        cost = "1" if cells[1] == "vanilla" else " or ".join(costs)
        assert f"| {' | '.join([cells[1], *cells[3:9], cost, cells[11]])} |" in text, cells[1]


def test_the_table_of_labels_is_the_record():
    text = (ROOT / "docs" / "results.md").read_text()
    rows = json.loads((ROOT / "benchmarks" / "puzzlemix_labels.json").read_text())["rows"]
    assert len(rows) == 12
    for row in rows:
        grid, alone = f"{row['grid']} x {row['grid']}", row["ratio, one batch between other work"]
        times = f"{row['graph cuts, ms']:.1f} | {row['ours, ms']:.2f} | {row['ratio']:.2f} | {alone:.2f}"
        above = [100 * row[f"ours, above the lower energy{which}"] for which in ("", ", worst image")]
        assert f"| {grid} | {row['levels']} | {times} | {above[0]:.2f}% | {above[1]:.1f}% |" in text
        assert row["ratio"] < 0.1
        assert alone < 1 / 5.5


@pytest.mark.parametrize("teacher", ["vanilla", "label_smoothing"])
def test_the_students_are_those_of_the_records(teacher):
    (line,) = table(read_runs(RESULTS / "distillation" / f"of_{teacher}")).splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert f"| {' | '.join([teacher, *cells[3:9], cells[11]])} |" in (ROOT / "docs" / "results.md").read_text()


def test_what_the_page_says_of_learned_targets_is_so():
    def diagonals(method):
        found = [run["targets"] for run in read_runs(RESULTS / "mnli_2000") if run["method_name"] == method]
        assert all(max(row) == row[k] for rows in found for k, row in enumerate(rows))
        return [rows[k][k] for rows in found for k in range(3)]

    assert all(0.197 <= 1 - own <= 0.2005 for own in diagonals("sg_mcel"))
    assert all(0.784 <= own <= 0.7865 for own in diagonals("gmcel"))
    similarity = read_runs(RESULTS / "mnli_2000")[0]["class_similarity"]
    assert all(abs(similarity[i][j] - 0.5) < 0.0145 for i in range(3) for j in range(3) if i != j)
