"""Arguments of a run on images: how it trains, and which model on which images."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import IntervalStrategy, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from hf_logitmix.training.command_line import RunDefaults, set_what_is_done
from hf_logitmix.vision.arguments import SCHEDULES, ImageMixTrainingArguments

SHARES = ("val_split", "calibration_split")  # of the training images, held out


@dataclass
class ImageRunArguments(RunDefaults, ImageMixTrainingArguments):
    """`ImageMixTrainingArguments` for runs: as the Mixup paper on CIFAR, evaluated and saved after each epoch.

    What is passed is never replaced: ``optim`` takes the place of timm's sgd, ``lr_scheduler_type`` or
    ``warmup_steps`` that of timm's cosine, ``eval_steps`` and ``save_steps`` that of epochs.

    Raises:
        ValueError: as `ImageMixTrainingArguments`, for steps that no strategy reads, and for ``do_predict``.
    """

    do_train: bool = field(
        default=True, metadata={"help": "Train: done unless --do_eval is passed without it, or --no_do_train."}
    )
    do_eval: bool = field(default=True, metadata={"help": "Evaluate on the test images; --no_do_eval to leave it out."})
    per_device_train_batch_size: int = field(default=128, metadata={"help": "Training batch on each device."})
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "Evaluation batch on each device."})
    learning_rate: float = field(default=0.1, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(
        default=1e-4, metadata={"help": "Weight decay, not of biases and normalisation layers."}
    )
    num_train_epochs: float = field(default=200, metadata={"help": "Epochs."})
    max_grad_norm: float = field(
        default=0.0, metadata={"help": "Clip gradients at this norm; 0 is no clipping, as in timm and the papers."}
    )
    opt: str | None = field(
        default=None, metadata={"help": "timm's optimizer: sgd, with Nesterov's momentum, unless --optim is passed."}
    )
    sched: str | None = field(
        default=None,
        metadata={
            "help": f"timm's schedule, {', '.join(SCHEDULES)}: cosine, unless --lr_scheduler_type is passed, or "
            "--warmup_steps, which goes with Trainer's cosine."
        },
    )
    eval_strategy: IntervalStrategy | str | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "When to evaluate: epoch, steps (with --eval_steps) or no. [epoch]"}
    )
    save_strategy: SaveStrategy | str | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "When to save: epoch, steps (with --save_steps), best or no. [epoch]"}
    )
    save_steps: float | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Steps between two checkpoints."}
    )
    save_total_limit: int | None = field(
        default=3,
        metadata={
            "help": "Checkpoints that are kept: the last ones, and with --metric_for_best_model the best among them; 0 "
            "keeps all."
        },
    )
    dataloader_drop_last: bool = field(
        default=True, metadata={"help": "Leave out images that do not fill a training batch; evaluation sees all."}
    )
    snapshots: int = field(
        default=0,
        metadata={"help": "Keep at each evaluation what the last layer makes of N training images, for figures."},
    )
    snapshot_draws: int = field(
        default=0, metadata={"help": "With snapshots: and the logits under so many augmentations of each image."}
    )

    def __post_init__(self) -> None:
        set_what_is_done(self)
        if self.do_predict:
            raise ValueError(
                "do_predict is for data without labels, and these images have them: pass --do_eval, which leaves the "
                "logits in eval_logits.npz."
            )
        if self.snapshot_draws and not self.snapshots:
            raise ValueError(f"snapshot_draws={self.snapshot_draws} are of snapshots: pass --snapshots too.")
        if self.opt is None and self.optim is None:
            self.opt = "sgd"
        if self.sched is None and self.lr_scheduler_type is None:
            if self.warmup_steps:  # timm's counts its warm-up in epochs
                self.lr_scheduler_type = "cosine"
            else:
                self.sched = "cosine"
        for name in ("eval", "save"):
            strategy, steps = getattr(self, f"{name}_strategy"), getattr(self, f"{name}_steps")
            is_wanted = name == "save" or self.do_eval
            if strategy is None:
                strategy = "steps" if steps is not None else "epoch" if is_wanted else "no"
                setattr(self, f"{name}_strategy", strategy)
            if strategy != "steps" and steps is not None:
                raise ValueError(f"{name}_steps={steps} is read by {name}_strategy='steps' alone: leave one out.")
            if strategy != "no" and not is_wanted:
                raise ValueError("do_eval=False and an eval_strategy or eval_steps exclude each other: leave one out.")
        if self.save_strategy == "steps" and self.save_steps is None:
            self.save_steps = TrainingArguments.save_steps
        super().__post_init__()


@dataclass
class ImageArguments:
    """Which model, which images."""

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "mnist, fashion_mnist, svhn, cifar10, cifar100, tiny-imagenet, imagenet-1k, a Hub name, a folder "
            "with idx files or with train/CLASS/*.png and test/CLASS/*.png, a .parquet of images or a .csv of paths, a "
            "folder of those or of save_to_disk, or synthetic."
        },
    )
    image_column: str | None = field(
        default=None,
        metadata={"help": "Column of the images or their paths, of a Hub name or tables; found if left out."},
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "Column of the labels, alike. [the ClassLabel, or label, labels, target or score]"},
    )
    model: str | None = field(
        default=None,
        metadata={
            "help": "timm/ARCHITECTURE (timm/small_* for 32 and 64 pixels), or an image classifier of transformers."
        },
    )
    pretrained: bool = field(default=False, metadata={"help": "Start from the weights that timm has on the Hub."})
    drop_path: float | None = field(
        default=None, metadata={"help": "Rate of stochastic depth of a model of timm: drop_path_rate of model_kwargs."}
    )
    model_kwargs: list[str] | None = field(
        default=None,
        metadata={"help": "More arguments of timm.create_model: drop_rate=0.1 global_pool=avg, or one JSON object."},
    )
    image_size: int | None = field(default=None, metadata={"help": "Side of the images; None is the dataset's own."})
    channels: int | None = field(
        default=None, metadata={"help": "1 makes images grey, 3 makes them RGB; None is the dataset's own."}
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on N images, drawn with --subset_seed, with each class's share kept."}
    )
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on N images, drawn alike."})
    val_split: float = field(
        default=0.0,
        metadata={
            "help": "Hold out this share of the training images, drawn alike, to evaluate during training and to "
            "choose a checkpoint on (--load_best_model_at_end); the test images are for the figures alone. Where there "
            "are none, the figures are of these."
        },
    )
    calibration_split: float = field(
        default=0.0,
        metadata={
            "help": "Hold out this share of the training images (of those that val_split leaves), drawn alike, to fit "
            "the temperature on that the saved model keeps; without it those of val_split serve."
        },
    )
    subset_seed: int = field(
        default=0, metadata={"help": "Of max_train_samples, max_eval_samples, val_split and calibration_split."}
    )
    check_images: bool = field(
        default=True,
        metadata={
            "help": "Open every image to evaluate on before training, so that a damaged one ends the run at once; "
            "--no_check_images to leave it out."
        },
    )
    label_noise: float = field(
        default=0.0, metadata={"help": "Change the labels of this share of the training images; all others stay clean."}
    )
    label_noise_kind: str = field(
        default="uniform", metadata={"help": "uniform (any other class) or pairwise (swap inside pairs of classes)."}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run model code that comes with the weights."})
    demo: bool = field(
        default=False,
        metadata={"help": "Offline demo on synthetic images; of the other arguments it takes output_dir and seed."},
    )


def model_kwargs(images: ImageArguments) -> dict[str, Any]:
    """What ``timm.create_model`` is told besides, of both options."""
    found = keyword_arguments(images.model_kwargs or [])
    if images.drop_path is None:
        return found
    if "drop_path_rate" in found:
        raise ValueError(
            f"drop_path={images.drop_path} and drop_path_rate={found['drop_path_rate']} of model_kwargs are the same: "
            "pass one of them."
        )
    if not 0 <= images.drop_path < 1:
        raise ValueError(f"drop_path={images.drop_path} is outside [0, 1): pass one such as 0.1.")
    return {**found, "drop_path_rate": images.drop_path}


def keyword_arguments(words: Sequence[str], argument: str = "model_kwargs") -> dict[str, Any]:
    """Arguments as on a command line: one JSON object, or ``key=value`` pairs with values as Python writes them.

    Raises:
        ValueError: for anything else.
    """
    text = " ".join(words).strip()
    if text.startswith("{"):
        try:
            return dict(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{argument}={text!r} is no JSON object ({error}).") from error
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key.isidentifier() and equals):
            raise ValueError(f"{argument}: {word!r} is no pair: pass them as drop_rate=0.1, or all as one JSON object.")
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found
