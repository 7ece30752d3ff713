"""The command line of GLUE: what it refuses, Ctrl-C and going on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2Config, GPT2Model

from helpers.cards import checked_metadata
from helpers.glue import STEPS
from helpers.launching import interrupt
from hf_logitmix.glue import run as run_glue
from hf_logitmix.training.command_line import exit_with

SCRIPTS = Path(__file__).parents[2] / "glue_runs"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}
# An option that is left out, what is added, and what the sentence says.
REFUSED = [
    ("--task_name", [], ["--task_name", "--model_name_or_path", "--demo"]),
    ("--model_name_or_path", [], ["--task_name", "--model_name_or_path", "--demo"]),
    ("--output_dir", [], ["--output_dir"]),
    ("", ["--method", "mixapp"], ["'mixapp'", "mixup", "logitmix"]),
    ("", ["--task_name", "colla"], ["'colla'", "cola"]),
    ("", ["--max_train_samples", "0"], ["max_train_samples=0", "at least 1"]),
    ("", ["--max_eval_samples", "-1"], ["max_eval_samples=-1", "at least 2"]),
    ("", ["--resume_from_checkpoint", "nowhere/checkpoint-7"], ["'nowhere/checkpoint-7' is no folder"]),
    ("", ["--resume_from_checkpoint", "last"], ["'last'", "checkpoint in"]),
    ("", ["--output_dir", "done"], ["holds a run already", "--resume_from_checkpoint done/checkpoint-5"]),
]


def test_a_decoder_is_padded_on_the_left(start, tmp_path, caplog):
    """In training, with one line and in the record; a model that is only evaluated keeps its tokenizer's side."""
    tokenizer = AutoTokenizer.from_pretrained(start[start.index("--model_name_or_path") + 1])
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64)
    GPT2Model(config).save_pretrained(tmp_path / "decoder")
    tokenizer.save_pretrained(tmp_path / "decoder")
    assert tokenizer.padding_side == "right"
    argv = [*start, "--model_name_or_path", str(tmp_path / "decoder"), "--method", "mixup", "--max_steps", "2"]
    assert run_glue.main([*argv, "--output_dir", str(tmp_path / "out")]) == 0
    assert [r.getMessage() for r in caplog.records if "padded on the left" in r.getMessage()] == [
        "A decoder: texts are padded on the left, so that those of unequal length end together."
    ]
    settings = json.loads((tmp_path / "out" / "all_results.json").read_text())["settings"]
    assert (settings["padding_side"], settings["masks"]) == ("left", "soft")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").padding_side == "left"
    caplog.clear()
    AutoTokenizer.from_pretrained(tmp_path / "out", padding_side="right").save_pretrained(tmp_path / "out")
    argv += ["--model_name_or_path", str(tmp_path / "out"), "--no_do_train"]
    assert run_glue.main([*argv, "--output_dir", str(tmp_path / "evaluated")]) == 0
    assert "padding" not in json.loads((tmp_path / "evaluated" / "all_results.json").read_text())["settings"]
    assert "padded on the left" not in caplog.text


@pytest.mark.parametrize(("left_out", "added", "says"), REFUSED)
def test_run_glue_refuses_and_writes_nothing(start, tmp_path, monkeypatch, left_out, added, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "done" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "done" / "checkpoint-5" / "trainer_state.json").write_text("{}")
    argv = [*start, "--output_dir", "out"]
    kept = [text for at, text in enumerate(argv) if argv[at - at % 2] != left_out]
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        run_glue.main(kept + added)
    assert [part for part in says if part not in str(error.value)] == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoint-5", "done", "trainer_state.json"]


def test_the_demo_leaves_other_runs_alone(tmp_path):
    kept = tmp_path / "logitmix" / "all_results.json"
    kept.parent.mkdir()
    kept.write_text('{"data": "SST-2"}')
    with pytest.raises(ValueError, match="'logitmix': pass the demo another one"):
        run_glue.main(["--demo", "--output_dir", str(tmp_path)])
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["all_results.json"]


