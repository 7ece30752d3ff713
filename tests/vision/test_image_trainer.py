"""ImageMixTrainer against hand-written loops and formulas, and its checkpoints in plain timm and transformers."""

from __future__ import annotations

import math
import pickle
import warnings
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import group_parameters
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Subset
from torchvision.datasets import VisionDataset
from transformers import (
    AutoModelForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TrainerCallback,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from helpers.images import (
    IMAGES,
    MEAN,
    STD,
    InOrder,
    Tiny,
    image_arguments,
    images,
    logged,
    pictures,
    tensors,
    timm_model,
    trainer_of,
)
from helpers.models import tiny_vit
from helpers.training import arguments, weights
from hf_logitmix import MixTrainingArguments, get_method
from hf_logitmix.vision.adapters import as_image_set
from hf_logitmix.vision.arguments import ImageMixTrainingArguments
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.models import create_model
from hf_logitmix.vision.trainer import ImageMixTrainer
from hf_logitmix.vision.transforms import Augmentation, AugmentedSet, image_transform

EXTRAS = "hf_logitmix_extras.safetensors"


def wrapper() -> TimmWrapperForImageClassification:
    torch.manual_seed(0)
    return TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_resnet", num_labels=3))


# ---- optimizers and schedules ----------------------------------------------------------------------------------


def loop_by_hand(model: nn.Module, rates: list[float], decay: float = 0.0, each=lambda step: None) -> None:
    """Nesterov's SGD over 16 images in batches of 4, in order."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, nesterov=True, weight_decay=decay)
    model.train()
    for step, rate in enumerate(rates):
        start = step * 4 % 16
        pixels, labels = tensors(images(), range(start, start + 4))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        F.cross_entropy(model(pixels), labels).backward()
        optimizer.step()
        each(step)


def test_nesterov_with_a_step_schedule_equals_a_loop_by_hand(tmp_path):
    """Two epochs of four steps at 0.05, two at 0.01, one at 0.002."""
    rates = [0.05] * 8 + [0.01] * 8 + [0.002] * 4
    by_hand = Tiny()
    loop_by_hand(by_hand, rates, decay=0.01)
    options = {"opt": "sgd", "weight_decay": 0.01, "filter_bias_and_bn": False}
    options |= {"sched": "step", "decay_epochs": 2, "decay_rate": 0.2, "max_steps": -1, "num_train_epochs": 5}
    args = image_arguments(tmp_path, no_aug=True, per_device_train_batch_size=4, **options)
    trainer = trainer_of(Tiny(), args)
    trainer.train()
    assert logged(trainer, "learning_rate") == pytest.approx(rates, rel=1e-9)
    torch.testing.assert_close(weights(trainer.model), weights(by_hand), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_cosine_equals_its_formula(tmp_path, accumulation):
    """Seven steps, of which the first epoch's four warm up; the schedule counts optimizer steps."""
    options = {"sched": "cosine", "warmup_epochs": 1.0, "warmup_lr": 0.001, "min_lr": 0.002, "opt": "momentum"}
    batch = 4 // accumulation
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 7}
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, **options, **sizes))
    trainer.train()
    warm_up = [0.001 + step / 4 * (0.05 - 0.001) for step in range(4)]
    rest = [0.002 + 0.5 * (0.05 - 0.002) * (1 + math.cos(math.pi * step / 7)) for step in range(4, 7)]
    assert logged(trainer, "learning_rate") == pytest.approx(warm_up + rest, rel=1e-6)


def test_an_epoch_whose_last_step_is_not_full_counts_that_step(tmp_path):
    """Four batches in steps of three are two steps, so that an epoch of warm-up is two steps and three epochs six."""
    options = {"sched": "cosine", "warmup_epochs": 1.0, "warmup_lr": 0.001, "opt": "momentum"}
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3, "max_steps": -1, "num_train_epochs": 3}
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, **options, **sizes))
    trainer.train()
    rest = [0.5 * 0.05 * (1 + math.cos(math.pi * step / 6)) for step in range(2, 6)]
    assert logged(trainer, "learning_rate") == pytest.approx([0.001, 0.0255, *rest], rel=1e-6)


