"""Runs that are killed with SIGKILL, again and again, and end with the same bits as one that is left alone."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerCallback

from helpers.data import examples, random_images
from helpers.models import tiny_bert, tiny_vit
from helpers.parts import data_of, kind_of, new_model
from helpers.training import arguments
from hf_logitmix import METHODS, MixTrainer, get_method
from hf_logitmix.training.checkpoints import incomplete_reason, last_complete_checkpoint

STEPS, KILLS = 12, 3
PLACES = ["after the model", "before the state", "within the state"]
LOGGED = ("loss", "mix", "cls", "sim", "distill", "penalty_high", "lam_mean", "learning_rate", "step")
EVERY_METHOD = [name for name in METHODS if name != "logitmix_m"]  # another name of logitmix
# A fork server holds the imports, so that a process that is killed and started again costs a second.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "transformers.trainer", "hf_logitmix", "helpers.training"])


class Killed(MixTrainer):
    """Kills its own process in the middle of writing a checkpoint, at a place that is named."""

    place = ""

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        self._die_at("after the model", output_dir)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        self._die_at("before the state", output_dir)

    def _die_at(self, place, output_dir):
        if place == self.place and output_dir is not None:
            os.kill(os.getpid(), signal.SIGKILL)


class CutOff(Killed):
    """Is killed when half of trainer_state.json is written."""

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if self.place == "within the state":
            path = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / "trainer_state.json"
            text = path.read_text()
            path.write_text(text[: len(text) // 2])
            os.kill(os.getpid(), signal.SIGKILL)


class Pause(TrainerCallback):
    """Makes steps long enough to be hit."""

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(0.1)


def train(folder: str, method: str, workers: int, place: str = "", slow: bool = False, resume: str = "") -> None:
    """Start, or go on from the last complete checkpoint or the one that is named, and write down how it ended."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of dataloader workers, which would start a fork server each
    CutOff.place = place
    args = arguments(
        folder,
        optim="adamw_torch",
        max_steps=STEPS,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        dataloader_num_workers=workers,
    )
    options = {"distillation": {"teacher": tiny_bert(seed=1)}, "ssmix": {"special_ids": (0,)}}.get(method, {})
    model, data = {
        "text": lambda: (tiny_bert(dropout=0.1), examples(22)),
        "images": lambda: (tiny_vit(), random_images(22)),
        "numbers": lambda: (new_model("numbers", dropout=0.1), data_of("numbers", 22)),
    }[kind_of(METHODS[method])]()
    trainer = CutOff(model=model, args=args, method=get_method(method, **options), train_dataset=data)
    if slow:
        trainer.add_callback(Pause())
    trainer.train(resume_from_checkpoint=resume or last_complete_checkpoint(folder) is not None)
    log = [{k: v for k, v in entry.items() if k in LOGGED} for entry in trainer.state.log_history if "loss" in entry]
    states = {"model": trainer.model, "optimizer": trainer.optimizer, "extras": trainer.method_in_training.learned}
    torch.save({name: part.state_dict() for name, part in states.items()}, Path(folder) / "end.pt")
    (Path(folder) / "log.json").write_text(json.dumps(log))


def start(*arguments):
    process = PROCESSES.Process(target=train, args=arguments)
    process.start()
    return process


def end_of(folder: Path):
    return torch.load(folder / "end.pt", weights_only=True), json.loads((folder / "log.json").read_text())


def assert_same_end(left: Path, right: Path) -> None:
    (a, log_a), (b, log_b) = end_of(left), end_of(right)
    assert log_a == log_b
    assert [entry["step"] for entry in log_a] == list(range(1, STEPS + 1))
    flat_a, flat_b = torch.utils._pytree.tree_leaves(a), torch.utils._pytree.tree_leaves(b)
    assert len(flat_a) == len(flat_b) > 100
    assert all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(flat_a, flat_b, strict=True)
    )


