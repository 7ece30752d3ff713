"""Train an image classifier with any method of hf_logitmix.

hf-logitmix images --demo
hf-logitmix images --dataset cifar10 --model timm/small_resnet18 --method logitmix_c --output_dir out
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from tqdm.auto import tqdm
from transformers import AutoConfig, IntervalStrategy, TrainingArguments, set_seed
from transformers.trainer_utils import SaveStrategy

from hf_logitmix import METHODS
from hf_logitmix.analysis.snapshots import Snapshots, spread
from hf_logitmix.calibration.metrics import watched_metrics
from hf_logitmix.commands.arguments import ArgumentsParser
from hf_logitmix.commands.main import main as start
from hf_logitmix.models import loading, public_name
from hf_logitmix.soft_labels import classes_of
from hf_logitmix.training.checkpoints import last_complete_checkpoint
from hf_logitmix.training.command_line import (
    check_what_is_done,
    checkpoint_to_resume,
    diagram_of,
    keep_other_runs,
    report,
    set_what_is_done,
    side_by_side,
)
from hf_logitmix.training.runs import N_BINS, Run, RunMixin, calibration
from hf_logitmix.training.splits import HELD_OUT, chooses, hold_out
from hf_logitmix.vision.arguments import SCHEDULES, ImageMixTrainingArguments
from hf_logitmix.vision.data import SYNTHETIC, ImageData, load_images, subset, with_label_noise
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.models import (
    EXAMPLE,
    create_model,
    image_processor,
    input_config,
    keyword_arguments,
    of_channels,
)
from hf_logitmix.vision.records import SummaryMixin
from hf_logitmix.vision.timm_names import translate
from hf_logitmix.vision.trainer import ImageMixTrainer

logger = logging.getLogger(__name__)

DEMO_METHODS = ("vanilla", "cutmix", "logitmix_c")
_HOW_TO_LOAD = (
    "The architecture is one of hf_logitmix: `import hf_logitmix.vision` puts it into timm's registry, before "
    "`from_pretrained` or `timm.create_model`."
)
SHARES = ("val_split", "calibration_split")  # of the training images, held out
SMALL = 64  # up to this side images are padded and cropped, not cropped and resized


@dataclass
class ImageRunArguments(ImageMixTrainingArguments):
    """`ImageMixTrainingArguments` for runs: as the Mixup paper on CIFAR, evaluated and saved after each epoch.

    What is passed is never replaced: ``optim`` takes the place of timm's sgd, ``lr_scheduler_type`` or
    ``warmup_steps`` that of timm's cosine, ``eval_steps`` and ``save_steps`` that of epochs.

    Raises:
        ValueError: as `ImageMixTrainingArguments`, for steps that no strategy reads, and for ``do_predict``.
    """

    output_dir: str = field(default="", metadata={"help": "Where the run leaves its model and results."})
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
    logging_steps: float = field(default=50, metadata={"help": "Steps between two lines of the log."})
    dataloader_pin_memory: bool = field(
        default=torch.cuda.is_available(), metadata={"help": "Pin host memory for copies to the GPU."}
    )
    report_to: str = field(default="none", metadata={"help": "Where to report, such as tensorboard or wandb."})
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


class ImageRunTrainer(RunMixin, SummaryMixin, ImageMixTrainer):
    """The Trainer of a run, which leaves ``summary.csv`` too."""


def parser() -> ArgumentsParser:
    """What reads the command line."""
    return ArgumentsParser((ImageArguments, ImageRunArguments), "hf-logitmix images", __doc__)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    words, notes = translate(sys.argv[1:] if argv is None else argv)
    images, args = parser().parse(words)
    for note in notes if args.process_index == 0 else ():
        logger.warning("%s", note)
    if args.method is not None and args.method not in METHODS:
        raise ValueError(f"method={args.method!r} is unknown: pass one of {', '.join(METHODS)}.")
    if images.demo:
        return run_demo(args)
    if images.dataset is None or images.model is None:
        raise ValueError("--dataset and --model are needed, or --demo for the offline demo.")
    if not args.output_dir:
        raise ValueError("--output_dir is needed: the folder where the run leaves its model and results.")
    check_what_is_done(args)
    args.resume_from_checkpoint = checkpoint_to_resume(args)
    with args.main_process_first(desc="load data"):
        data = load_images(images.dataset, images.image_column, images.label_column)
    return report(run(images, args, data), args)


def run(images: ImageArguments, args: ImageRunArguments, data: ImageData) -> dict[str, Any] | None:
    """Train and evaluate as the arguments say, and write the output folder.

    Returns:
        what ``all_results.json`` holds, or None if the run was interrupted and saved.
    """
    count = len(data.label_names)
    if count < 2:
        raise ValueError(f"dataset {data.name} has {count} class: pass one with at least two.")
    if images.image_size is not None and images.image_size < 1:
        raise ValueError(f"image_size={images.image_size} must be at least 1: leave it out for {data.image_size}.")
    if images.channels not in (None, 1, 3):
        raise ValueError(f"channels={images.channels} must be 1 or 3: leave it out for {data.channels}.")
    size, channels = images.image_size or data.image_size, images.channels or data.channels
    mean, std = of_channels(data.mean, channels), of_channels(data.std, channels)
    data = _with_held_out(data, images, args)
    train, test, validation, held_by = data.train, data.test, data.validation, data.validation_split
    calibration = None
    if images.calibration_split:
        train, calibration = _held_out_to_calibrate(train, images, args)
    sizes = {data.test_split: len(data.test), **({held_by: len(validation)} if validation is not None else {})}
    train = _part(train, "max_train_samples", images.max_train_samples, images.subset_seed)
    if args.do_eval:
        test = _part(test, "max_eval_samples", images.max_eval_samples, images.subset_seed)
    if validation is not None and images.max_eval_samples:
        most = min(images.max_eval_samples, len(validation))
        validation = _part(validation, "max_eval_samples", most, images.subset_seed)
    noise = f"{images.label_noise:g} {images.label_noise_kind}" if images.label_noise and args.do_train else None
    if noise:
        train = with_label_noise(train, images.label_noise, images.label_noise_kind, args.seed, count)
    model_kwargs = _model_kwargs(images)
    if size <= SMALL and not (args.scale or args.ratio or args.no_aug) and args.padding is None:
        args.padding = size // 8
    if data.test_split == HELD_OUT and (chosen_by := chooses(args)):
        raise ValueError(
            f"{chosen_by} would choose the model on the examples that its figures are of: pass a dataset with test "
            "images."
        )
    if not args.do_train:
        _check_head(images, data)
    from_scratch = str(images.model).startswith("timm/") and not images.pretrained
    set_seed(args.seed)
    model = create_model(
        str(images.model),
        count,
        label_names=data.label_names,
        channels=channels,
        image_size=size,
        mean=mean if from_scratch else None,
        std=std if from_scratch else None,
        crop_pct=args.kept(None),
        pretrained=images.pretrained,
        trust_remote_code=images.trust_remote_code,
        new_head=args.do_train,
        model_kwargs=model_kwargs,
    )
    processor = None if str(images.model).startswith("timm/") else image_processor(str(images.model))
    tells = input_config(model, processor).mean is not None
    trainer = ImageRunTrainer(
        model,
        args,
        processing_class=processor,
        train_dataset=train if args.do_train else None,
        eval_dataset=(validation or test) if args.do_eval else None,
        compute_metrics=partial(_metrics, args.metric_for_best_model),
        image_size=size,
        mean=None if tells else mean,
        std=None if tells else std,
    )
    if args.snapshots and args.do_train:
        trainer.add_callback(_snapshots(trainer, train, args))
    found = Run(
        trainer,
        data.name.split(",")[0].split("/")[-1],
        data.name,
        None if from_scratch else images.model,
        data.label_names,
        scores,
        _logits,
        settings={
            "image_size": size,
            "channels": channels,
            "mean": list(trainer._inputs()["mean"]),
            "std": list(trainer._inputs()["std"]),
            **({"model_kwargs": model_kwargs} if model_kwargs else {}),
            **{name: share for name in SHARES if (share := getattr(images, name))},
            **({"subset_seed": images.subset_seed} if _draws(images) else {}),
            **({"label_noise": noise} if noise else {}),
        },
        pipeline_tag="image-classification",
        architecture=str(images.model).removeprefix("timm/"),
        how_to_load=_HOW_TO_LOAD if str(images.model).startswith("timm/small_") else "",
        split_sizes=sizes,
        validation=held_by,
        calibration_data=calibration,
    )
    found.results["versions"] |= {"timm": timm.__version__, "torchvision": torchvision.__version__}
    if args.do_eval and args.do_train and images.check_images:
        _open_all({data.test_split: test, held_by: validation}, args)
    if args.do_train and not found.train():
        return None
    if args.do_train:
        found.results["checkpoints"] = _checkpoints(trainer)
    if args.do_eval:
        title = f"{data.name}, {found.results.get('method_name', found.model_name)}"
        found.evaluate(test, data.test_split, title=title)
    return found.finish()


def _snapshots(trainer: ImageRunTrainer, train: ImageSet, args: ImageRunArguments) -> Snapshots:
    """Of training images that are spread evenly over the set, with augmentations that are drawn anew each time."""
    some = train.select(spread(len(train), args.snapshots))
    augmented = some.with_transform(trainer._transform(is_training=True))
    return Snapshots(trainer, some, [augmented] * args.snapshot_draws)


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracies and calibration, before and after cross-fitted temperature scaling."""
    return accuracies(logits, labels) | calibration(logits, labels)