def test_multistep_lowers_the_rate_at_milestones(tmp_path):
    options = {"sched": "multistep", "decay_milestones": [1, 2], "max_steps": 10, "per_device_train_batch_size": 4}
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, **options))
    trainer.train()
    expected = [0.05] * 3 + [0.005] * 4 + [0.0005] * 3  # timm's milestones come one step early
    assert logged(trainer, "learning_rate") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sched", [None, "cosine"])
def test_layer_decay_scales_the_rate_of_each_layer(tmp_path, sched):
    options = {"sched": sched, "lr_scheduler_type": None if sched else "constant"}
    model = timm_model("test_vit", img_size=32)
    args = image_arguments(tmp_path, opt="adamw", layer_decay=0.5, weight_decay=0.1, max_steps=3, **options)
    trainer = trainer_of(model, args)
    rates = {}

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            if state.global_step == 1:
                rates.update({id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]})

    trainer.add_callback(Look())
    trainer.train()
    depths = group_parameters(model, model.group_matcher(), reverse=True)
    factor = 0.5 * (1 + math.cos(math.pi / 3)) if sched else 1.0
    assert len(set(depths.values())) > 3
    for name, parameter in model.named_parameters():
        expected = 0.05 * factor * 0.5 ** (max(depths.values()) - depths[name])
        assert rates[id(parameter)] == pytest.approx(expected, rel=1e-6), name
    assert logged(trainer, "learning_rate")[1] == pytest.approx(0.05 * factor, rel=1e-6)


def test_arguments_of_adam_reach_timm(tmp_path):
    options = {"opt": "adamw", "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-5}
    group = trainer_of(Tiny(), image_arguments(tmp_path, **options)).create_optimizer().param_groups[0]
    assert (group["betas"], group["eps"], group["lr"]) == ((0.8, 0.95), 1e-5, 0.05)
    assert "betas" not in trainer_of(Tiny(), image_arguments(tmp_path, opt="lookahead_sgd")).create_optimizer().defaults


# ---- the average -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_equals_a_loop_by_hand(tmp_path, warmup):
    """Evaluation sees the average, training does not, and the model ends with it; statistics of batches too."""
    by_hand, average, losses = Tiny(), {}, []
    pixels, labels = tensors(images())

    def update(step: int) -> None:
        decay = min(0.9, 1 - (step + 1) ** (-2 / 3)) if warmup else 0.9
        for name, value in by_hand.state_dict().items():
            mixed = value if step == 0 or not value.is_floating_point() else torch.lerp(value, average[name], decay)
            average[name] = mixed.clone()
        model = Tiny().eval()
        model.load_state_dict(average)
        losses.append(F.cross_entropy(model(pixels), labels).item())

    loop_by_hand(by_hand, [0.05] * 5, each=update)
    options = {"opt": "sgd", "ema_decay": 0.9, "ema_warmup": warmup, "max_steps": 5, "no_aug": True}
    args = image_arguments(tmp_path, per_device_train_batch_size=4, eval_strategy="steps", eval_steps=1, **options)
    trainer = trainer_of(Tiny(), args, eval_dataset=images())
    trainer.train()
    assert logged(trainer, "eval_loss") == pytest.approx(losses, abs=1e-5)
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, average[name], atol=1e-6, rtol=1e-6)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[-1], abs=1e-5)


