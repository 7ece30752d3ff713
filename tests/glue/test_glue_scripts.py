"""The command lines: what they refuse, Ctrl-C and going on, and sweeps with runs that are made up."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2Config, GPT2Model

import glue_runs
from glue_runs import run_glue, sweep
from helpers.cards import checked_metadata
from helpers.glue import STEPS
from hf_logitmix.training.command_line import exit_with

SCRIPTS = Path(glue_runs.__file__).parent
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
# An option that is left out, what is added, and what the sentence says.
REFUSED = [
    ("--task_name", [], ["--task_name", "--model_name_or_path", "--demo"]),
    ("--model_name_or_path", [], ["--task_name", "--model_name_or_path", "--demo"]),
    ("--output_dir", [], ["--output_dir"]),
    ("", ["--method", "mixapp"], ["'mixapp'", "mixup", "logitmix"]),
    ("", ["--task_name", "colla"], ["'colla'", "cola"]),
    ("", ["--no_such_option", "1"], ["--no_such_option"]),
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
        exit_with(run_glue.main, "run_glue")
    assert left.value.code.startswith("run_glue: ")
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
    assert run_glue.main([*start, *short, "--output_dir", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "all_results.json").read_text())
    assert (found["n_train"], found["n_eval"], found["method_name"], found["seed"]) == (9, 7, "mixup", 3)
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


def interrupt(command, progress, lines=1):
    """Start a command, send Ctrl-C as a terminal does after some lines of progress: (exit status, what it wrote)."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, env=ENVIRONMENT, **pipes)
    guard = threading.Timer(300, os.killpg, (process.pid, signal.SIGKILL))
    guard.start()
    written = []
    for line in process.stdout:
        written.append(line)
        if progress in line and sum(progress in text for text in written) == lines:
            os.killpg(process.pid, signal.SIGINT)
    guard.cancel()
    return process.wait(), "".join(written)


@pytest.fixture(scope="module")
def interrupted(start, tmp_path_factory):
    """(arguments, output folder, exit status, what was written) of a run that got Ctrl-C in its second epoch."""
    output = tmp_path_factory.mktemp("interrupted")
    argv = [*start, "--output_dir", str(output), "--method", "logitmix"]
    return argv, output, *interrupt([sys.executable, str(SCRIPTS / "run_glue.py"), *argv], "'loss'", 35)


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


def test_a_resumed_run_ends_bit_for_bit_where_an_uninterrupted_one_does(resumed, tmp_path):
    argv, output, _ = resumed
    assert run_glue.main([str(tmp_path) if text == str(output) else text for text in argv]) == 0
    ended, expected = (load_file(folder / "model.safetensors") for folder in (output, tmp_path))
    assert [name for name in ended.keys() | expected if not torch.equal(ended[name], expected[name])] == []
    assert np.array_equal(*(np.load(folder / "eval_logits.npz")["logits"] for folder in (output, tmp_path)))


def test_seconds_and_steps_per_second_of_a_resumed_run_are_of_the_same_steps(resumed):
    _, output, left = resumed
    found = json.loads((output / "all_results.json").read_text())
    assert found["train_steps_per_second"] * found["train_seconds"] == pytest.approx(left, rel=0.02)


SWEEP = {"output_dir": "runs", "tasks": ["cola", "rte"], "methods": ["vanilla", "mixup"], "seeds": [1, 2]}


def config(folder, **changes):
    """The file of a sweep with some entries changed or dropped; JSON is YAML too."""
    values = {**SWEEP, "output_dir": str(folder / "runs"), **changes}
    (folder / "sweep.yaml").write_text(json.dumps({key: values[key] for key in values if values[key] != "dropped"}))
    return folder / "sweep.yaml"


NO_KEYS = [({key: "dropped"}, "keys arguments, methods, output_dir, seeds, tasks") for key in SWEEP]
NO_LISTS = [({k: v}, f"{k} must be a list") for k in ("tasks", "methods", "seeds") for v in ([], "cola", None, 3)]


