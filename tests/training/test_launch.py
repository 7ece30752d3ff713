"""Two processes give what one process gives on the same global batch."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.glue import small_run
from helpers.launching import ENVIRONMENT, TESTS, TORCHRUN, run_launched

README = (TESTS.parent / "README.md").read_text()
METHODS = ["vanilla", "label_smoothing", "mixup", "logitmix", "soft logitmix", "logitmix at hidden:2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
# With `--cpu` accelerate starts one process whatever --num_processes says. It starts two for `distributed_type:
# MULTI_GPU`, GPUs or not; on a machine without them the script then has to ask for the CPU (--use_cpu).
TWO_PROCESSES = """\
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
num_processes: 2
num_machines: 1
machine_rank: 0
mixed_precision: 'no'
main_training_function: main
"""


def launch(launcher: list[str], output: Path, batch: int, accumulation: int, **config: bool) -> dict:
    options = [str(output), str(batch), str(accumulation), json.dumps(config)]
    run_launched(launcher, "steps", *options, *METHODS)
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return launch([sys.executable], tmp_path_factory.mktemp("alone") / "out.json", 8, 1)


def assert_same(results: dict, alone: dict, methods: tuple[str, ...] = tuple(METHODS)) -> None:
    for method in methods:
        two, one = results[method], alone[method]
        assert (two["processes"], one["processes"]) == (2, 1)
        for key in ("losses", "eval_loss", "eval_brier", "weights"):
            np.testing.assert_allclose(two[key], one[key], atol=2e-5, err_msg=f"{method} {key}")
        if one["mix"][0] is not None:
            np.testing.assert_allclose(two["mix"], one["mix"], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (2, 2)])
def test_torchrun_equals_one_process(tmp_path, alone, batch, accumulation):
    assert_same(launch(TORCHRUN, tmp_path / "out.json", batch, accumulation), alone)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "batch"), [({"dispatch_batches": True}, 4), ({"split_batches": True}, 8)])
def test_batches_may_be_cut_up_between_processes(tmp_path, alone, config, batch):
    """What is not mixed is what one process makes of it; what is mixed has partners that no other process drew."""
    results = launch(TORCHRUN, tmp_path / "out.json", batch, 1, **config)
    assert_same(results, alone, ("vanilla", "label_smoothing"))
    for method in ("mixup", "logitmix"):
        assert results[method]["processes"] == 2
        assert np.isfinite([*results[method]["losses"], *results[method]["mix"]]).all()
        assert results[method]["weights"] != results["vanilla"]["weights"]


@pytest.mark.slow
def test_a_model_sharded_by_fsdp2_is_mixed_as_a_whole_one(tmp_path):
    output = tmp_path / "out.json"
    run_launched(TORCHRUN, "fsdp", str(output))
    results = json.loads(output.read_text())
    assert results["sharded"]
    assert results["losses"][0] == pytest.approx(results["losses"][1], abs=1e-6)
    assert results["gradient difference"] < 1e-6


@pytest.mark.slow
def test_an_average_ends_with_the_same_statistics_of_batches_in_each_process(tmp_path):
    """Each process's model has its own, of its own images."""
    run_launched(TORCHRUN, "ema", str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert not torch.allclose(first["statistics"], second["statistics"], atol=1e-3)
    for name, value in first["model"].items():
        torch.testing.assert_close(second["model"][name], value, atol=1e-6, rtol=1e-6, msg=name)


REFUSED = """\
import sys
from helpers.faulty import Trained, pictures
from helpers.training import arguments
from hf_logitmix import MixTrainer, get_method

method = get_method("logitmix", level="hidden:2")
MixTrainer(Trained(), arguments(sys.argv[1], max_steps=4), method=method, train_dataset=pictures(32)).train()
"""


@pytest.mark.slow
def test_two_processes_refuse_a_level_together(tmp_path):
    """None is left waiting for the other."""
    (script := tmp_path / "refused.py").write_text(REFUSED)
    command = [*TORCHRUN, "--log-dir", str(tmp_path), "--redirects", "2", str(script), str(tmp_path / "out")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 0
    errors = [path.read_text() for path in tmp_path.rglob("stderr.log")]
    assert len(errors) == 2
    assert all("Trained is not mixed right at level='hidden:2'" in text for text in errors)


@pytest.mark.slow
def test_the_readmes_accelerate_command_starts_two_processes(tmp_path, alone):
    found = re.search(r"`accelerate launch(.*?) your_script.py`", README, flags=re.DOTALL).group(1).split()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert_same(launch([*ACCELERATE, *found, "--main_process_port", port], tmp_path / "out.json", 4, 1), alone)


@pytest.mark.slow
def test_what_the_readme_calls_a_script_too_trains_in_two_processes(tmp_path):
    """`-m hf_logitmix glue`: weights and figures of one process, and one report, one record and one card."""
    found = re.search(r"`accelerate launch(.*?) your_script.py`", README, flags=re.DOTALL).group(1).split()
    assert "`-m hf_logitmix glue ...` is a script too" in README
    begun = small_run(tmp_path)
    path = tmp_path / "tiny" / "config.json"
    config = json.loads(path.read_text())  # each process would drop others
    path.write_text(json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = [*ACCELERATE, *found, "--main_process_port", port, "-m", "hf_logitmix"]
    launchers = {8: [sys.executable, "-m", "hf_logitmix"], 4: together}
    for batch, launcher in launchers.items():
        output = str(tmp_path / str(batch))
        # 12 full batches of 100 examples: the thirteenth is filled up where there are several processes
        options = ["--method", "logitmix", "--max_steps", "12", "--per_device_train_batch_size", str(batch)]
        options += [
            "--optim",
            "sgd",
            "--learning_rate",
            "0.1",
        ]  # Adam enlarges rounding of gradients near 0
        command = [*launcher, "glue", *begun, *options, "--output_dir", output]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count(f"everything is in {output}") == 1
        assert "## Results on validation" in (Path(output) / "README.md").read_text()
    one, two = (json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("8", "4"))
    assert (one["settings"]["batch_size"], two["settings"]["batch_size"]) == (8, 8)
    for name in ("train_loss", "eval_accuracy", "eval_nll", "eval_ece"):
        assert two[name] == pytest.approx(one[name], abs=1e-4), name
    weights = load_file(tmp_path / "8" / "model.safetensors")
    for name, value in load_file(tmp_path / "4" / "model.safetensors").items():
        torch.testing.assert_close(value, weights[name], atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_accelerate_launch_with_a_config_file_starts_two_processes(tmp_path, alone):
    config = tmp_path / "two.yaml"
    config.write_text(TWO_PROCESSES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = [*ACCELERATE, "--config_file", str(config), "--main_process_port", port]
    assert_same(launch(launcher, tmp_path / "out.json", 4, 1), alone)