@pytest.mark.parametrize("when", ["steps", "no"])
def test_the_average_has_the_first_processs_statistics_of_batches(tmp_path, monkeypatch, when):
    """What a second process, which averages statistics of other images, evaluates with, and ends with."""
    first = {"running_mean": torch.full((4,), 0.3), "running_var": torch.full((4,), 2.0)}
    first["num_batches_tracked"] = torch.tensor(7)

    def from_the_first_process(buffer):
        of_norm = trainer.model.module.norm if trainer._average.ema is None else trainer._average.ema.module.module.norm
        (name,) = [name for name, own in of_norm.named_buffers() if own is buffer]
        return first[name]

    monkeypatch.setattr("hf_logitmix.vision.ema.broadcast", from_the_first_process)
    options = {"opt": "sgd", "ema_decay": 0.5, "max_steps": 2, "eval_strategy": when, "eval_steps": 1}
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, no_aug=True, **options), eval_dataset=images())
    trainer.train()
    alone = Tiny().eval()
    alone.load_state_dict(trainer.model.module.state_dict())
    for name, value in first.items():
        assert torch.equal(alone.norm.get_buffer(name), value)
    pixels, labels = tensors(images())
    loss = F.cross_entropy(alone(pixels), labels).item()
    assert logged(trainer, "eval_loss")[-1:] == pytest.approx([loss] * (when == "steps"), abs=1e-5)


def test_the_best_checkpoints_average_is_loaded(tmp_path):
    options = {"opt": "sgd", "ema_decay": 0.5, "max_steps": 4, "learning_rate": 5.0, "save_only_model": True}
    saving = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    args = image_arguments(tmp_path, load_best_model_at_end=True, **options, **saving)
    trainer = trainer_of(Tiny(), args, eval_dataset=images())
    trainer.train()
    losses = logged(trainer, "eval_loss")
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == f"checkpoint-{1 + losses.index(min(losses))}"
    averaged, raw = load_file(best / "ema.safetensors"), load_file(best / "model.safetensors")
    assert all(torch.equal(value, averaged[name]) for name, value in trainer.model.state_dict().items())
    assert best.name == "checkpoint-1" or not torch.equal(averaged["head.weight"], raw["head.weight"])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), abs=1e-6)


# ---- resume ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("method", "extras"), [("logitmix_p", False), ("sg_mcel", True), ("lamix", True)])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, method, extras):
    """Augmented images, accumulation, a schedule and an average; stopped in the middle of an epoch."""
    options = {"opt": "adamw", "weight_decay": 0.05, "sched": "cosine", "warmup_epochs": 0.5, "ema_decay": 0.8}
    options |= {"padding": 4, "reprob": 0.5, "color_jitter": 0.3, "max_steps": 6}
    sizes = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    saving = {"save_strategy": "steps", "save_steps": 2}

    def train(folder, resume=None):
        args = image_arguments(folder, learning_rate=0.005, **options, **sizes, **saving)
        trainer = trainer_of(timm_model(), args, method, images(20), cls=ImageMixTrainer)
        trainer.train(resume_from_checkpoint=resume)
        return trainer, [logged(trainer, name) for name in ("loss", "learning_rate")]

    whole, log = train(tmp_path / "whole")
    checkpoint = tmp_path / "whole" / "checkpoint-4"  # an epoch has four steps, the last of them of one batch
    for resume in (str(tmp_path / "whole" / "checkpoint-2"), str(checkpoint)):
        resumed, more = train(tmp_path / Path(resume).name, resume=resume)
        assert torch.equal(weights(whole.model), weights(resumed.model))
        assert all(map(torch.equal, whole.model.buffers(), resumed.model.buffers()))
        assert more == log
        names = ["model.safetensors", "ema.safetensors"] + [EXTRAS] * extras
        for name in names:
            ours, theirs = (
                load_file(Path(trainer.args.output_dir) / "checkpoint-6" / name) for trainer in (whole, resumed)
            )
            assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert len(whole.optimizer.param_groups) == 2 + (1 if method == "sg_mcel" else 2 if extras else 0)


def test_workers_see_what_the_main_process_sees(tmp_path):
    """Also workers that live on through epochs."""
    losses = []
    for workers in (0, 2):
        options = {"dataloader_num_workers": workers, "dataloader_persistent_workers": workers > 0}
        args = image_arguments(tmp_path, max_steps=5, per_device_train_batch_size=6, reprob=0.5, **options)
        trainer = trainer_of(Tiny(), args)
        first = trainer.train_dataset[0]["pixel_values"]
        trainer.train()
        losses.append(logged(trainer, "loss"))
        assert not torch.equal(trainer.train_dataset[0]["pixel_values"], first)  # as it is in the second epoch
    assert losses[0] == losses[1]