def accuracies(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, and top-5 accuracy where there are more than five classes; of soft labels, of their arg max."""
    order, classes = np.argsort(-logits, axis=1, kind="stable"), classes_of(labels)
    top = {"accuracy": 1} | ({"accuracy_top5": 5} if logits.shape[1] > 5 else {})
    return {name: float((order[:, :k] == classes[:, None]).any(1).mean()) for name, k in top.items()}


def run_demo(args: ImageRunArguments) -> int:
    """Three methods on synthetic images, side by side; the exit status."""
    started, output = time.perf_counter(), Path(args.output_dir or "image_demo_output")
    data, results = load_images(SYNTHETIC), {}
    for method in DEMO_METHODS:
        keep_other_runs(output / method, data.name)
    for method in DEMO_METHODS:
        print(f"\n{method}: training a small ResNet from scratch on {len(data.train)} synthetic images", flush=True)
        own = ImageRunArguments(
            output_dir=str(output / method),
            method=method,
            seed=args.seed,
            num_train_epochs=15,
            per_device_train_batch_size=50,
            dataloader_drop_last=False,
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            log_level="warning",
        )
        found = run(ImageArguments(dataset=SYNTHETIC, model="timm/small_resnet8"), own, data)
        if found is None:
            print("\nStopped. The demo keeps no half-done runs: start it again.")
            return 130
        results[method] = found
    if args.should_save:
        picture = output / "reliability.png"
        diagram_of({method: output / method for method in DEMO_METHODS}, "synthetic shapes, test images", picture)
        print(f"\nSynthetic images: {len(data.train)} for training and {len(data.test)} for test, one seed.")
        print(side_by_side(results))
        print(f"The picture is {picture}; each method's run is in a folder beside it.")
        print(f"{time.perf_counter() - started:.0f} s in all.")
    return 0


def _with_held_out(data: ImageData, images: ImageArguments, args: ImageRunArguments) -> ImageData:
    """The same images with a share of the training images to choose a checkpoint on; for test where there are none."""
    share = images.val_split
    if not share:
        if args.do_eval and not data.test_split:
            raise ValueError(
                f"dataset {data.name} has training images alone: pass --val_split 0.1 to evaluate on a tenth of them, "
                "or --no_do_eval."
            )
        return data
    if data.validation_split:
        raise ValueError(
            f"val_split={share} and the split {data.validation_split} of {data.name} are both there: leave one of them "
            "out."
        )
    if not args.do_train:
        raise ValueError(f"val_split={share} holds out training images and there is no training: leave it out.")
    kept, held = hold_out(data.train.labels, share, images.subset_seed)
    train, others = (data.train.select(numbers.tolist()) for numbers in (kept, held))
    if not data.test_split:
        return replace(data, train=train, test=others, test_split=HELD_OUT)
    return replace(data, train=train, validation=others, validation_split=HELD_OUT)


def _held_out_to_calibrate(
    train: ImageSet, images: ImageArguments, args: ImageRunArguments
) -> tuple[ImageSet, ImageSet]:
    """The images to train on, and those to fit a temperature on."""
    share = images.calibration_split
    if not args.do_train:
        raise ValueError(f"calibration_split={share} holds out training images and there is no training: leave it out.")
    named = ("calibration_split", "fit a temperature on")
    kept, held = hold_out(train.labels, share, images.subset_seed, *named)
    return train.select(kept.tolist()), train.select(held.tolist())


def _part(data: ImageSet, limit: str, count: int | None, seed: int) -> ImageSet:
    try:
        return subset(data, count, seed)
    except ValueError as error:
        raise ValueError(f"{limit}: {error}") from error


def _draws(images: ImageArguments) -> bool:
    return any(getattr(images, name) for name in ("max_train_samples", "max_eval_samples", *SHARES))


def _model_kwargs(images: ImageArguments) -> dict[str, Any]:
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


def _checkpoints(trainer: ImageMixTrainer) -> dict[str, str]:
    """The folders of the last checkpoint and of the best one, by these names, as far as there are any."""
    last = last_complete_checkpoint(str(trainer.args.output_dir))
    best = trainer.state.best_model_checkpoint
    return {
        name: Path(path).name for name, path in {"last": last, "best": best}.items() if path and Path(path).is_dir()
    }


def _open_all(splits: Mapping[str, ImageSet | None], args: ImageRunArguments) -> None:
    """Read every image once, each process its share; one that is damaged is an error with its name."""
    for name, data in splits.items():
        numbers = range(args.process_index, len(data or ()), args.world_size)
        for number in tqdm(numbers, f"open the images of {name}", disable=args.disable_tqdm or not args.should_save):
            data.images[number]  # type: ignore[union-attr]


def _check_head(images: ImageArguments, data: ImageData) -> None:
    """Refuse to evaluate a saved model of other classes (its new head knows nothing), or in another order."""
    name = str(images.model)
    if name.startswith("timm/"):
        raise ValueError(f"model {name} has a new head, which knows nothing: pass a folder of a run to --no_do_train.")
    with loading("model", name, EXAMPLE):
        config = AutoConfig.from_pretrained(name, trust_remote_code=images.trust_remote_code)
    own, count = config.num_labels, len(data.label_names)
    if own != count:
        raise ValueError(f"model {public_name(name)} has {own} classes and {images.dataset} {count}: train it first.")
    names = [config.id2label[number] for number in range(own)]
    if names != list(data.label_names) and set(names) == set(data.label_names):
        raise ValueError(
            f"model {public_name(name)} has the classes of {images.dataset} in another order: train it first."
        )


def _logits(predictions: Any) -> np.ndarray:
    return np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)


def _metrics(chosen_by: str | None, prediction: Any) -> dict[str, float]:
    logits, labels = _logits(prediction.predictions), np.asarray(prediction.label_ids)
    return accuracies(logits, labels) | watched_metrics(logits, labels, N_BINS, chosen_by)


if __name__ == "__main__":
    start(["images", *sys.argv[1:]])
