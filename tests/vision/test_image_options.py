"""Options of images: what is passed is done and never replaced, and what nobody would read is refused."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import HfArgumentParser, TrainingArguments

from helpers.images import MEAN, STD, InOrder, Tiny, image_arguments, images, logged, pictures, timm_model, trainer_of
from hf_logitmix.vision.arguments import ImageMixTrainingArguments
from hf_logitmix.vision.train import ImageRunArguments
from hf_logitmix.vision.transforms import Augmentation, AugmentedSet, image_transform

QUIET = {"use_cpu": True, "disable_tqdm": True, "logging_strategy": "steps", "logging_steps": 1, "report_to": "none"}


def run_arguments(folder, **options) -> ImageRunArguments:
    fixed = {"output_dir": str(folder), "per_device_train_batch_size": 4, "save_strategy": "no"}
    if "eval_steps" not in options:
        fixed["eval_strategy"] = "no"
    return ImageRunArguments(**{**QUIET, **fixed, **options})


def by_command(cls, folder, **options):
    """The same options on a command line."""
    words = [f"--output_dir={folder}", "--use_cpu=True", *(f"--{name}={value}" for name, value in options.items())]
    return HfArgumentParser(cls).parse_args_into_dataclasses(words)[0]


def optimizer_of(args) -> torch.optim.Optimizer:
    return trainer_of(Tiny(), args, eval_dataset=images()).create_optimizer()


# ---- what is passed is done ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ImageRunArguments, by_command])
def test_an_optimizer_of_trainers_is_taken_at_its_default_too(tmp_path, make):
    """In Python, and on a command line, where the parser passes a value for every field."""
    options = {"optim": TrainingArguments.optim}
    args = by_command(ImageRunArguments, tmp_path, **options) if make is by_command else make(str(tmp_path), **options)
    assert type(optimizer_of(args)) is torch.optim.AdamW
    assert type(optimizer_of(run_arguments(tmp_path))) is torch.optim.SGD


@pytest.mark.parametrize("steps", [0, 2])
def test_a_schedule_of_trainers_is_taken_at_its_default_too(tmp_path, steps):
    """Four steps down a line, after as many of warm-up as were asked for."""
    args = run_arguments(tmp_path, lr_scheduler_type="linear", warmup_steps=steps, max_steps=4, learning_rate=0.1)
    trainer = trainer_of(Tiny(), args)
    trainer.train()
    by_hand = [0.1 * (step / steps if step < steps else (4 - step) / (4 - steps)) for step in range(4)]
    assert logged(trainer, "learning_rate") == pytest.approx(by_hand)


def test_steps_of_warm_up_alone_keep_the_cosine_of_a_run(tmp_path):
    trainer = trainer_of(Tiny(), run_arguments(tmp_path, warmup_steps=2, max_steps=6, learning_rate=0.1))
    trainer.train()
    by_hand = [0.0, 0.05, *(0.05 * (1 + np.cos(np.pi * step / 4)) for step in range(4))]
    assert logged(trainer, "learning_rate") == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("options", "group"),
    [  # at the defaults of TrainingArguments, which are not timm's for these optimizers
        ({"opt": "lion", "adam_beta1": 0.9, "adam_beta2": 0.999}, {"betas": (0.9, 0.999)}),
        ({"opt": "lion"}, {"betas": (0.9, 0.99)}),
        ({"opt": "lamb", "adam_epsilon": 1e-8}, {"eps": 1e-8}),
        ({"opt": "lamb"}, {"eps": 1e-6}),
        ({"opt": "sgd", "momentum": 0.5}, {"momentum": 0.5, "nesterov": True}),
        ({"opt": "sgd"}, {"momentum": 0.9}),
        ({"opt": "momentum", "momentum": 0.0}, {"momentum": 0.0, "nesterov": False}),
    ],
)
def test_what_is_passed_reaches_timms_optimizer_and_the_rest_is_timms(tmp_path, options, group):
    found = optimizer_of(image_arguments(tmp_path, **options)).param_groups[0]
    assert {name: found[name] for name in group} == group


@pytest.mark.parametrize("decays", [True, False])
def test_biases_decay_if_that_is_asked_for(tmp_path, decays):
    options = {"opt": "sgd", "weight_decay": 0.1} | ({"filter_bias_and_bn": False} if decays else {})
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, **options))
    decay = {id(p): g["weight_decay"] for g in trainer.create_optimizer().param_groups for p in g["params"]}
    model = trainer.model.module
    assert [decay[id(p)] for p in (model.head.weight, model.head.bias, model.norm.weight)] == [0.1, *[0.1 * decays] * 2]


STRATEGIES = [  # what was asked for; when it is evaluated and saved, and after how many steps
    ({}, ("epoch", "epoch", None)),
    ({"save_strategy": "no"}, ("epoch", "no", None)),
    ({"eval_strategy": "no"}, ("no", "epoch", None)),
    ({"do_eval": False}, ("no", "epoch", None)),
    ({"save_steps": 7}, ("epoch", "steps", 7)),
    ({"eval_steps": 7}, ("steps", "epoch", None)),
    ({"save_strategy": "steps"}, ("epoch", "steps", 500)),
]


@pytest.mark.parametrize(("options", "strategies"), STRATEGIES)
@pytest.mark.parametrize("make", ["python", "command line"])
def test_a_run_is_evaluated_and_saved_as_asked(tmp_path, options, strategies, make):
    if make == "python":
        args = ImageRunArguments(output_dir=str(tmp_path), use_cpu=True, **options)
    else:
        args = by_command(ImageRunArguments, tmp_path, **options)
    assert (args.eval_strategy, args.save_strategy, args.save_steps) == strategies
    assert {name: getattr(args, name) for name in options} == options


COPIED = [
    {},
    {"optim": TrainingArguments.optim},
    {"optim": "sgd", "lr_scheduler_type": "linear"},
    {"opt": "adamw", "sched": "step", "decay_epochs": 3.0},
    {"opt": "adamw", "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8},
    {"lr_scheduler_type": "cosine", "warmup_steps": 5},
    {"opt": "sgd", "momentum": 0.9, "filter_bias_and_bn": True},
    {"hflip": 0.5},
    {"no_aug": True},
]
COPIES = {
    "replace": dataclasses.replace,
    "to_dict": lambda args: type(args)(**args.to_dict()),
    "parse_dict": lambda args: HfArgumentParser(type(args)).parse_dict(args.to_dict())[0],
    "pickle": lambda args: pickle.loads(pickle.dumps(args)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("cls", [ImageRunArguments, ImageMixTrainingArguments])
def test_a_copy_trains_as_the_original(tmp_path, cls, how):
    cases = COPIED + ([options for options, _ in STRATEGIES] if cls is ImageRunArguments else [])
    for options in cases:
        args = cls(output_dir=str(tmp_path), use_cpu=True, **options)
        once, twice = COPIES[how](args), COPIES[how](COPIES[how](args))
        for field in dataclasses.fields(args):
            if field.init and field.name not in ("hub_token", "push_to_hub_token", "accelerator_config"):
                values = [getattr(each, field.name) for each in (args, once, twice)]
                assert values[0] == values[1] == values[2], (options, field.name)
        assert type(optimizer_of(once)) is type(optimizer_of(args))


def test_a_copy_may_change_what_was_not_passed(tmp_path):
    args = dataclasses.replace(ImageRunArguments(str(tmp_path), use_cpu=True), opt=None, optim="adafactor", seed=7)
    assert type(optimizer_of(args)).__name__ == "Adafactor"
    with pytest.raises(ValueError, match=r"opt='sgd' and optim='adafactor' are both set: .*optim=None .* opt=None"):
        dataclasses.replace(ImageRunArguments(str(tmp_path), use_cpu=True), optim="adafactor")


def searched(folder, drawn) -> InOrder:
    """After a search whose only trial draws this."""
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    args = image_arguments(folder, opt="sgd", sched="cosine", max_steps=1)
    trainer = trainer_of(None, args, model_init=lambda trial: timm_model(), eval_dataset=images())
    trainer.hyperparameter_search(lambda trial: drawn, n_trials=1, backend="optuna")
    return trainer


@pytest.mark.parametrize("drawn", [{"optim": "adamw_torch"}, {"lr_scheduler_type": "linear"}, {"momentum": 1.5}])
def test_what_a_search_draws_is_read_and_possible(tmp_path, drawn):
    with pytest.raises(ValueError, match=next(iter(drawn))):
        searched(tmp_path, drawn)


def test_a_search_over_options_of_timm_trains_what_it_draws(tmp_path):
    assert searched(tmp_path, {"momentum": 0.3}).optimizer.param_groups[0]["momentum"] == 0.3


def test_augmentation_follows_the_arguments(tmp_path):
    """Of each training, as a search changes them: whole images, and a corner of them, which evaluation crops too."""
    args = image_arguments(tmp_path, no_aug=True, max_steps=1)
    trainer = trainer_of(Tiny(), args, data=images(8), eval_dataset=images(8))
    whole = trainer.train_dataset[0]["pixel_values"]
    args.no_aug, args.scale, args.hflip, args.crop_pct = False, [0.1, 0.2], 0.0, 0.5
    trainer.train()
    transform = image_transform(32, MEAN, STD, is_training=True, args=Augmentation(scale=[0.1, 0.2], hflip=0.0))
    assert not torch.equal(trainer.train_dataset[0]["pixel_values"], whole)
    by_hand = AugmentedSet(images(8), transform, args.seed)
    assert torch.equal(trainer.train_dataset[0]["pixel_values"], by_hand[0]["pixel_values"])
    middle = image_transform(32, MEAN, STD, is_training=False, crop_pct=0.5)(images(8).images[0])
    assert torch.equal(trainer.eval_dataset[0]["pixel_values"], middle)


def test_images_may_be_changed_between_two_trainings(tmp_path):
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, no_aug=True, max_steps=1), data=images(8))
    trainer.train()
    trainer.train_dataset = images(24)
    trainer.train()
    assert len(trainer.train_dataset) == 24
    expected = image_transform(32, MEAN, STD, is_training=False, crop_pct=1.0)(images(24).images[0])
    assert torch.equal(trainer.train_dataset[0]["pixel_values"], expected)


def test_the_card_of_trainers_names_the_schedule_that_was_used(tmp_path):
    trainer = trainer_of(Tiny(), image_arguments(tmp_path, opt="sgd", sched="step", decay_epochs=1))
    trainer.train()
    trainer.create_model_card()
    text = (tmp_path / "README.md").read_text()
    assert "* sched: step\n* decay_epochs: 1\n" in text
    assert "lr_scheduler_type" not in text
    assert "adamw" not in text
    assert trainer.args.lr_scheduler_type is None


# ---- what nobody would read ------------------------------------------------------------------------------------------

UNREAD = [
    ({"opt": "sgd", "optim": TrainingArguments.optim}, "opt='sgd' and optim="),
    ({"sched": "cosine", "lr_scheduler_type": "linear"}, "sched='cosine' and lr_scheduler_type='linear'"),
    ({"sched": "cosine", "lr_scheduler_kwargs": {"num_cycles": 2}}, "lr_scheduler_kwargs"),
    ({"opt": "sgd", "optim_args": "a=1"}, "optim_args"),
    ({"momentum": 0.9}, r"momentum=0\.9 goes with timm's optimizers"),
    ({"filter_bias_and_bn": True}, "filter_bias_and_bn=True goes with"),
    ({"opt": "adamw", "momentum": 0.9}, r"momentum=0\.9 is not read by opt='adamw'"),
    ({"opt": "sgd", "adam_beta1": 0.9, "adam_beta2": 0.999}, r"adam_beta1=0\.9 is not read by opt='sgd'"),
    ({"opt": "adan", "adam_beta1": 0.9, "adam_beta2": 0.999}, "adam_beta1"),  # which has three
    ({"opt": "sgd", "adam_epsilon": 1e-8}, "adam_epsilon"),
    ({"opt": "lion", "adam_beta2": 0.999}, "adam_beta1=None and adam_beta2=0.999 go together"),
    ({"opt": "sgd", "momentum": 0.0}, "opt='momentum'"),
    ({"opt": "look_sgd"}, "opt='look_sgd'"),
    ({"sched": "cosine", "decay_rate": 0.1}, "decay_rate is read by sched=step or multistep"),
    ({"sched": "step", "decay_epochs": 1, "min_lr": 0.0}, "min_lr is read by sched=cosine"),
    ({"warmup_lr": 1e-5}, "warmup_lr is read by"),
    ({"no_aug": True, "aa": "rand-m9"}, "no_aug=True .*aa=rand-m9"),
    ({"no_aug": True, "reprob": 0.2}, r"reprob=0\.2"),
    ({"no_aug": True, "scale": [0.5, 1.0]}, "scale"),
    ({"no_aug": True, "ratio": [0.5, 2.0]}, "ratio"),
    ({"no_aug": True, "padding": 2}, "padding=2"),
    ({"no_aug": True, "hflip": 0.5}, r"hflip=0\.5"),
    ({"no_aug": True, "vflip": 0.5}, "vflip"),
    ({"no_aug": True, "color_jitter": 0.4}, "color_jitter"),
    ({"no_aug": True, "interpolation": "random"}, "interpolation=random"),
    ({"padding": 2, "interpolation": "random"}, "interpolation='random'"),
]


@pytest.mark.parametrize(("options", "message"), UNREAD)
def test_options_that_nobody_reads_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        ImageMixTrainingArguments(str(tmp_path), use_cpu=True, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"no_aug": True, "hflip": 0.0, "vflip": 0.0, "reprob": 0.0, "crop_pct": 0.9, "interpolation": "bicubic"},
        {"sched": "cosine", "warmup_steps": 0, "lr_scheduler_kwargs": None},
        {"opt": "lookahead_sgd", "momentum": 0.9},
    ],
)
def test_options_that_ask_for_what_is_done_pass(tmp_path, options):
    args = ImageMixTrainingArguments(str(tmp_path), use_cpu=True, **options)
    assert {name: getattr(args, name) for name in options} == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_strategy": "epoch", "save_steps": 500}, "save_steps=500 is read by save_strategy='steps' alone"),
        ({"eval_strategy": "no", "eval_steps": 5}, "eval_steps=5 is read by eval_strategy='steps' alone"),
        ({"do_eval": False, "eval_strategy": "epoch"}, "do_eval=False"),
        ({"do_eval": False, "eval_steps": 5}, "do_eval=False"),
        ({"optim": "adamw_torch", "momentum": 0.9}, "momentum"),
        ({"lr_scheduler_type": "linear", "min_lr": 0.0}, "min_lr"),
    ],
)
def test_a_run_refuses_what_its_choices_leave_unread(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ImageRunArguments(str(tmp_path), use_cpu=True, **options)


@pytest.mark.parametrize("option", [{"aa": "rand-m9"}, {"padding": 2}, {"hflip": 0.5}])
def test_augmentation_of_images_that_come_with_a_transform_is_refused(tmp_path, option):
    ready = images().with_transform(image_transform(32, MEAN, STD, is_training=False))
    with pytest.raises(ValueError, match=f"nobody would read {next(iter(option))}=.*without a transform"):
        trainer_of(Tiny(), image_arguments(tmp_path, **option), data=ready)
    for fits in ({"crop_pct": 0.9}, {"no_aug": True}):  # evaluation reads it; nothing is augmented
        trainer_of(Tiny(), image_arguments(tmp_path, **fits), data=ready)


@pytest.mark.parametrize("size", [32, (24, 40)])
@pytest.mark.parametrize("crop_pct", [None, 0.8])
def test_without_augmentation_training_sees_what_evaluation_sees(size, crop_pct):
    args, (image,) = Augmentation(no_aug=True, crop_pct=crop_pct), pictures(1, 50)
    training, evaluation = (
        image_transform(size, MEAN, STD, is_training=is_training, args=args, crop_pct=0.5)(image)
        for is_training in (True, False)
    )
    assert torch.equal(training, evaluation)
    own = image_transform(size, MEAN, STD, is_training=False, crop_pct=crop_pct or 1.0)(image)
    assert torch.equal(evaluation, own)


def test_interpolation_at_random_is_for_training_and_evaluation_takes_the_models():
    (image,) = pictures(1, 50)
    args = Augmentation(interpolation="random", scale=[1.0, 1.0], ratio=[1.0, 1.0], hflip=0.0)
    training = image_transform(32, MEAN, STD, is_training=True, args=args)
    assert len({training(image).sum().item() for _ in range(20)}) == 2  # timm draws bilinear or bicubic
    options = {"is_training": False, "interpolation": "bicubic", "crop_pct": 1.0}
    found, own = (image_transform(32, MEAN, STD, args=args, **options)(image) for args in (args, None))
    assert torch.equal(found, own)


# ---- what a run keeps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [None, "loss"])
def test_a_run_is_evaluated_each_epoch_and_keeps_the_last_checkpoints_and_the_best(tmp_path, metric):
    """The highest loss is taken for the best one here, so that the best comes early."""
    options = {"metric_for_best_model": metric, "greater_is_better": True} if metric else {}
    args = ImageRunArguments(
        str(tmp_path), num_train_epochs=6, per_device_train_batch_size=8, learning_rate=0.05, **QUIET, **options
    )
    trainer = trainer_of(Tiny(), args, eval_dataset=images())
    trainer.train()
    losses = logged(trainer, "eval_loss")
    assert len(losses) == 6
    kept = sorted(int(path.name.split("-")[1]) for path in Path(tmp_path).glob("checkpoint-*"))
    best = 2 * (1 + int(np.argmax(losses)))
    assert best <= 6
    assert kept == (sorted({best, 10, 12}) if metric else [8, 10, 12])