def test_augmentation_is_drawn_by_epoch_and_number():
    data = AugmentedSet(images(2, 40), image_transform(32, MEAN, STD, is_training=True), seed=3)
    data.images[1] = data.images[0]
    first, state = data[0]["pixel_values"], torch.get_rng_state()
    assert torch.equal(data[0]["pixel_values"], first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(data[1]["pixel_values"], first)
    data.set_epoch(1)
    assert not torch.equal(data[0]["pixel_values"], first)


@pytest.mark.slow
def test_trainer_tells_images_the_epoch(tmp_path):
    """Accelerate does that in one process alone."""
    trainer = trainer_of(Tiny(), image_arguments(tmp_path))
    trainer.train()
    last = trainer.train_dataset[0]["pixel_values"]
    trainer.state.epoch = 7.0
    trainer.callback_handler.on_epoch_begin(trainer.args, trainer.state, trainer.control)
    assert not torch.equal(trainer.train_dataset[0]["pixel_values"], last)


# ---- checkpoints elsewhere -------------------------------------------------------------------------------------


def trained(model, folder, **options) -> ImageMixTrainer:
    saving = {"save_strategy": "steps", "save_steps": 2, "ema_decay": 0.5, "opt": "sgd", "max_steps": 2}
    trainer = trainer_of(model, image_arguments(folder, **saving, **options), "logitmix", eval_dataset=images())
    trainer.train()
    trainer.save_model(str(folder / "final"))
    return trainer


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        output = model.eval()(tensors(images())[0])
    return output if isinstance(output, torch.Tensor) else output.logits


@pytest.mark.parametrize("make", [timm_model, wrapper, lambda: create_model("timm/test_resnet", 3, image_size=32)])
def test_models_of_timm_load_with_timm(tmp_path, make):
    trainer = trained(make(), tmp_path)
    expected = logits_of(trainer.model)
    for file in ("final/model.safetensors", "checkpoint-2/ema.safetensors"):
        loaded = timm.create_model("test_resnet", num_classes=3, checkpoint_path=str(tmp_path / file))
        assert torch.equal(logits_of(loaded), expected)
    raw = timm.create_model(
        "test_resnet", num_classes=3, checkpoint_path=str(tmp_path / "checkpoint-2" / "model.safetensors")
    )
    assert not torch.equal(logits_of(raw), expected)
    again = trainer_of(make(), image_arguments(tmp_path, opt="sgd", ema_decay=0.5, max_steps=2), "logitmix")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))  # which is its end
    assert torch.equal(weights(again.model), weights(trainer.model))


@pytest.mark.parametrize("make", [wrapper, lambda: create_model("timm/test_resnet", 3, image_size=32), tiny_vit])
def test_models_of_transformers_load_with_transformers(tmp_path, make):
    size = 16 if make is tiny_vit else 32
    options = {"save_strategy": "no", "opt": "sgd", "max_steps": 2}
    trainer = trainer_of(make(), image_arguments(tmp_path, **options), "logitmix", images(16, size), image_size=size)
    trainer.train()
    trainer.save_model(str(tmp_path))
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weights(loaded), weights(trainer.model))
    torch.testing.assert_close(loaded.eval()(pixels).logits, trainer.model.eval()(pixels).logits)


# ---- images ----------------------------------------------------------------------------------------------------


def test_evaluation_normalises_and_crops_the_middle():
    data = images(2)
    whole = image_transform(32, MEAN, STD, is_training=False, crop_pct=1.0)
    torch.testing.assert_close(torch.stack([whole(image) for image in data.images]), tensors(data)[0])
    middle = image_transform(28, MEAN, STD, is_training=False, crop_pct=0.875)(data.images[0])
    torch.testing.assert_close(middle, tensors(data)[0][0][:, 2:30, 2:30])
    for args in (Augmentation(padding=4), Augmentation(no_aug=True)):
        same = image_transform(32, MEAN, STD, is_training=False, args=args)(data.images[0])
        torch.testing.assert_close(same, tensors(data)[0][0])