@pytest.mark.parametrize("missing", ["--glue_dir", "--model_name_or_path"])
def test_a_problem_of_the_users_is_one_sentence_without_a_traceback(start, tmp_path, monkeypatch, missing):
    argv = [*start, "--output_dir", str(tmp_path / "out")]
    argv[argv.index(missing) + 1] = str(tmp_path / "absent")
    monkeypatch.setattr(sys, "argv", ["run_glue.py", *argv])
    with pytest.raises(SystemExit) as left:
        exit_with(run_glue.main, "hf-logitmix glue")
    assert left.value.code.startswith("hf-logitmix glue: ")
    assert "absent" in left.value.code


@pytest.mark.parametrize("as_process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_help_names_the_arguments(as_process, capfd):
    command = [sys.executable, SCRIPTS / "run_glue.py", "--help"]
    with pytest.raises(SystemExit, match=r"^0$"):
        sys.exit(subprocess.run(command, env=ENVIRONMENT).returncode if as_process else run_glue.main(["--help"]))
    text = capfd.readouterr().out
    names = "task_name glue_dir train_file demo method max_train_samples max_eval_samples learning_rate seed"
    assert [name for name in names.split() if f"--{name} " not in text] == []


def test_sample_limits_reach_the_run(start, tmp_path):
    short = ["--max_steps", "2", "--max_train_samples", "9", "--max_eval_samples", "7", "--method", "mixup"]
    short += ["--max_grad_norm", "inf"]  # which JSON has not
    assert run_glue.main([*start, *short, "--output_dir", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "all_results.json").read_text())
    assert (found["n_train"], found["n_eval"], found["method_name"], found["seed"]) == (9, 7, "mixup", 3)
    assert found["settings"]["max_grad_norm"] is None
    assert np.load(tmp_path / "eval_logits.npz")["labels"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    (result,) = checked_metadata(tmp_path / "README.md")["model-index"][0]["results"]
    told = {
        "name": "GLUE, local files sst2 (7 of 20 examples)",
        "type": "glue",
        "config": "sst2",
        "split": "validation",
    }
    assert result["dataset"] == told
    text = (tmp_path / "README.md").read_text()
    assert "Measured on 7 of 20 examples of `validation`." in text
    assert f"The temperature fitted on `validation` is {found['eval_temperature']:.4f}." in text
    assert "temperature" not in {metric["type"] for metric in result["metrics"]}


@pytest.fixture(scope="module")
def interrupted(start, tmp_path_factory):
    """(arguments, output folder, exit status, what was written) of a run that got Ctrl-C in its second epoch."""
    output = tmp_path_factory.mktemp("interrupted")
    argv = [*start, "--output_dir", str(output), "--method", "logitmix"]
    return argv, output, *interrupt([sys.executable, str(SCRIPTS / "run_glue.py"), *argv], "'loss'", 35)


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(interrupted):
    _, output, status, written = interrupted
    assert status == 130
    told = written.split("--resume_from_checkpoint ")[1].split()[0]
    assert Path(told).parent == output
    assert 35 <= json.loads((Path(told) / "trainer_state.json").read_text())["global_step"] < STEPS


@pytest.fixture(scope="module")
def resumed(interrupted):
    """(arguments, output folder, steps left) of the run that went on."""
    argv, output, *_ = interrupted
    (checkpoint,) = output.glob("checkpoint-*")
    assert run_glue.main([*argv, "--resume_from_checkpoint", "last"]) == 0
    return argv, output, STEPS - int(checkpoint.name.split("-")[1])


@pytest.mark.slow
def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(resumed, tmp_path):
    argv, output, _ = resumed
    assert run_glue.main([str(tmp_path) if text == str(output) else text for text in argv]) == 0
    ended, expected = (load_file(folder / "model.safetensors") for folder in (output, tmp_path))
    assert [name for name in ended.keys() | expected if not torch.equal(ended[name], expected[name])] == []
    assert np.array_equal(*(np.load(folder / "eval_logits.npz")["logits"] for folder in (output, tmp_path)))


@pytest.mark.slow
def test_seconds_and_steps_per_second_of_a_resumed_run_are_of_the_same_steps(resumed):
    _, output, left = resumed
    found = json.loads((output / "all_results.json").read_text())
    assert found["train_steps_per_second"] * found["train_seconds"] == pytest.approx(left, rel=0.02)