@pytest.mark.parametrize(("changes", "says"), [*NO_KEYS, ({"sedes": [1]}, "keys arguments"), *NO_LISTS])
def test_a_sweep_needs_its_keys_and_lists(tmp_path, changes, says):
    with pytest.raises(ValueError, match=rf"sweep\.yaml: .*{says}"):
        sweep.read_config(config(tmp_path, **changes))


def parsed(command):
    """Options of a command line, each with its values as one text."""
    parts = (part.split() for part in " ".join(command[2:]).split("--")[1:])
    return {name: " ".join(values) for name, *values in parts}


@pytest.mark.parametrize("arguments", ["dropped", None, {"lr": "5e-5", "weights": [1, 1, 0.5], "fp16": True}])
def test_commands_are_every_combination_once(tmp_path, arguments):
    runs = sweep.commands(sweep.read_config(config(tmp_path, arguments=arguments)), ["--level", "pooled"])
    names = [(t, m, str(s)) for t in SWEEP["tasks"] for m in SWEEP["methods"] for s in SWEEP["seeds"]]
    shared = {"lr": "5e-5", "weights": "1 1 0.5", "fp16": "True"} if isinstance(arguments, dict) else {}
    for folder, command in runs:
        options = parsed(command)
        names.remove(chosen := tuple(options.pop(key) for key in ("task_name", "method", "seed")))
        assert folder == tmp_path / "runs" / "-".join(chosen)
        assert command[:2] == [sys.executable, str(SCRIPTS / "run_glue.py")]
        assert options == {"output_dir": str(folder), "level": "pooled", **shared}
    assert names == []


def test_a_method_may_have_options_of_its_own(tmp_path):
    changes = {"tasks": ["cola"], "methods": ["logitmix", "logitmix --level hidden:2"], "seeds": [1]}
    runs = sweep.commands(sweep.read_config(config(tmp_path, **changes, arguments={"level": "pooled"})), [])
    assert [folder.name for folder, _ in runs] == ["cola-logitmix-1", "cola-logitmix-level-hidden-2-1"]
    assert [sweep.arguments_of(command)["--level"] for _, command in runs] == [["pooled"], ["hidden:2"]]


def test_a_sweep_over_datasets_trains_images(tmp_path):
    changes = {"tasks": "dropped", "datasets": ["mnist", "a/folder"], "methods": ["cutmix"], "seeds": [3]}
    runs = sweep.commands(sweep.read_config(config(tmp_path, **changes)), [])
    assert [folder.name for folder, _ in runs] == ["mnist-cutmix-3", "folder-cutmix-3"]
    assert runs[1][1][:5] == [sys.executable, "-m", "hf_logitmix.vision.train", "--dataset", "a/folder"]
    with pytest.raises(ValueError, match="datasets must be a list"):
        sweep.read_config(config(tmp_path, **{**changes, "datasets": []}))
    with pytest.raises(ValueError, match="datasets may stand for tasks"):
        sweep.read_config(config(tmp_path, **{**changes, "tasks": ["cola"]}))


def test_runs_that_would_share_a_folder_are_refused(tmp_path):
    changes = {"tasks": "dropped", "datasets": ["a/mnist", "b/mnist"], "methods": ["cutmix"], "seeds": [3]}
    with pytest.raises(ValueError, match=r"two runs would share the folder .*mnist-cutmix-3"):
        sweep.commands(sweep.read_config(config(tmp_path, **changes)), [])


def pretend(monkeypatch, **statuses):
    """Runs that end with a status and, where it is 0, leave a record: (folder, options) of those that are called."""
    called = []

    def run(command, **_):
        folder = Path(parsed(command)["output_dir"])
        called.append((folder.name, parsed(command)))
        folder.mkdir(parents=True, exist_ok=True)
        status = statuses.get(folder.name.replace("-", "_"), 0)
        if not status:
            (folder / "all_results.json").write_text("{}")
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(sweep.subprocess, "run", run)
    return called