@pytest.mark.parametrize("size", [None, 48, 160])
@pytest.mark.parametrize("make", ["bare", "wrapped"])
def test_evaluation_reads_images_as_timm_does(tmp_path, size, make):
    """At the size that a model without weights was made for (160, of which it keeps 95%) and at others."""
    bare = timm_model()
    model = bare if make == "bare" else create_model("timm/test_resnet", 3, image_size=size)
    given = {"image_size": size} if size and make == "bare" else {}
    trainer = ImageMixTrainer(model, image_arguments(tmp_path), None, images(2, 200), method="vanilla", **given)
    config = timm.data.resolve_data_config({"img_size": size} if size else {}, model=bare)
    assert config["crop_pct"] < 1
    expected = timm.data.create_transform(**config)(images(2, 200).images[0])
    found = trainer.get_test_dataloader(images(2, 200)).dataset[0]["pixel_values"]
    torch.testing.assert_close(found, expected)
    whole = ImageMixTrainer(
        model, image_arguments(tmp_path, no_aug=True), None, images(2, 200), method="vanilla", **given
    )
    expected = timm.data.create_transform(**{**config, "crop_pct": 1.0})(images(2, 200).images[0])
    torch.testing.assert_close(whole.get_test_dataloader(images(2, 200)).dataset[0]["pixel_values"], expected)


def test_padding_crops_a_window_of_the_padded_image():
    data, args = images(1), Augmentation(padding=4, hflip=0.0)
    transform = image_transform(32, MEAN, STD, is_training=True, args=args)
    black = -torch.tensor(MEAN)[:, None, None] / torch.tensor(STD)[:, None, None]
    padded = black.expand(3, 40, 40).clone()
    padded[:, 4:36, 4:36] = tensors(data)[0][0]
    windows = [padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    seen = {
        next(i for i, window in enumerate(windows) if torch.allclose(window, image))
        for image in (transform(data.images[0]) for _ in range(20))
    }
    assert len(seen) > 5


@pytest.mark.parametrize("options", [{}, {"padding": 2}, {"aa": "rand-m9-mstd0.5"}, {"color_jitter": 0.4, "reprob": 1}])
@pytest.mark.parametrize("channels", [1, 3])
def test_transforms_give_the_channels_that_were_asked_for(options, channels):
    transform = image_transform(
        (32, 32), [0.5] * channels, [0.2] * channels, is_training=True, args=Augmentation(**options)
    )
    transform = pickle.loads(pickle.dumps(transform))
    for image in [*pictures(3, 28, 1), *pictures(3, 50), pictures(1)[0].convert("RGBA"), pictures(1)[0].convert("P")]:
        pixels = transform(image)
        assert (pixels.shape, pixels.dtype) == ((channels, 32, 32), torch.float32)


def test_a_grey_model_trains(tmp_path):
    trainer = trainer_of(
        timm_model(in_chans=1), image_arguments(tmp_path), "puzzlemix", images(16, 28, 1), mean=(0.5,), std=(0.3,)
    )
    trainer.train()
    assert trainer.train_dataset[0]["pixel_values"].shape == (1, 32, 32)


def test_a_dataset_of_the_hub_becomes_images(tmp_path):
    """The usual columns, read lazily; several sets to evaluate on, by name and given later."""
    rows = {"image": pictures(9), "label": [0, 1, 2] * 3, "id": list(range(9))}
    kinds = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["a", "b", "c"]),
        "id": datasets.Value("int8"),
    }
    data = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    model = create_model("timm/test_resnet", 3, image_size=32)
    args = image_arguments(tmp_path, eval_strategy="steps", eval_steps=3, per_device_train_batch_size=3)
    trainer = ImageMixTrainer(model, args, None, data, {"one": data, "two": images()}, method="mcel")
    trainer.train()
    assert {"eval_one_loss", "eval_two_loss"} <= {name for entry in trainer.state.log_history for name in entry}
    as_timm = timm.data.create_transform(**timm.data.resolve_data_config({"img_size": 32}, model=timm_model()))
    expected = torch.stack([as_timm(image) for image in rows["image"]])
    with torch.no_grad():
        logits = model.eval()(expected).logits
    for later in (data, as_image_set(data)):
        np.testing.assert_allclose(trainer.predict(later).predictions, logits, atol=1e-5)


