"""The command that settles whether a method helps: what it runs, when it stops, and once with real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from helpers.glue import small_run
from hf_logitmix.commands import compare, sweep
from hf_logitmix.evidence.records import arguments_of

MODEL = ["--model_name_or_path", "m"]


@pytest.mark.parametrize(
    ("data", "extra", "kind"),
    [
        ("sst2", MODEL, "tasks"),
        ("own.csv", MODEL, "texts"),
        ("org/name", MODEL, "texts"),
        ("cifar10", ["--model", "timm/resnet18"], "datasets"),
    ],
)
def test_the_data_is_of_the_command_that_takes_the_model(data, extra, kind):
    assert compare.planned(data, ["mixup"], 2, "out", extra)[kind] == [data]


def test_a_task_is_known_by_the_name_of_its_folder_too():
    assert compare.planned("SST-2", ["mixup"], 2, "out", MODEL)["tasks"] == ["sst2"]


@pytest.mark.parametrize(
    ("methods", "extra", "expected"),
    [
        (["mixup"], [], ["vanilla", "mixup"]),
        (["logitmix"], [], ["vanilla", "vanilla --num_train_epochs 6", "logitmix"]),
        (["logitmix"], ["--max_steps", "500000"], ["vanilla", "vanilla --max_steps 1000000", "logitmix"]),
        (["logitmix"], ["--num_train_epochs", "0.25"], ["vanilla", "vanilla --num_train_epochs 0.5", "logitmix"]),
        (["logitmix --level pooled"], ["--num_train_epochs", "1.5"], ["vanilla", "vanilla --num_train_epochs 3"]),
        (["vanilla", "regmixup"], ["--max_steps=40"], ["vanilla", "vanilla --max_steps 80", "regmixup"]),
        (["regmixup"], ["--max-steps", "40"], ["vanilla", "vanilla --max_steps 80", "regmixup"]),
        (["mixup", "mixup"], [], ["vanilla", "mixup"]),
        (["logitmix"], ["--max_steps", "-1"], ["vanilla", "vanilla --num_train_epochs 6", "logitmix"]),
    ],
)
def test_vanilla_is_there_and_twice_as_long_where_a_method_costs_more(methods, extra, expected):
    config = compare.planned("sst2", methods, 1, "out", [*MODEL, *extra])
    assert [method for method in config["methods"] if "--level" not in method] == expected
    (_, longest) = max(sweep.commands(config, []), key=lambda run: "80" in run[1])
    if "80" in longest:
        assert arguments_of(longest)["--max_steps"] == ["80"]  # an option of the method takes the place of the shared


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sst2", "--methods", "mixup"], "no model is named: pass --model_name_or_path for texts"),
        (["sst2", *MODEL, "--seeds", "0"], "seeds=0: pass at least 1"),
        (["sst2", *MODEL, "--budget", "2 hours"], "budget='2 hours': pass a time such as 45m"),
        (["sst2", *MODEL, "--budget", "0h"], "budget='0h': pass a time"),
        (["sst2", *MODEL, "--methods", " "], "--methods has an empty name"),
        (["sst2", *MODEL, "--methods", "logitmix", "--max_steps"], "--max_steps : pass one number"),
        ([__file__, *MODEL], "there is nothing to compare on but .*test_compare.py.*--val_split"),
        (["sst2", "cola", *MODEL], "cola: data is one name"),
        (["sst2", *MODEL, "--seeds", "1", "2", "3"], "--seeds 1 2 3: pass their number"),
        (["sst2", *MODEL, "--no_do_eval"], "--do_eval cannot be turned off here"),
        (["sst2", *MODEL, "--do_train", "False"], "--do_train cannot be turned off here"),
        (["sst2", *MODEL, "--methods", "--alpha 0.2"], "methods: '--alpha 0.2' does not begin with a name"),
        (["sst2", *MODEL, "--seed", "3"], "arguments: --seed is what the sweep sets for each run: leave it out"),
        (["sst2", *MODEL, "--method", "mixup"], "arguments: --method is what the sweep sets"),
        (["sst2", *MODEL, "--methods", "mixup --output_dir x"], "methods, mixup --output_dir x: --output_dir is what"),
        (["sst2", *MODEL, "--jobs", "0"], "jobs=0: pass at least 1"),
        (["sst2", *MODEL, "--methods", "logitmx"], r"method logitmx is unknown \(did you mean logitmix\?\)"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_folder_is_made(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{says}"):
        compare.main(arguments)
    assert list(tmp_path.iterdir()) == []


def pretend(monkeypatch, takes=0.0, fails=()):
    """Runs that leave a record and logits at once, on a clock of its own; (method, seed) of those that are called."""
    called, clock = [], [0.0]

    def run(jobs):
        for number, (command, log) in enumerate(jobs):
            given = arguments_of(command)
            method, seed = given["--method"][0], int(given["--seed"][0])
            called.append((method, seed))
            clock[0] += takes
            log.parent.mkdir(exist_ok=True)
            log.write_text("ValueError: no such file\n")
            if method not in fails:
                shared = {"task": "sst2", "n_train": 8, "n_eval": 50, "method_name": method, "seed": seed}
                record = {**shared, "eval_accuracy": 0.8 + seed / 100, "command": " ".join(command[4:])}
                (Path(given["--output_dir"][0]) / "all_results.json").write_text(json.dumps(record))
            yield number, int(method in fails)

    monkeypatch.setitem(sweep.ENGINES, "local", lambda jobs: run)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return called


def test_a_budget_leaves_whole_seeds(tmp_path, monkeypatch, capsys):
    """Two runs of five minutes a seed: a third seed would end at 30 minutes."""
    called = pretend(monkeypatch, takes=300)
    common = ["sst2", *MODEL, "--methods", "mixup", "--output_dir", str(tmp_path / "out")]
    assert compare.main([*common, "--budget", "29m"]) == 0
    assert called == [("vanilla", 1), ("mixup", 1), ("vanilla", 2), ("mixup", 2)]
    written = capsys.readouterr().out
    assert "The budget of 29m ends before seed 3 would.\nOf 10 runs 4 are complete." in written
    assert "mixup: no difference in accuracy." in written
    called.clear()
    assert compare.main([*common, "--budget", "19m"]) == 0  # seeds that were done before are not counted
    assert called == [("vanilla", 3), ("mixup", 3)]
    assert "The budget of 19m ends before seed 4 would.\nOf 10 runs 6 are complete." in capsys.readouterr().out
    called.clear()
    assert compare.main([*common, "--seeds", "4"]) == 0  # goes on with what is missing
    assert called == [("vanilla", 4), ("mixup", 4)]


def test_a_seed_that_fails_altogether_ends_it(tmp_path, monkeypatch, capsys):
    called = pretend(monkeypatch, fails=("vanilla", "mixup"))
    assert compare.main(["sst2", *MODEL, "--methods", "mixup", "--output_dir", str(tmp_path / "out")]) == 1
    assert len(called) == 2
    written = capsys.readouterr()
    assert "All runs of seed 1 failed, so no other was started." in written.out
    assert "ValueError: no such file" in written.out + written.err


def test_one_method_that_fails_leaves_the_others(tmp_path, monkeypatch, capsys):
    pretend(monkeypatch, fails=("mixup",))
    arguments = ["sst2", *MODEL, "--methods", "mixup", "focal", "--seeds", "5", "--output_dir", str(tmp_path / "out")]
    assert compare.main(arguments) == 1
    written = capsys.readouterr().out
    assert "focal: no difference in accuracy." in written
    assert f"Failed: {', '.join(f'sst2-mixup-{seed}' for seed in range(1, 6))}; their logs are in" in written


@pytest.mark.parametrize(
    "methods", [["mixup --alpha 0.2", "manifold_mixup --alpha 0.2"], ["mixup --num_train_epochs 6"]]
)
def test_vanilla_is_the_baseline_whatever_most_methods_are_told(tmp_path, monkeypatch, capsys, methods):
    pretend(monkeypatch)
    arguments = ["sst2", *MODEL, "--methods", *methods, "logitmix --num_train_epochs 6", "--seeds", "2"]
    assert compare.main([*arguments, "--num_train_epochs", "3", "--output_dir", str(tmp_path / "out")]) == 0
    written = capsys.readouterr().out
    rows = [*methods, "vanilla --num_train_epochs 6", "logitmix --num_train_epochs 6"]
    assert [row for row in rows if f"\n{row}: no difference" not in written] == []


def test_it_leaves_a_sweep_of_its_own(tmp_path, monkeypatch):
    pretend(monkeypatch)
    arguments = ["sst2", *MODEL, "--methods", "mixup", "--seeds", "2", "--output_dir", str(tmp_path / "out")]
    assert compare.main([*arguments, "--learning_rate", "1e-3"]) == 0
    again = pretend(monkeypatch)
    assert sweep.main([str(tmp_path / "out" / "compare.yaml")]) == 0
    assert again == []


@pytest.mark.slow
def test_killed_in_the_middle_it_loses_and_repeats_nothing(tmp_path):
    """Real runs of a tiny model. The sweep and its run are killed; the same command goes on to the same screen."""
    given = arguments_of(small_run(tmp_path))
    given = {name: values for name, values in given.items() if name not in ("--task_name", "--seed")}
    shared = [word for name, values in given.items() for word in (name, *values)]
    start = [sys.executable, "-m", "hf_logitmix", "compare", "sst2", "--methods", "mixup", "--seeds", "2", *shared]
    start += ["--max_steps", "20", "--save_steps", "5", "--output_dir"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    whole = subprocess.run([*start, tmp_path / "whole"], env=environment, capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stderr

    process = subprocess.Popen([*start, tmp_path / "cut"], env=environment, start_new_session=True)
    until = time.time() + 300
    while not (tmp_path / "cut" / "sst2-mixup-1" / "checkpoint-5" / "trainer_state.json").exists():
        assert time.time() < until
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = [path.parent.name for path in (tmp_path / "cut").glob("*/all_results.json")]
    before = {name: (tmp_path / "cut" / name / "all_results.json").stat().st_mtime_ns for name in done}
    assert "sst2-vanilla-1" in done
    again = subprocess.run([*start, tmp_path / "cut"], env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    for name, changed in before.items():
        assert (tmp_path / "cut" / name / "all_results.json").stat().st_mtime_ns == changed
    for name in ("sst2-mixup-1", "sst2-vanilla-2"):
        logits = [np.load(tmp_path / folder / name / "eval_logits.npz")["logits"] for folder in ("whole", "cut")]
        np.testing.assert_array_equal(*logits)
    names = ("vanilla", "mixup ", "Tables")  # lines with times and with the folder
    told = [text.stdout[text.stdout.index("sst2:") :] for text in (whole, again)]
    figures = [[line for line in text.splitlines() if not line.startswith(names)] for text in told]
    assert figures[0] == figures[1]
    config = yaml.safe_load((tmp_path / "cut" / "compare.yaml").read_text())
    assert config["seeds"] == [1, 2]
