"""Schedules of timm in a Trainer, against timm's own in a loop."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch
from timm.scheduler import create_scheduler_v2
from timm.scheduler.plateau_lr import PlateauLRScheduler
from torch import nn

from helpers.images import Tiny, image_arguments, images, logged, trainer_of
from hf_logitmix.vision.arguments import ImageMixTrainingArguments
from hf_logitmix.vision.train import ImageRunArguments

STEPS, EPOCHS = 4, 5  # 16 images in batches of 4


def trained(folder, metrics=None, resume=None, **options):
    """A run; evaluation gives these metrics in turn, whatever the model is."""
    steps = {"learning_rate": 0.1, "num_train_epochs": EPOCHS, "per_device_train_batch_size": 4, "max_steps": -1}
    args = image_arguments(folder, opt="momentum", logging_steps=1, **{**steps, **options})
    trainer = trainer_of(Tiny(), args, eval_dataset=images())
    if metrics is not None:
        found = iter(metrics)
        trainer.compute_metrics = lambda prediction: dict.fromkeys(("accuracy", "nll"), next(found))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)


@pytest.mark.parametrize("sched", ["cosine", "poly", "tanh"])
@pytest.mark.parametrize(
    "options", [{}, {"min_lr": 0.01, "warmup_epochs": 1, "warmup_lr": 0.002}, {"cooldown_epochs": 2, "min_lr": 0.02}]
)
def test_the_rate_of_each_step_is_timms(tmp_path, sched, options):
    """Of timm, whose cooldown comes on top of its epochs, as many fewer are asked for."""
    if sched == "poly":
        options = {**options, "decay_rate": 0.9}
    trainer = trained(tmp_path, sched=sched, **options)
    own = optimizer()
    cooldown = options.get("cooldown_epochs", 0)
    schedule, epochs = create_scheduler_v2(
        own, sched, num_epochs=EPOCHS - cooldown, updates_per_epoch=STEPS, step_on_epochs=False, **options
    )
    assert epochs == EPOCHS
    expected = []
    for update in range(STEPS * EPOCHS):
        expected.append(own.param_groups[0]["lr"])
        schedule.step_update(update + 1)
    assert logged(trainer, "learning_rate") == pytest.approx(expected, abs=1e-12)
    assert expected[-1] < expected[STEPS]
    if cooldown:
        assert expected[-STEPS * cooldown :] == [0.02] * STEPS * cooldown


METRICS = [0.5, 0.4, 0.6, 0.6, 0.6, 0.6, 0.5, 0.5]
WAITING = {"patience_epochs": 1, "decay_rate": 0.5, "eval_strategy": "epoch", "metric_for_best_model": "accuracy"}


@pytest.mark.parametrize(
    "options", [{}, {"warmup_epochs": 2, "warmup_lr": 0.02}, {"min_lr": 0.04}, {"cooldown_epochs": 2}]
)
@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_plateau_is_timms(tmp_path, options, metric):
    both = {**WAITING, "num_train_epochs": len(METRICS), "metric_for_best_model": metric}
    trainer = trained(tmp_path, METRICS, sched="plateau", **both, **options)
    own = optimizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        schedule = PlateauLRScheduler(
            own,
            decay_rate=0.5,
            patience_t=1,
            mode="max" if metric == "accuracy" else "min",
            cooldown_t=options.get("cooldown_epochs", 0),
            warmup_t=options.get("warmup_epochs", 0),
            warmup_lr_init=options.get("warmup_lr", 1e-5),
            lr_min=options.get("min_lr", 0.0),
        )
    expected = []
    for epoch, value in enumerate(METRICS):
        expected += [own.param_groups[0]["lr"]] * STEPS
        schedule.step(epoch + 1, value)
    assert logged(trainer, "learning_rate") == pytest.approx(expected)
    assert expected[-1] < 0.1


def test_a_resumed_run_goes_on_waiting(tmp_path):
    """Stopped where the rate waits in its second epoch; timm's own state would wait anew."""
    both = {"sched": "plateau", "num_train_epochs": len(METRICS), **WAITING}
    whole = logged(trained(tmp_path / "whole", METRICS, **both), "learning_rate")
    trained(tmp_path / "cut", METRICS, save_strategy="epoch", **both)
    checkpoint = str(tmp_path / "cut" / f"checkpoint-{4 * STEPS}")
    resumed = trained(tmp_path / "resumed", METRICS[4:], resume=checkpoint, **both)
    assert logged(resumed, "learning_rate") == pytest.approx(whole)
    assert len(set(whole)) > 1


WRONG = [
    ({"sched": "plateau", "eval_strategy": "epoch"}, "waits for a metric: pass metric_for_best_model"),
    ({"sched": "plateau", "metric_for_best_model": "loss"}, "after each epoch: pass eval_strategy='epoch'"),
    ({"sched": "plateau", "metric_for_best_model": "loss", "eval_strategy": "steps", "eval_steps": 2}, "each epoch"),
    ({**WAITING, "sched": "plateau", "eval_delay": 2}, "no eval_delay"),
    ({**WAITING, "sched": "plateau", "decay_rate": 1.0}, "decay_rate=1"),
    ({"sched": "cosine", "patience_epochs": 3}, "patience_epochs is read by sched=plateau"),
    ({"sched": "step", "decay_epochs": 1, "cooldown_epochs": 3}, "cooldown_epochs is read by sched=cosine or tanh"),
    ({"sched": "poly", "decay_rate": 0.0}, "the power of sched='poly'"),
    ({"sched": "cosine", "cooldown_epochs": -1}, "cooldown_epochs=-1 is below 0"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_a_schedule_cannot_do_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        ImageMixTrainingArguments(str(tmp_path), use_cpu=True, **options)
    assert "\n" not in str(error.value)


def test_a_cooldown_that_leaves_nothing_and_a_metric_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cooldown_epochs=5 leaves none of 5 epochs"):
        trained(tmp_path, sched="cosine", cooldown_epochs=5)
    with pytest.raises(ValueError, match=r"metric_for_best_model='recall' is none of what evaluation gives.*eval_loss"):
        trained(tmp_path, sched="plateau", **{**WAITING, "metric_for_best_model": "recall"})


def test_a_copy_of_plateau_arguments_waits_for_the_same(tmp_path):
    args = ImageRunArguments(str(tmp_path), use_cpu=True, sched="plateau", metric_for_best_model="nll")
    for copy in (pickle.loads(pickle.dumps(args)), type(args)(**args.to_dict())):
        assert (copy.sched, copy.metric_for_best_model, copy.greater_is_better) == ("plateau", "nll", False)