def test_images_with_a_transform_pass_untouched(tmp_path):
    pixels, labels = tensors(images())
    rows = [{"pixel_values": image, "labels": int(label)} for image, label in zip(pixels, labels, strict=True)]
    ready = images().with_transform(image_transform(32, MEAN, STD, is_training=False, crop_pct=1.0))
    losses = []
    for data in (rows, ready):
        args = arguments(tmp_path, MixTrainingArguments)
        trainer = InOrder(model=Tiny(), args=args, method="vanilla", train_dataset=data, num_labels=3)
        trainer.train()
        assert trainer.train_dataset is data
        losses.append(logged(trainer, "loss"))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_activation_checkpointing_of_a_bare_model_is_timms_own(tmp_path):
    """The same weights after training, and in between layers that are computed twice."""
    after, calls = [], []
    for again in (False, True):
        model = timm_model("test_vit")
        model.blocks[0].norm1.register_forward_pre_hook(lambda *_: calls.append(1))
        trainer = trainer_of(model, image_arguments(tmp_path, gradient_checkpointing=again))
        calls.clear()
        trainer.train()
        after.append((weights(trainer.model), len(calls)))
    torch.testing.assert_close(after[0][0], after[1][0])
    assert after[1][1] == 2 * after[0][1]
    with pytest.raises(ValueError, match="gradient_checkpointing: Tiny has none"):
        trainer_of(Tiny(), image_arguments(tmp_path, gradient_checkpointing=True)).train()


