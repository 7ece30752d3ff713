"""The command `hf-logitmix`: what it starts, how it ends, and what it says of a mistake."""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.glue import small_run
from hf_logitmix import _requirements
from hf_logitmix.commands import main as dispatcher
from hf_logitmix.commands.main import COMMANDS, main
from hf_logitmix.commands.parser import did_you_mean

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def ended(argv):
    """The exit status, or the sentence, that a command line ends with."""
    with pytest.raises(SystemExit) as left:
        main(argv)
    return left.value.code


def test_the_overview_has_a_line_for_each_command(capsys):
    for argv in ([], ["--help"], ["-h"]):
        assert ended(argv) == 0
        shown = re.findall(r"^  (\w+)  +\S", capsys.readouterr().out, flags=re.MULTILINE)
        runs = ["demo", "glue", "text", "images", "compare", "sweep", "table", "report", "cam", "toy", "figure"]
        assert shown == [*runs, "methods"] == list(COMMANDS)


def test_the_overview_waits_for_no_library():
    """A process that may import none of them, well below a second."""
    heavy = ["torch", "transformers", "datasets", "numpy", "scipy", "sklearn", "matplotlib", "timm", "yaml"]
    code = f"""import sys
for name in {heavy!r}: sys.modules[name] = None
from hf_logitmix.commands.main import main
main(["--help"])"""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.perf_counter() - started < 5  # on a machine that does other work; a third of a second on a free one


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["gleu"], "hf-logitmix: unknown command gleu (did you mean glue?)"),
        (
            ["zzz"],
            "hf-logitmix: unknown command zzz: pass one of demo, glue, text, images, compare, sweep, ",
        ),
        (["glue", "--taks_name", "mrpc"], "hf-logitmix glue: unknown --taks_name (did you mean --task_name?); --help"),
        (["glue", "--task-nam=mrpc"], "hf-logitmix glue: unknown --task_nam (did you mean --task_name?); --help"),
        (["glue", "--lr", "1e-3"], "hf-logitmix glue: unknown --lr (did you mean --learning_rate?); --help"),
        (["glue", "--alhpa", "1", "--zzzz"], "glue: unknown --alhpa (did you mean --alpha?), --zzzz; --help"),
        (["glue", "mrpc"], "hf-logitmix glue: mrpc: belongs to no option; --help lists them."),
        (["glue", "--seed", "one"], "hf-logitmix glue: argument --seed: invalid int value: 'one'"),
        (["images", "--modle", "x"], "hf-logitmix images: unknown --modle (did you mean --model?); --help"),
        (["demo", "--sed", "1"], "hf-logitmix demo: unknown --sed (did you mean --seed?); --help"),
        (["table"], "hf-logitmix table: the following arguments are required: runs_dir"),
        (["table", "runs", "--fodler"], "hf-logitmix table: unknown --fodler (did you mean --format?); --help lists"),
        (["sweep", "text_study", "--alhpa", "1"], "hf-logitmix glue: unknown --alhpa (did you mean --alpha?); --help"),
        (["sweep", "fashion_mnist_5000", "--schde", "step"], "images: unknown --schde (did you mean --sched?)"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(argv, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ended(argv) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert says in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["sweep", "lvels"], r"hf-logitmix sweep: lvels is no file and none of .*text_study"),
        (["table", "nowhere"], r"hf-logitmix table: nowhere holds no results"),
        (["methods", "mixapp"], r"hf-logitmix methods: method 'mixapp' is unknown \(did you mean mixup\?\)"),
        (["glue"], r"hf-logitmix glue: --task_name and --model_name_or_path are needed"),
    ],
)
def test_a_problem_of_the_users_is_one_sentence_and_status_1(argv, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.match(says, ended(argv))  # a text as exit status is printed, and the status is 1


@pytest.mark.parametrize(("word", "near"), [("lr", "learning_rate"), ("max", "max_steps"), ("sede", "seed"), ("q", "")])
def test_what_is_nearest(word, near):
    known = ["--max_train_samples", "--max_steps", "--lr_scheduler_type", "--learning_rate", "--seed"]
    assert did_you_mean(f"--{word}", known) == (f" (did you mean --{near}?)" if near else "")


@pytest.mark.parametrize(
    ("name", "missing"),
    [("images", "timm"), ("images", "matplotlib"), ("cam", "torchvision"), ("glue", "matplotlib"), ("sweep", "pyyaml")],
)
def test_a_missing_package_is_named_with_what_installs_it(name, missing, monkeypatch):
    real = _requirements.metadata.version

    def version(asked):
        if asked == missing:
            raise _requirements.metadata.PackageNotFoundError(asked)
        return real(asked)

    monkeypatch.setattr(_requirements.metadata, "version", version)
    bound = {"timm": ">=1.0.27", "torchvision": ">=0.22", "matplotlib": ">=3.8", "pyyaml": ""}[missing]
    assert ended([name]) == f'hf-logitmix {name} needs {missing}{bound} (found none): pip install "{missing}{bound}"'


def test_a_module_is_imported_when_its_command_is_called(monkeypatch):
    called = []

    class Module:
        @staticmethod
        def main(argv):
            called.append(argv)
            return 7

    real = dispatcher.import_module
    monkeypatch.setattr(dispatcher, "import_module", lambda name: Module if name.endswith(".run") else real(name))
    assert ended(["glue", "--help-all", "x"]) == 7
    assert called == [["--help-all", "x"]]


def short_help(argv, capsys):
    assert ended(argv) == 0
    return capsys.readouterr().out


def test_the_help_of_glue_is_short_and_grouped(capsys):
    text = short_help(["glue", "--help"], capsys)
    assert re.findall(r"^(\w+):$", text, flags=re.MULTILINE) == ["data", "model", "method", "training"]
    groups = dict(
        re.findall(r"^(data|model|method|training):$(.*?)(?=^\w|^--|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    )
    assert "  --task_name " in groups["data"]
    assert "  --model_name_or_path" in groups["model"]
    assert "  --method " in groups["method"]
    assert "--alpha," in groups["method"]
    assert "  --learning_rate " in groups["training"]
    assert "[2e-05]" in groups["training"]
    assert "--torch_compile_mode" not in text
    assert len(text.splitlines()) <= 110


def test_help_all_has_every_argument(capsys):
    from hf_logitmix.glue.run import parser

    text = short_help(["glue", "--help-all"], capsys)
    names = {action.dest for action in parser()._actions} - {argparse.SUPPRESS}
    assert len(names) > 150
    assert {name for name in names if f"  --{name}" not in text} == set()


@pytest.mark.slow
@pytest.mark.parametrize("start", [["-m", "hf_logitmix", "glue"], [str(ROOT / "glue_runs" / "run_glue.py")]])
def test_a_launcher_of_two_processes_starts_the_command(start, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    words = [*small_run(tmp_path), "--output_dir", str(tmp_path / "out"), "--max_steps", "3", "--method", "mixup"]
    done = subprocess.run(
        [sys.executable, *launcher, *start, *words], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "all_results.json").is_file()
