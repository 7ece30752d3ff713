"""Images a second, summary.csv and the memory format, each against what was done by hand."""

from __future__ import annotations

import csv
import time

import pytest
import torch

from helpers.images import InOrder, Tiny, image_arguments, images, logged, timm_model, trainer_of
from helpers.models import tiny_vit
from hf_logitmix.vision import records
from hf_logitmix.vision.records import COLUMNS, SummaryMixin
from hf_logitmix.vision.train import accuracies

SHORT = {"learning_rate": 0.1, "num_train_epochs": 3, "per_device_train_batch_size": 4, "max_steps": -1}


class Summed(SummaryMixin, InOrder):
    pass


def metrics(prediction) -> dict[str, float]:
    return accuracies(prediction.predictions, prediction.label_ids)


def rows_of(folder) -> list[dict[str, str]]:
    with open(folder / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def summed(folder, resume=None, **options) -> Summed:
    args = image_arguments(folder, opt="sgd", sched="cosine", **{**SHORT, "logging_steps": 1, **options})
    trainer = trainer_of(Tiny(), args, cls=Summed, eval_dataset=images(), compute_metrics=metrics)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_row_an_epoch_is_what_the_log_says(tmp_path, accumulation):
    batch = {"per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation}
    trainer = summed(tmp_path, eval_strategy="epoch", **batch)
    found, losses = rows_of(tmp_path), logged(trainer, "loss")
    assert tuple(found[0]) == COLUMNS == ("epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr")
    assert [row["epoch"] for row in found] == ["0", "1", "2"]
    assert len(losses) == 12
    by_hand = [sum(losses[4 * epoch : 4 * epoch + 4]) / 4 for epoch in range(3)]
    assert [float(row["train_loss"]) for row in found] == pytest.approx(by_hand, abs=1e-5)
    assert [float(row["eval_loss"]) for row in found] == pytest.approx(logged(trainer, "eval_loss"))
    assert [float(row["eval_top1"]) for row in found] == pytest.approx(
        [100 * value for value in logged(trainer, "eval_accuracy")]
    )
    assert {row["eval_top5"] for row in found} == {""}  # of three classes
    rates = logged(trainer, "learning_rate")
    assert [float(row["lr"]) for row in found] == pytest.approx([rates[4], rates[8], 0.0])


def test_rows_are_there_while_training_goes_on(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Summed,
        "training_step",
        lambda *args: seen.append(len(list(tmp_path.glob("*.csv")))) or SummaryMixin.training_step(*args),
    )
    summed(tmp_path)
    assert seen == [0] * 4 + [1] * 8
    assert [row["eval_loss"] for row in rows_of(tmp_path)] == [""] * 3
    assert [path.name for path in tmp_path.iterdir() if "summary" in path.name] == ["summary.csv"]


@pytest.mark.parametrize("step", [8, 6])
def test_a_resumed_run_doubles_no_row(tmp_path, step):
    """From the end of the second epoch, and from the middle of it, whose loss is then that of what was left of it."""
    trainer = summed(tmp_path, eval_strategy="epoch", save_strategy="steps", save_steps=2)
    whole, losses = rows_of(tmp_path), logged(trainer, "loss")
    summed(tmp_path, str(tmp_path / f"checkpoint-{step}"), eval_strategy="epoch")
    found = rows_of(tmp_path)
    if step == 6:
        whole[1]["train_loss"] = sum(losses[6:8]) / 2
    assert [row["epoch"] for row in found] == ["0", "1", "2"]
    for ours, theirs in zip(found, whole, strict=True):
        assert {n: float(v or -1) for n, v in ours.items()} == pytest.approx(
            {n: float(v or -1) for n, v in theirs.items()}, abs=1e-5
        )
    summed(tmp_path, num_train_epochs=1)
    assert len(rows_of(tmp_path)) == 1  # a fresh run begins anew


def test_images_a_second_are_counted_over_steps_alone(tmp_path, monkeypatch):
    """On a clock that runs only where it is told to: 2 s a step and, not counted, 100 s an evaluation."""
    now = [0.0]
    monkeypatch.setattr(records.time, "perf_counter", lambda: now[0])

    class Timed(InOrder):
        def training_step(self, *args):
            now[0] += 2.0
            return super().training_step(*args)

        def evaluation_loop(self, *args, **kwargs):
            now[0] += 100.0
            return super().evaluation_loop(*args, **kwargs)

    options = {**SHORT, "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 3}
    args = image_arguments(tmp_path, opt="sgd", **options)
    trainer = trainer_of(Tiny(), args, cls=Timed, eval_dataset=images())
    trainer.train()
    assert logged(trainer, "images_per_second") == pytest.approx([2.0] * 6)  # batches of 4
    assert time.perf_counter() == now[0] > 400


def formats_of(model) -> list[bool]:
    """Whether the pixels of each forward are in channels_last."""
    seen: list[bool] = []
    fits = {"memory_format": torch.channels_last}
    model.register_forward_pre_hook(
        lambda module, given, named: seen.append(named["pixel_values"].is_contiguous(**fits)), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("make", [lambda: timm_model("test_resnet"), tiny_vit], ids=["timm", "transformers"])
def test_channels_last_learns_the_same(tmp_path, make):
    """In another memory format from the pixels on, and saved as ever."""
    ends = {}
    for channels_last in (False, True):
        folder = tmp_path / str(channels_last)
        args = image_arguments(
            folder,
            opt="sgd",
            ema_decay=0.5,
            channels_last=channels_last,
            **{**SHORT, "num_train_epochs": 1, "learning_rate": 1e-3},
        )
        size = {"image_size": 16} if make is tiny_vit else {}
        trainer = trainer_of(make(), args, method="cutmix", eval_dataset=images(), **size)
        seen = formats_of(trainer.model)
        trainer.train()
        trainer.evaluate()
        trainer.save_model()
        weights = {n: p for n, p in trainer.model.named_parameters() if p.dim() == 4 and min(p.shape) > 1}
        assert weights
        assert all(p.is_contiguous(memory_format=torch.channels_last) is channels_last for p in weights.values())
        assert any(seen) is channels_last
        assert seen[-1] is channels_last
        ends[channels_last] = trainer.model.state_dict()
    for name, value in ends[False].items():
        torch.testing.assert_close(ends[True][name], value, rtol=1e-4, atol=1e-5)
