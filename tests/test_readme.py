"""What the README says is so: its code runs, and its figures are those of the records that it names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.pages import blocks_of, save_checkpoint, text_names
from hf_logitmix import METHODS
from hf_logitmix.commands.table import read_runs, table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "glue_runs" / "results"
PAGE_OF_RESULTS = (ROOT / "docs" / "results.md").read_text()
SCRIPT, *OTHER_BLOCKS = blocks_of(README, "python")


def test_it_is_short():
    """Without the table of methods, which has a line for each."""
    lines = README.splitlines()
    assert len(lines) - (lines.index("<!-- end of methods -->") - lines.index("<!-- methods -->")) <= 140


@pytest.mark.slow
def test_the_complete_script_runs_in_an_empty_folder(tmp_path):
    """As it stands, but for the name of the model: that of a local one."""
    name = re.search(r'^name = "(.*)"$', SCRIPT, flags=re.MULTILINE).group(1)
    sentences = [
        text for line in re.findall(r"^(?:complaints|praise) = \[(.*)\]$", SCRIPT, re.M) for text in eval(line)
    ]
    assert len(sentences) == 12
    (tmp_path / "models").mkdir()
    model = os.environ.get("HF_LOGITMIX_MODEL") or save_checkpoint(tmp_path / "models" / "tiny", sentences)
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT.replace(name, model))
    command = [sys.executable, "script.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    for method in ("vanilla", "logitmix"):
        assert re.search(rf"^{method} \{{.*'eval_ece': ", done.stdout, flags=re.MULTILINE)
        assert json.loads((folder / "out" / method / "hf_logitmix.json").read_text())["method"] == method
    assert re.search(r"^\[\{'label': '(complaint|praise)', 'score': 0\.\d+\}\]$", done.stdout, flags=re.MULTILINE)


@pytest.mark.parametrize("code", OTHER_BLOCKS)
def test_the_other_python_blocks_run(code):
    names: dict = {}
    exec(compile(code, "README", "exec"), names)
    assert names["method"].pairing.lam.alpha == 1.0
    assert names["own"].pairing.per_example


def test_the_diff_gives_a_script_that_trains(tmp_path):
    (diff,) = blocks_of(README, "diff")
    script = "\n".join(line[2:] for line in diff.splitlines() if not line.startswith("-"))
    names = text_names(tmp_path)
    exec(script, names)
    assert names["trainer"].state.global_step == 3
    assert names["trainer"].method.objective == METHODS["logitmix"].objective


def test_every_method_has_a_row():
    rows = re.findall(r"^\| \[`\w+`\]\(docs/methods/\w+\.md\)[^|]*\|", README, flags=re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(METHODS)


def test_links_resolve():
    text = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert target.startswith("https://") or (ROOT / target.partition("#")[0]).exists(), target


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
        row = re.search(
            rf"^\| {record['task']} \| {record['method_name']} \|.*$", PAGE_OF_RESULTS, flags=re.MULTILINE
        ).group(0)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        keys = (main, "ece", "oe", "nll", "ece_scaled", "nll_scaled")
        assert cells[3:9] == [f"{record[f'eval_{key}']:.3f}" for key in keys]
        assert cells[9:11] == [f"{record['n_train']} / {record['n_eval']}", "1"]


def test_the_page_of_results_is_what_the_records_say():
    """The rows of table.py, without task, metric, time and the published column; with the measured cost of a step."""
    runs = read_runs(RESULTS / "mnli_2000")
    assert len(runs) == 30
    ratios = json.loads((ROOT / "benchmarks" / "step_cost.json").read_text())["ratios"]
    places = {"manifold_mixup": ["mixup", "mixup at hidden:2"], "lamix": ["lamix, clean batch", "lamix, mixed batch"]}
    for line in table(runs).splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        kinds = [] if cells[1] == "vanilla" else places.get(cells[1], [cells[1]])
        cost = " or ".join(f"{ratios[f'{kind} / vanilla']['median']:.2f}" for kind in kinds) or "1"
        shown = [cells[1], *cells[3:9], cost, *cells[10:12]]
        assert f"| {' | '.join(shown)} |" in PAGE_OF_RESULTS, cells[1]


def test_the_table_of_images_is_what_the_records_say():
    runs = read_runs(RESULTS / "fashion_mnist_5000")
    assert len(runs) == 30
    ratios = json.loads((ROOT / "benchmarks" / "image_step_cost.json").read_text())["ratios"]
    for line in table(runs).splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        kinds = ["lamix, clean batch", "lamix, mixed batch"] if cells[1] == "lamix" else [cells[1]]
        costs = [f"{ratios[f'{kind} / vanilla']['median']:.2f}" for kind in kinds if f"{kind} / vanilla" in ratios]
        cost = "1" if cells[1] == "vanilla" else " or ".join(costs)
        assert f"| {' | '.join([cells[1], *cells[3:9], cost, cells[11]])} |" in PAGE_OF_RESULTS, cells[1]


def test_the_table_of_labels_is_the_record():
    rows = json.loads((ROOT / "benchmarks" / "puzzlemix_labels.json").read_text())["rows"]
    assert len(rows) == 12
    for row in rows:
        grid, alone = f"{row['grid']} x {row['grid']}", row["ratio, one batch between other work"]
        times = f"{row['graph cuts, ms']:.1f} | {row['ours, ms']:.2f} | {row['ratio']:.2f} | {alone:.2f}"
        above = [100 * row[f"ours, above the lower energy{which}"] for which in ("", ", worst image")]
        assert f"| {grid} | {row['levels']} | {times} | {above[0]:.2f}% | {above[1]:.1f}% |" in PAGE_OF_RESULTS
        assert row["ratio"] < 0.1
        assert alone < 1 / 5.5


@pytest.mark.parametrize("teacher", ["vanilla", "label_smoothing"])
def test_the_students_are_those_of_the_records(teacher):
    (line,) = table(read_runs(RESULTS / "distillation" / f"of_{teacher}")).splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert f"| {' | '.join([teacher, *cells[3:9], cells[11]])} |" in PAGE_OF_RESULTS


def test_what_the_page_says_of_learned_targets_is_so():
    def diagonals(method):
        found = [run["targets"] for run in read_runs(RESULTS / "mnli_2000") if run["method_name"] == method]
        assert all(max(row) == row[k] for rows in found for k, row in enumerate(rows))
        return [rows[k][k] for rows in found for k in range(3)]

    assert all(0.197 <= 1 - own <= 0.2005 for own in diagonals("sg_mcel"))
    assert all(0.784 <= own <= 0.7865 for own in diagonals("gmcel"))
    similarity = next(run for run in read_runs(RESULTS / "mnli_2000") if run["method_name"] == "mcel")[
        "class_similarity"
    ]
    assert all(abs(similarity[i][j] - 0.5) < 0.0145 for i in range(3) for j in range(3) if i != j)


def test_what_the_page_says_of_padding_is_the_record():
    page = (ROOT / "docs" / "performance.md").read_text()
    tasks = json.loads((ROOT / "benchmarks" / "padding.json").read_text())["tasks"]
    titles = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "rte": "RTE", "mnli": "MNLI, 9,999 rows"}
    pairings = []
    for name, task in tasks.items():
        both = task["random"], task["group_by_length"]
        cells = [f"{each['any']['clean']:.2f}, {each['any']['mixed']:.2f}" for each in both]
        cells += [f"{each[partners]['of_both']:.3f}"[1:] for each in both for partners in ("any", "length")]
        assert f"| {' | '.join([titles[name], *cells])} |" in page
        assert 1.5 <= both[0]["any"]["clean"] <= 3.02
        assert all(each[partners]["most_often_a_partner"] == 1 for each in both for partners in ("any", "length"))
        known = task["same_label_of_any_two_texts"]
        pairings += [(abs(each["length"]["same_label"] - known), name, each["length"]) for each in both]
        assert abs(both[0]["any"]["correlation"]) < 0.015
        assert 0.98 <= both[1]["any"]["correlation"] < 0.995
    apart, name, found = max(pairings, key=lambda pairing: pairing[0])
    assert (apart < 0.01, name) == (True, "sst2")
    assert f"{100 * found['same_label']:.1f}% of the pairs" in page
    assert f"{100 * tasks[name]['same_label_of_any_two_texts']:.1f}% of all" in page
    assert all(9.0 <= found["different_partners"] <= 10 for _, _, found in pairings)
    assert all(0.93 <= found["correlation"] <= 1 for _, _, found in pairings)