def test_puzzlemix_on_images_with_a_transform_asks_for_their_statistics(tmp_path):
    """Which it needs for the colours; with them, and without a transform of the user's, there is nothing to say."""
    ready = images().with_transform(image_transform(32, MEAN, STD, is_training=False, crop_pct=1.0))
    with pytest.warns(UserWarning, match="pass mean and std to ImageMixTrainer"):
        trainer_of(Tiny(), arguments(tmp_path, MixTrainingArguments), "puzzlemix", ready, mean=None, std=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        told = trainer_of(Tiny(), arguments(tmp_path, MixTrainingArguments), "puzzlemix", ready)
        own = trainer_of(Tiny(), image_arguments(tmp_path), "puzzlemix")
    assert told.method.mixing.mean == own.method.mixing.mean == tuple(MEAN)


@pytest.mark.parametrize("kind", ["ImageSet", "datasets"])
def test_images_without_labels_are_predicted_and_not_trained_on(tmp_path, kind):
    if kind == "datasets":
        bare = datasets.Dataset.from_dict({"image": pictures(4)}).cast_column("image", datasets.Image())
    else:
        bare = ImageSet(pictures(4))
    trainer = trainer_of(Tiny(), image_arguments(tmp_path), "vanilla")
    found, expected = trainer.predict(bare), trainer.predict(ImageSet(pictures(4), [0] * 4))
    np.testing.assert_allclose(found.predictions, expected.predictions, atol=1e-6)
    assert found.label_ids is None
    part = ImageSet(pictures(4)).select([2])
    np.testing.assert_allclose(trainer.predict(part).predictions, expected.predictions[2:3], atol=1e-6)
    with pytest.raises(ValueError, match=r"no labels|label columns \[\]"):
        trainer_of(Tiny(), image_arguments(tmp_path), "vanilla", bare)


def test_a_model_may_come_from_a_function(tmp_path):
    trainer = ImageMixTrainer(
        model_init=lambda: timm_model(),
        args=image_arguments(tmp_path),
        method="mixup",
        train_dataset=images(),
        **IMAGES,
    )
    trainer.train()
    assert trainer.model.config.num_labels == 3


# ---- what is refused -------------------------------------------------------------------------------------------

WRONG_ARGUMENTS = [
    ({"opt": "sgdd"}, "opt='sgdd'"),
    ({"opt": "sgd", "optim": "sgd"}, "both set"),
    ({"layer_decay": 0.5}, "opt='adamw'"),
    ({"opt": "adamw", "layer_decay": 1.5}, r"layer_decay=1\.5"),
    ({"opt": "sgd", "momentum": 1.0}, r"momentum=1\.0"),
    ({"sched": "plateau"}, "metric_for_best_model"),
    ({"sched": "cos"}, "sched='cos'"),
    ({"sched": "step"}, "decay_epochs=None"),
    ({"sched": "multistep", "decay_milestones": [3, 2]}, r"decay_milestones=\[3, 2\]"),
    ({"sched": "step", "decay_epochs": 1, "decay_rate": 0.0}, r"decay_rate=0\.0"),
    ({"sched": "cosine", "min_lr": -1.0}, r"min_lr=-1\.0"),
    ({"sched": "cosine", "decay_epochs": 2}, "decay_epochs is read by sched=step"),
    ({"warmup_epochs": 2}, "warmup_epochs is read by"),
    ({"sched": "cosine", "lr_scheduler_type": "cosine"}, "lr_scheduler_type"),
    ({"sched": "cosine", "warmup_steps": 5}, "warmup_steps"),
    ({"ema_decay": 1.0}, r"ema_decay=1\.0"),
    ({"ema_warmup": True}, "ema_decay"),
    ({"padding": 4, "scale": [0.5, 1.0]}, "padding=4"),
    ({"padding": -1}, "padding=-1"),
    ({"scale": [1.0, 0.5]}, "scale"),
    ({"hflip": 2.0}, r"hflip=2\.0"),
    ({"color_jitter": -1.0}, "color_jitter"),
    ({"aa": "rand-m9", "color_jitter": 0.4}, "color_jitter"),
    ({"interpolation": "cubic"}, "interpolation='cubic'"),
    ({"crop_pct": 0.0}, "crop_pct"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_ARGUMENTS)
def test_arguments_that_cannot_be_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ImageMixTrainingArguments(str(tmp_path), **options)


def test_new_arguments_are_no_options_of_a_method(tmp_path):
    args = ImageMixTrainingArguments(str(tmp_path), opt="sgd", alpha=0.5, padding=4, report_to="none")
    assert args.method_options() == {"alpha": 0.5}


@pytest.mark.parametrize(
    ("make", "method", "options", "message"),
    [
        (timm_model, "vanilla", {"mean": (0.5,), "std": (0.2,)}, r"cannot read images of shape \[1, 32, 32\]"),
        (tiny_vit, "vanilla", {}, r"cannot read images of shape \[3, 32, 32\]"),
        (timm_model, "vanilla", {"mean": (0.5,)}, "one or three numbers"),
        (timm_model, "vanilla", {"mean": (0.5,), "std": None}, "mean and std go together"),
        (timm_model, "puzzlemix", {"image_size": 33}, "block_num"),
        (timm_model, "vanilla", {"num_labels": 4}, "num_classes=3 and num_labels=4"),
        (Tiny, "vanilla", {"num_labels": None}, "num_classes=None"),
        (Tiny, "vanilla", {"num_labels": 5}, "makes 3 logits and num_labels=5"),
        (Tiny, "vanilla", {"mean": None, "std": None}, "does not tell mean, std"),
        (lambda: timm.create_model("test_resnet", num_classes=2), "vanilla", {}, "label 2"),
    ],
)
def test_what_does_not_fit_is_said_before_training(tmp_path, make, method, options, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(make(), image_arguments(tmp_path), method, **options)


def test_a_block_grid_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(ValueError, match="block_num=5"):
        trainer_of(timm_model(), image_arguments(tmp_path), get_method("puzzlemix", block_num=5))


def test_transforms_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="aa='wild'"):
        image_transform(32, MEAN, STD, is_training=True, args=Augmentation(aa="wild"))
    with pytest.raises(ValueError, match="one or three numbers"):
        image_transform(32, (0.5, 0.5), (0.2, 0.2), is_training=True)
    with pytest.raises(ValueError, match="above 0"):
        image_transform(32, (0.5,), (0.0,), is_training=True)


def test_layer_decay_and_average_need_what_they_read(tmp_path):
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, opt="adamw", layer_decay=0.5))
    with pytest.raises(ValueError, match="group_matcher"):
        trainer.train()
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    trainer_of(Tiny(), image_arguments(tmp_path, **options)).train()
    with pytest.raises(ValueError, match=r"lacks ema\.safetensors"):
        trainer_of(Tiny(), image_arguments(tmp_path, ema_decay=0.5)).train(str(tmp_path / "checkpoint-2"))


