"""The last batch of an epoch, beside accelerate's own cutting of batches and BatchNorm's own refusal."""

from __future__ import annotations

import itertools
import logging
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderDispatcher
from torch import nn
from torch.utils.data import BatchSampler, SequentialSampler

from helpers.data import examples
from helpers.images import Tiny, image_arguments, images, timm_model, trainer_of
from helpers.models import tiny_bert
from helpers.training import InOrder as InOrderOnText
from helpers.training import arguments
from hf_logitmix.training.last_batch import batches_of
from hf_logitmix.vision.train import ImageRunArguments

# ---- how examples are cut --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("even_batches", [False, True])
@pytest.mark.parametrize("split_batches", [False, True])
def test_batches_are_those_that_accelerate_makes(processes, drop_last, even_batches, split_batches):
    sizes = (3, 6) if split_batches and processes > 1 else (1, 2, 3, 4)
    for size in (size for size in sizes if not split_batches or size % processes == 0):
        for count in range(1, 30):
            sampler = BatchSampler(SequentialSampler(range(count)), size, drop_last)
            each = [sampler]
            if processes > 1:
                each = [
                    BatchSamplerShard(sampler, processes, rank, split_batches, even_batches)
                    for rank in range(processes)
                ]
            batches = [batch for part in each for batch in part]
            found = batches_of(
                *(count, size, processes), drop_last=drop_last, even_batches=even_batches, split_batches=split_batches
            )
            assert found.smallest == min(map(len, batches), default=0), (count, size)
            assert found.left_out == count - len({number for batch in batches for number in batch}), (count, size)


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_batches_that_one_process_reads_for_all_are_those_that_accelerate_makes(processes, drop_last, size):
    """The first process's part, which is as large as the others'."""
    for count in range(processes * size, 30):
        options = {"batch_size": size, "drop_last": drop_last, "_drop_last": drop_last}
        loader = DataLoaderDispatcher(torch.arange(count), **options)
        loader.state = SimpleNamespace(process_index=0, num_processes=processes, device="cpu")
        sizes = [len(batch) for batch in loader]
        found = batches_of(count, size, processes, drop_last=drop_last, dispatch_batches=True)
        assert found.smallest == min(sizes), count
        assert found.left_out == (count - processes * sum(sizes) if drop_last else 0), count


# ---- what is left out ------------------------------------------------------------------------------------------------


def left_out(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "hf_logitmix.training.last_batch"]


def test_a_run_leaves_out_what_does_not_fill_a_batch_and_says_so_once(tmp_path, caplog):
    """16 images in batches of 3."""
    options = {"num_train_epochs": 2, "per_device_train_batch_size": 3, "use_cpu": True, "disable_tqdm": True}
    args = ImageRunArguments(str(tmp_path), eval_strategy="no", save_strategy="no", **options)
    trainer = trainer_of(Tiny(), args)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert trainer.state.global_step == 10
    (line,) = left_out(caplog)
    assert line.startswith("1 of 16 training examples")


def test_nothing_is_said_where_nothing_is_left_out(tmp_path, caplog):
    for options in ({"dataloader_drop_last": True}, {"per_device_train_batch_size": 6}):
        trainer_of(Tiny(), image_arguments(tmp_path, **options)).train()
    assert left_out(caplog) == []


@pytest.mark.parametrize("accumulation", [1, 4])
def test_leaving_out_everything_is_refused(tmp_path, accumulation):
    options = {"per_device_train_batch_size": 17, "gradient_accumulation_steps": accumulation}
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, dataloader_drop_last=True, **options))
    with pytest.raises(ValueError, match=r"16 examples, fewer than a batch of 17.*per_device_train_batch_size=16"):
        trainer.train()
    options["per_device_train_batch_size"] = 16
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, dataloader_drop_last=True, **options))
    trainer.train()
    assert trainer.state.global_step == 3


@pytest.mark.parametrize("kind", ["images", "text"])
def test_evaluation_sees_every_example(tmp_path, kind):
    options = {"dataloader_drop_last": True, "per_device_eval_batch_size": 4, "max_steps": 1}
    if kind == "images":
        trainer = trainer_of(Tiny(), image_arguments(tmp_path, **options), eval_dataset=images(10))
    else:
        data = examples(10)
        args = arguments(tmp_path, **options)
        trainer = InOrderOnText(tiny_bert(), args, method="mixup", train_dataset=data, eval_dataset=data)
    trainer.train()
    assert len(trainer.predict(trainer.eval_dataset).predictions) == 10
    whole = trainer.evaluate()["eval_loss"]
    trainer.args.dataloader_drop_last = False
    assert trainer.evaluate()["eval_loss"] == whole
    trainer.args.dataloader_drop_last = True
    assert len(trainer.get_train_dataloader()) == len(trainer.train_dataset) // 8


# ---- a batch of one --------------------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """Normalises one value a channel and image, which one image has no statistics of."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(pixels).relu().mean((2, 3))))


def test_batch_normalisation_itself_refuses_one_value():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        Pooled()(torch.randn(1, 3, 32, 32))
    Tiny()(torch.randn(1, 3, 32, 32))


BATCHES = [{"per_device_train_batch_size": 5}, {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4}]


@pytest.mark.parametrize(
    ("options", "method"),
    [
        *itertools.product(BATCHES, ["vanilla", "mixup", "logitmix"]),
        ({"per_device_train_batch_size": 1}, "vanilla"),
    ],
)
def test_one_image_without_statistics_is_refused_before_training(tmp_path, options, method):
    trainer = trainer_of(Pooled(), image_arguments(tmp_path, **options), method, num_labels=3)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    drops = options["per_device_train_batch_size"] > 1
    fix = "dataloader_drop_last=True, or another" if drops else "pass another"
    with pytest.raises(ValueError, match=rf"one example, of which module\.norm .*{fix} per_device_train_batch_size"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in trainer.model.modules())
    if drops:
        trainer.args.dataloader_drop_last = True
        trainer.train()
        assert trainer.state.global_step == 3


@pytest.mark.parametrize("options", BATCHES)
def test_the_statistics_of_one_image_are_a_warning(tmp_path, options):
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, **options))
    with pytest.warns(UserWarning, match=r"BatchNorm2d .* from it alone: pass dataloader_drop_last=True"):
        trainer.train()


def test_looking_at_one_image_changes_nothing(tmp_path):
    """The log of a run with that look, and of one without."""
    losses = []
    for looks in (True, False):
        trainer = trainer_of(Tiny(), image_arguments(tmp_path, per_device_train_batch_size=5, max_steps=6), "mixup")
        if not looks:
            trainer._check_statistics_of_one = lambda size: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", ["layer normalisation", "group normalisation", "whole batches"])
def test_there_is_nothing_to_say(tmp_path, kind):
    model, known = Pooled(), {"num_labels": 3}
    if kind == "layer normalisation":
        model, known = timm_model("test_vit", img_size=32), {}
    elif kind == "group normalisation":
        model.norm = nn.GroupNorm(1, 4)
    args = image_arguments(tmp_path, per_device_train_batch_size=4 if kind == "whole batches" else 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer_of(model, args, **known).train()


def test_lengths_that_are_not_known_are_left_alone(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from examples(9)

    args = arguments(tmp_path, max_steps=2, dataloader_drop_last=True)
    trainer = InOrderOnText(tiny_bert(), args, method="mixup", train_dataset=Stream())
    trainer._get_train_sampler = lambda *_: None
    trainer.train()
    assert np.isfinite(trainer.state.log_history[0]["loss"])
