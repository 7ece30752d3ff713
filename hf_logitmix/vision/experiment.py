"""One run on images: check, split, make the model, train, evaluate, and leave everything that tells about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import timm
import torchvision
from torch import nn
from tqdm.auto import tqdm
from transformers import set_seed

from hf_logitmix.analysis.snapshots import Snapshots, spread
from hf_logitmix.calibration.metrics import watched_metrics
from hf_logitmix.models import public_name
from hf_logitmix.soft_labels import classes_of
from hf_logitmix.training.checkpoints import last_complete_checkpoint
from hf_logitmix.training.runs import N_BINS, Run, RunMixin, calibration
from hf_logitmix.vision.data import ImageData
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.inputs import InputConfig, image_processor, input_config, of_channels
from hf_logitmix.vision.models import create_model, saved_config
from hf_logitmix.vision.parts import Parts, parts_of
from hf_logitmix.vision.records import SummaryMixin
from hf_logitmix.vision.run_arguments import SHARES, ImageArguments, ImageRunArguments, model_kwargs
from hf_logitmix.vision.trainer import ImageMixTrainer

SMALL = 64  # up to this side images are padded and cropped, not cropped and resized
_TIMM = "timm/"  # begins the names of its architectures
_HOW_TO_LOAD = (
    "The architecture is one of hf_logitmix: `import hf_logitmix.vision` puts it into timm's registry, before "
    "`from_pretrained` or `timm.create_model`."
)


class ImageRunTrainer(RunMixin, SummaryMixin, ImageMixTrainer):
    """The Trainer of a run, which leaves ``summary.csv`` too."""


@dataclass(frozen=True)
class ImageExperiment:
    """What is trained on what.

    Attributes:
        images: which model, and which part of the images.
        data: the images as they were loaded.

    Raises:
        ValueError: for a single class, and for a size or channels that no image can have.
    """

    images: ImageArguments
    data: ImageData

    def __post_init__(self) -> None:
        images, data = self.images, self.data
        if (count := len(data.label_names)) < 2:
            raise ValueError(f"dataset {data.name} has {count} class: pass one with at least two.")
        if images.image_size is not None and images.image_size < 1:
            raise ValueError(f"image_size={images.image_size} must be at least 1: leave it out for {data.image_size}.")
        if images.channels not in (None, 1, 3):
            raise ValueError(f"channels={images.channels} must be 1 or 3: leave it out for {data.channels}.")

    @property
    def name(self) -> str:
        """Of the model."""
        return str(self.images.model)

    @property
    def is_new(self) -> bool:
        """Whether the model has no weights yet."""
        return self.name.startswith(_TIMM) and not self.images.pretrained

    @property
    def size(self) -> int:
        """The side that images are read at: what is asked for, else that of a saved model, else that of the data."""
        own = None if self.name.startswith(_TIMM) else self._saved_inputs.image_size
        return self.images.image_size or own or self.data.image_size

    @cached_property
    def processor(self) -> Any:
        """The image processor of a saved model; None for one of timm's, and where there is none."""
        return None if self.name.startswith(_TIMM) else image_processor(self.name, download=True)

    @cached_property
    def _saved_inputs(self) -> InputConfig:
        """What a saved model tells of its images."""
        config = saved_config(self.name, trust_remote_code=self.images.trust_remote_code)
        return input_config(cast(Any, SimpleNamespace(config=config)), self.processor)

    @property
    def channels(self) -> int:
        return self.images.channels or self.data.channels

    @cached_property
    def moments(self) -> dict[str, Sequence[float]]:
        """Mean and deviation of the pixels, a number a channel."""
        return {name: of_channels(getattr(self.data, name), self.channels) for name in ("mean", "std")}

    @cached_property
    def model_kwargs(self) -> dict[str, Any]:
        """What ``timm.create_model`` is told besides."""
        return model_kwargs(self.images)

    def run(self, args: ImageRunArguments) -> dict[str, Any] | None:
        """Train and evaluate as ``args`` says; write the output folder.

        Returns:
            what ``all_results.json`` holds, or None if the run was interrupted and saved.
        """
        parts = parts_of(self.data, self.images, args)
        is_cropped = args.scale or args.ratio or args.no_aug or args.padding is not None
        if args.do_train and self.size <= SMALL and not is_cropped:
            args.padding = self.size // 8
        if not args.do_train:
            self._check_head()
        trainer = self._trainer(args, parts)
        run = self._records(trainer, parts)
        data = parts.data
        if args.do_eval and args.do_train and self.images.check_images:
            _open_all({data.test_split: data.test, data.validation_split: data.validation}, args)
        if args.do_train:
            if not run.train():
                return None
            run.results["checkpoints"] = _checkpoints(trainer)
        if args.do_eval:
            title = f"{data.name}, {run.results.get('method_name', run.model_name)}"
            run.evaluate(data.test, data.test_split, title=title)
        return run.finish()

    def _check_head(self) -> None:
        """Refuse to evaluate a saved model of other classes (its new head knows nothing), or in another order."""
        name, images, data = self.name, self.images, self.data
        if name.startswith(_TIMM):
            raise ValueError(
                f"model {name} has a new head, which knows nothing: pass a folder of a run to --no_do_train."
            )
        config: Any = saved_config(name, trust_remote_code=images.trust_remote_code)
        own, count = config.num_labels, len(data.label_names)
        if own != count:
            raise ValueError(
                f"model {public_name(name)} has {own} classes and {images.dataset} {count}: train it first."
            )
        names = [config.id2label[number] for number in range(own)]
        if names != list(data.label_names) and set(names) == set(data.label_names):
            raise ValueError(
                f"model {public_name(name)} has the classes of {images.dataset} in another order: train it first."
            )

    def _model(self, args: ImageRunArguments) -> nn.Module:
        set_seed(args.seed)
        return create_model(
            self.name,
            len(self.data.label_names),
            label_names=self.data.label_names,
            channels=self.channels,
            image_size=self.size,
            **(self.moments if self.is_new else {}),
            crop_pct=args.kept(None),
            pretrained=self.images.pretrained,
            trust_remote_code=self.images.trust_remote_code,
            new_head=args.do_train,
            model_kwargs=self.model_kwargs,
        )

    def _trainer(self, args: ImageRunArguments, parts: Parts) -> ImageRunTrainer:
        data, model = parts.data, self._model(args)
        trainer = ImageRunTrainer(
            model,
            args,
            processing_class=self.processor,
            train_dataset=data.train if args.do_train else None,
            eval_dataset=data.validation or (data.test if args.do_eval else None),
            compute_metrics=partial(_metrics, args.metric_for_best_model),
            image_size=self.size,
            **({} if input_config(model).mean is not None else self.moments),
        )
        if args.snapshots and args.do_train:
            trainer.add_callback(_snapshots(trainer, data.train, args))
        return trainer

    def _records(self, trainer: ImageRunTrainer, parts: Parts) -> Run:
        """The run that the trainer makes, and what its records say of it."""
        images, data, inputs = self.images, self.data, trainer._inputs()
        shares = {name: share for name in SHARES if (share := getattr(images, name))}
        is_drawn = bool(shares or images.max_train_samples or images.max_eval_samples)
        run = Run(
            trainer,
            data.name.split(",")[0].split("/")[-1],
            data.name,
            None if self.is_new else images.model,
            data.label_names,
            scores,
            _logits,
            settings={
                "image_size": self.size,
                "channels": self.channels,
                "mean": list(inputs["mean"]),
                "std": list(inputs["std"]),
                **({"model_kwargs": self.model_kwargs} if self.model_kwargs else {}),
                **shares,
                **({"subset_seed": images.subset_seed} if is_drawn else {}),
                **({"label_noise": parts.label_noise} if parts.label_noise else {}),
            },
            pipeline_tag="image-classification",
            architecture=self.name.removeprefix(_TIMM),
            how_to_load=_HOW_TO_LOAD if self.name.startswith(f"{_TIMM}small_") else "",
            split_sizes=parts.sizes,
            validation=parts.data.validation_split,
            calibration_data=parts.calibration,
        )
        run.results["versions"] |= {"timm": timm.__version__, "torchvision": torchvision.__version__}
        return run


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


def _logits(predictions: Any) -> np.ndarray:
    return np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions)


def _metrics(chosen_by: str | None, prediction: Any) -> dict[str, float]:
    logits, labels = _logits(prediction.predictions), np.asarray(prediction.label_ids)
    return accuracies(logits, labels) | watched_metrics(logits, labels, N_BINS, chosen_by)