def test_columns_that_are_not_clear_are_refused():
    picture = pictures(1)
    two = datasets.Dataset.from_dict({"a": picture, "b": picture, "label": [0]})
    two = two.cast_column("a", datasets.Image()).cast_column("b", datasets.Image())
    with pytest.raises(ValueError, match="image columns"):
        as_image_set(two)
    with pytest.raises(ValueError, match="class_encode_column"):
        as_image_set(
            datasets.Dataset.from_dict({"image": picture, "label": ["cat"]}).cast_column("image", datasets.Image())
        )


# ---- what else may hold images ---------------------------------------------------------------------------------------


class Squares(VisionDataset):
    """As a dataset of torchvision: (PIL image, class), with the classes in ``targets``."""

    targets: ClassVar = [0, 1, 2, 0]

    def __getitem__(self, index):
        image, target = Image.new("RGB", (8, 8), (60 * index,) * 3), self.targets[index]
        return image if self.transform is None else self.transform(image), target

    def __len__(self):
        return 4


def test_datasets_of_torchvision_and_parts_of_them_become_images():
    whole = as_image_set(Squares())
    assert [row["labels"] for row in whole] == [0, 1, 2, 0]
    assert whole.transform is None
    assert whole[2]["pixel_values"].getpixel((0, 0)) == (120, 120, 120)
    part = as_image_set(Subset(Squares(), [3, 1]))
    assert [row["labels"] for row in part] == [0, 1]
    assert part[0]["pixel_values"].getpixel((0, 0)) == (180, 180, 180)
    ready = as_image_set(Squares(transform=lambda image: torch.full((3, 8, 8), image.getpixel((0, 0))[0] / 255)))
    assert torch.equal(ready[1]["pixel_values"], torch.full((3, 8, 8), 60 / 255))


def test_a_stream_of_images_is_refused():
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    stream = datasets.Dataset.from_dict({"image": [Image.new("L", (8, 8))], "label": [0]}, features=features)
    with pytest.raises(ValueError, match="a stream of images, which cannot be read by number"):
        as_image_set(stream.to_iterable_dataset())


def test_training_images_are_evaluated_without_augmentation(tmp_path):
    data = Squares()
    options = {"image_size": 8, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    trainer = ImageMixTrainer(timm_model(), image_arguments(tmp_path), train_dataset=data, method="vanilla", **options)
    rows = [trainer.get_test_dataloader(part).dataset[2]["pixel_values"] for part in (trainer.train_dataset, data)]
    assert torch.equal(rows[0], torch.full((3, 8, 8), 120 / 255))
    assert torch.equal(rows[1], rows[0])


def test_an_image_processor_tells_the_statistics(tmp_path):
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=8, patch_size=4
    )
    config.num_labels = 3
    processor = ViTImageProcessor(image_mean=[0.1] * 3, image_std=[0.3] * 3, size={"height": 8, "width": 8})
    trainer = ImageMixTrainer(
        ViTForImageClassification(config),
        image_arguments(tmp_path),
        train_dataset=Squares(),
        method="vanilla",
        processing_class=processor,
    )
    read = trainer.get_test_dataloader(Squares()).dataset[2]["pixel_values"]
    torch.testing.assert_close(read, torch.full((3, 8, 8), (120 / 255 - 0.1) / 0.3))