def test_a_sweep_goes_on_after_a_failure_and_later_runs_only_what_is_missing(tmp_path, monkeypatch, capsys):
    pretend(monkeypatch, rte_vanilla_1=1, cola_mixup_2=3)
    assert sweep.main([str(config(tmp_path)), "--level", "pooled"]) == 1
    failed = capsys.readouterr().out.splitlines()[-1].split("Failed: ")[1]
    assert failed.split(", ") == ["cola-mixup-2", "rte-vanilla-1"]
    (tmp_path / "runs/rte-vanilla-1/checkpoint-4").mkdir()  # cut off while it was saved
    (tmp_path / "runs/cola-mixup-2/checkpoint-9").mkdir()
    (tmp_path / "runs/cola-mixup-2/checkpoint-9/trainer_state.json").write_text("{}")
    called = pretend(monkeypatch)
    assert sweep.main([str(config(tmp_path)), "--level", "pooled"]) == 0
    resumed = [(name, options.get("resume_from_checkpoint")) for name, options in called]
    assert resumed == [("rte-vanilla-1", None), ("cola-mixup-2", "last")]


@pytest.mark.parametrize(
    ("changes", "extra", "says"),
    [
        ({"arguments": {"lr": "5e-2"}}, [], "--lr was 5e-5 and is 5e-2"),
        ({}, ["--lr", "1e-3"], "--lr was 5e-5 and is 1e-3"),
        ({"arguments": {"lr": "5e-5", "fp16": True}}, [], "--fp16 was left out and is True"),
        ({"arguments": "dropped"}, [], "--lr was 5e-5 and is left out"),
    ],
)
def test_a_sweep_that_has_changed_does_not_take_old_runs_for_its_own(tmp_path, monkeypatch, changes, extra, says):
    """Nothing is run before all folders have been looked at; the sweep as it was is done."""
    pretend(monkeypatch)
    before = {"arguments": {"lr": "5e-5"}}
    assert sweep.main([str(config(tmp_path, **before))]) == 0
    called = pretend(monkeypatch)
    with pytest.raises(ValueError, match=rf"cola-vanilla-1 holds a run with other arguments \({says}\)"):
        sweep.main([str(config(tmp_path, **{**before, **changes})), *extra])
    assert sweep.main([str(config(tmp_path, **before))]) == 0
    assert called == []


def test_a_sweep_refuses_a_run_that_it_knows_nothing_of(tmp_path, monkeypatch):
    pretend(monkeypatch)
    (tmp_path / "runs/cola-vanilla-1").mkdir(parents=True)
    (tmp_path / "runs/cola-vanilla-1/all_results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cola-vanilla-1 holds a run and no sweep\.json"):
        sweep.main([str(config(tmp_path))])


@pytest.mark.parametrize("status", [130, -signal.SIGINT])
def test_ctrl_c_in_a_run_stops_the_sweep(tmp_path, monkeypatch, status):
    called = pretend(monkeypatch, cola_mixup_1=status)
    assert sweep.main([str(config(tmp_path))]) == 130
    assert [name for name, _ in called] == ["cola-vanilla-1", "cola-mixup-1"]


RUN = """import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (time.sleep(1), print("saved", flush=True), sys.exit(130)))
print("ready", flush=True)
time.sleep(60)"""
SWEEP_OF_TWO = """import pathlib, signal, sys
from glue_runs import sweep
signal.signal(signal.SIGINT, signal.default_int_handler)
here, run = pathlib.Path(sys.argv[1]).parent, [sys.executable, "-c", sys.argv[2]]
sweep.commands = lambda *_: [(here / name, run) for name in "ab"]
sys.exit(sweep.main([sys.argv[1]]))"""


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_lets_the_run_save_before_the_sweep_ends(tmp_path):
    """A terminal sends it to the sweep and to the run, which needs a moment for its checkpoint."""
    status, written = interrupt([sys.executable, "-c", SWEEP_OF_TWO, str(config(tmp_path)), RUN], "ready")
    assert "saved" in written
    assert written.count("ready") == 1
    assert status == 130