def newest(folder: Path) -> int:
    """The highest step of a checkpoint that is there, complete or not."""
    return max((int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*")), default=0)


def left_alone(folder: Path, method: str, workers: int) -> None:
    process = start(str(folder), method, workers)
    process.join(120)
    assert process.exitcode == 0


def test_the_readme_counts_the_kills():
    inside = 2 * len(PLACES)
    total = KILLS * len(EVERY_METHOD) + inside
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    assert f"with SIGKILL, {total} times in all, {['zero', 'two', 'four', 'six'][inside // 2]} of them inside" in text


@pytest.mark.slow
@pytest.mark.parametrize(("method", "workers"), list(zip(EVERY_METHOD, itertools.cycle([0, 2]), strict=False)))
def test_killed_at_random_points(tmp_path, method, workers):
    left_alone(tmp_path / "alone", method, workers)
    folder, rng = tmp_path / "killed", random.Random(f"{method} {workers}")
    for target in sorted(rng.sample(range(1, STEPS - 2), KILLS)):
        process, deadline = start(str(folder), method, workers, "", True), time.monotonic() + 120
        while process.is_alive() and newest(folder) < target and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))  # a checkpoint is written, or the next step is under way
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    left_alone(folder, method, workers)
    assert_same_end(tmp_path / "alone", folder)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_killed_while_a_checkpoint_is_written(tmp_path, place, caplog):
    left_alone(tmp_path / "alone", "logitmix", 0)
    folder = tmp_path / "killed"
    torn = start(str(folder), "logitmix", 0, place)
    torn.join(120)
    assert torn.exitcode == -signal.SIGKILL
    assert incomplete_reason(folder / "checkpoint-1")
    assert last_complete_checkpoint(folder) is None
    assert "checkpoint-1 was not written to its end" in caplog.text
    left_alone(folder, "logitmix", 0)
    assert_same_end(tmp_path / "alone", folder)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_killed_while_a_checkpoint_is_written_over_an_older_one(tmp_path, place):
    """A run that goes on from checkpoint-10 though 11 was there: what is then in 11 is half old and half new."""
    left_alone(tmp_path / "alone", "logitmix", 0)
    folder = shutil.copytree(tmp_path / "alone", tmp_path / "killed")
    shutil.rmtree(folder / "checkpoint-12")
    torn = start(str(folder), "logitmix", 0, place, False, str(folder / "checkpoint-10"))
    torn.join(120)
    assert torn.exitcode == -signal.SIGKILL
    assert incomplete_reason(folder / "checkpoint-11")
    assert last_complete_checkpoint(folder) == str(folder / "checkpoint-10")
    left_alone(folder, "logitmix", 0)
    assert_same_end(tmp_path / "alone", folder)


def test_a_torn_checkpoint_is_skipped_or_refused_never_loaded(tmp_path):
    """Stock Trainer takes the highest number; here the state of the newest checkpoint is cut off."""
    args = arguments(tmp_path, save_strategy="steps", save_steps=1)
    trainer = MixTrainer(model=tiny_bert(), args=args, method="vanilla", train_dataset=examples(24))
    trainer.train()
    state = tmp_path / "checkpoint-3" / "trainer_state.json"
    state.write_text(state.read_text()[:100])
    with pytest.raises(json.JSONDecodeError):
        Trainer(model=tiny_bert(), args=args, train_dataset=examples(24)).train(resume_from_checkpoint=True)
    again = MixTrainer(model=tiny_bert(), args=args, method="vanilla", train_dataset=examples(24))
    with pytest.raises(ValueError, match="not written to its end"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    again.train(resume_from_checkpoint=True)
    assert incomplete_reason(tmp_path / "checkpoint-3") is None  # step 3 was made anew
    for checkpoint in tmp_path.glob("checkpoint-*"):
        (checkpoint / "trainer_state.json").unlink()
    with pytest.raises(ValueError, match="no complete checkpoint"):
        again.train(resume_from_checkpoint=True)
