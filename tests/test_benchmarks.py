"""Short versions of the benchmarks: that they run, and that no step costs far more than it may."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(name, *options, status=0):
    result = subprocess.run([sys.executable, str(BENCHMARKS / name), *options], capture_output=True, text=True)
    assert status in (None, result.returncode), result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("layer_cost.py", ["--models", "BERT 4x256"]), ("step_cost.py", []), ("step_cost.py", ["--images"])],
)
def test_no_step_is_far_outside_its_goal(tmp_path, name, options):
    """The exit status is 1 above 1.25 times a goal."""
    told = run(name, *options, "--rounds", "5", "--output", str(tmp_path / "record.json"))
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["ratios"]
    assert all(f"{ratio['median']:.3f}" in told for ratio in record["ratios"].values())


@pytest.mark.slow
def test_the_script_for_gpus_runs_without_one(tmp_path):
    """With tiny models: each method has its time, its memory, and a share of the step that is ours."""
    run("gpu.py", "--small", "--rounds", "2", "--output", str(tmp_path / "gpu.json"), status=None)
    record = json.loads((tmp_path / "gpu.json").read_text())
    kinds = record["median_seconds"].keys()
    assert record["megabytes"].keys() == kinds
    assert record["share of a step that is ours"].keys() == {name for name in kinds if not name.endswith("stock")}
    assert all(0 < share["host"] < 1 for share in record["share of a step that is ours"].values())


def test_far_outside_a_goal_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import timing

    times = {"ours": [1.3, 1.2, 1.3], "theirs": [1.0, 1.0, 1.0]}
    for goal, status in ((1.0, 1), (1.05, 0), (None, 0)):
        record = timing.record_of("three rounds", times, {"ours / theirs": ("ours", "theirs", goal)})
        assert record["ratios"]["ours / theirs"]["median"] == pytest.approx(1.3)
        assert timing.save(record, tmp_path / "record.json") == status
