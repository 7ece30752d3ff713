"""Ctrl-C in the middle of an epoch: the run that goes on is the one that was left alone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from transformers import TrainerCallback

from helpers.data import examples
from helpers.models import tiny_bert
from helpers.training import arguments
from hf_logitmix import MixTrainer
from hf_logitmix.metrics import calibration_of
from hf_logitmix.training.interrupt import SaveOnInterrupt


class CtrlC(TrainerCallback):
    """Sends what a terminal sends, in the second step of three an epoch."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            os.kill(os.getpid(), signal.SIGINT)


def trainer_of(folder, *callbacks):
    each = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    best = {"metric_for_best_model": "nll", "greater_is_better": False, "num_train_epochs": 2, "max_steps": -1}
    made = MixTrainer(
        tiny_bert(),
        arguments(folder, **each, **best),
        method="mixup",
        train_dataset=examples(24),
        eval_dataset=examples(16, seed=5),
        compute_metrics=calibration_of(),
        callbacks=list(callbacks),
    )
    assert made.args.per_device_train_batch_size == 8
    return made


def test_a_stopped_epoch_is_not_evaluated_and_the_run_ends_as_one_left_alone(tmp_path):
    """Trainer would evaluate behind the stop, and a checkpoint of half an epoch could be the best one."""
    alone = trainer_of(tmp_path / "alone")
    alone.train()
    with SaveOnInterrupt() as stop:
        stopped = trainer_of(tmp_path / "stopped", stop, CtrlC())
        stopped.train()
    assert stop.stopped
    assert [path.name for path in Path(tmp_path / "stopped").glob("checkpoint-*")] == ["checkpoint-2"]
    assert not any("eval_nll" in line for line in stopped.state.log_history)
    assert stopped.state.best_metric is None
    again = trainer_of(tmp_path / "stopped")
    again.train(resume_from_checkpoint=True)
    evaluated = [
        {line["step"]: line["eval_nll"] for line in one.state.log_history if "eval_nll" in line}
        for one in (alone, again)
    ]
    assert evaluated[0] == evaluated[1]
    assert set(evaluated[0]) == {3, 6}
    assert all(map(torch.equal, alone.model.state_dict().values(), again.model.state_dict().values()))
