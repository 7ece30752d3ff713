"""A Trainer of image classifiers with timm's optimizers, schedules, weight averaging and augmentation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import (
    DefaultDataCollator,
    TimmWrapperForImageClassification,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from hf_logitmix.forward import mixed_forward
from hf_logitmix.methods import Method
from hf_logitmix.models import call, evaluating, unwrap
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.step import Step
from hf_logitmix.training.collator import MixCollator
from hf_logitmix.training.trainer import MixTrainer
from hf_logitmix.training.training_set import TrainingSet
from hf_logitmix.vision.adapters import as_image_set, label_names_of
from hf_logitmix.vision.bare_config import timm_config, write_config
from hf_logitmix.vision.ema import EmaMixin
from hf_logitmix.vision.images import ImageSet, Transform, check_contrast, check_sizes, collate_images
from hf_logitmix.vision.inputs import input_config, reads_alike
from hf_logitmix.vision.records import SpeedMixin
from hf_logitmix.vision.timm_training import TimmTrainingMixin
from hf_logitmix.vision.transforms import Augmentation, AugmentedSet, EvaluatedSet, drawn_from, image_transform
from hf_logitmix.vision.wrap import BareClassifier, as_classifier, file_state, inner_module

logger = logging.getLogger(__name__)


class ImageMixTrainer(SpeedMixin, TimmTrainingMixin, EmaMixin, MixTrainer):
    """`MixTrainer` for images: any image classifier of transformers, any model of timm, any module that makes logits.

    Datasets of torchvision, timm and `datasets`, and others that give (image, class) pairs or rows with an image and a
    label, become an `ImageSet` (`as_image_set`). One without a transform gets one, augmented for training and plain for
    evaluation; images that are tensors of floats stay as they are. Checkpoints of a model of timm, bare or in
    transformers' wrapper, load with plain timm, and wrapped ones with plain transformers too.

    Example:
        >>> model = timm.create_model("resnet18", num_classes=10)  # doctest: +SKIP
        >>> args = ImageMixTrainingArguments("out", opt="sgd", sched="step", decay_epochs=60)  # doctest: +SKIP
        >>> ImageMixTrainer(model, args, method="logitmix_p", train_dataset=images).train()  # doctest: +SKIP

    Args:
        model: a model; a bare module is put into a `BareClassifier`.
        args: options of timm are those of `ImageMixTrainingArguments`.
        image_size: side of the images that the model reads, or (height, width); None takes what the model
            tells.
        mean, std: of the pixels in [0, 1], a number a channel: one makes images grey, three make them RGB; None takes
            what the model tells (see `input_config`).
        num_labels: of a bare module without ``num_classes``.
        label_names: of a bare model of timm, the names of its classes in order, for the ``config.json`` beside its
            weights; None takes those that ``train_dataset`` tells (a ClassLabel, ``classes`` of torchvision).
        kwargs: as for `MixTrainer`.

    Raises:
        ValueError: before training, for data that is no images with labels, images that the model cannot read, that
            differ in size or are nearly all one colour once they are normalised (a few are looked at), and as
            `MixTrainer`.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        method: str | Method | None = None,
        image_size: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        num_labels: int | None = None,
        label_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if (mean is None) != (std is None):
            raise ValueError("mean and std go together: pass both, or neither for what the model tells.")
        if image_size is not None and np.min(image_size) < 1:
            raise ValueError(f"image_size={image_size} must be at least 1: leave it out for what the model tells.")
        given = {"image_size": image_size, "mean": mean, "std": std}
        self._given = {name: value for name, value in given.items() if value is not None}
        self._found: dict[str, Any] = {}
        self._num_labels = num_labels
        self._train_given = train_dataset
        self._label_names = label_names_of(train_dataset) if label_names is None else list(label_names)
        ours = isinstance(data_collator, (MixCollator, DefaultDataCollator)) or data_collator is default_data_collator
        self._own_collator = data_collator is not None and not ours
        super().__init__(
            None if model is None else as_classifier(model, num_labels),
            args,
            data_collator or collate_images,
            as_image_set(train_dataset, needs_labels=True, own_collator=self._own_collator),
            _each(eval_dataset, self._as_image_set),
            method=method,
            **kwargs,
        )
        self._lay_out(self.model)
        self._check_label_names(label_names is not None)
        self._prepare_images()
        if isinstance(self.train_dataset, AugmentedSet):
            self._resolve_method()  # again, because the statistics of the images are known now
            if not self.is_deepspeed_enabled:
                self._try_images()
        if not self._own_collator:
            self._look_at_images()
        self.add_callback(_NewEpoch())

    def call_model_init(self, *args: Any, **kwargs: Any) -> nn.Module:
        return self._lay_out(as_classifier(super().call_model_init(*args, **kwargs), self._num_labels))

    def _lay_out(self, model: nn.Module) -> nn.Module:
        """The model with its weights in the memory format that the arguments ask for."""
        if getattr(self.args, "channels_last", False):
            model.to(memory_format=torch.channels_last)
        return model

    def _prepare_inputs(self, inputs: Any) -> Any:
        inputs = super()._prepare_inputs(inputs)
        pixels = inputs.get("pixel_values") if isinstance(inputs, Mapping) else None
        if getattr(self.args, "channels_last", False) and isinstance(pixels, torch.Tensor) and pixels.dim() == 4:
            inputs["pixel_values"] = pixels.contiguous(memory_format=torch.channels_last)
        return inputs

    # ---- images --------------------------------------------------------------------------------------------------

    def _set_up_method(self) -> None:
        self._prepare_images()  # again, because the arguments or the data may have been changed
        super()._set_up_method()

    def _prepare_images(self) -> None:
        """Give images the transforms that the arguments ask for."""
        data = self.train_dataset = as_image_set(self.train_dataset, needs_labels=True, own_collator=self._own_collator)
        if isinstance(data, AugmentedSet):
            data.transform = self._transform(is_training=True)
        elif _is_raw(data):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            self.train_dataset = AugmentedSet(data, self._transform(is_training=True), seed)
        elif data is not None and isinstance(self.args, Augmentation) and (unread := self.args.of_training()):
            raise ValueError(
                f"train_dataset makes its images itself, so that nobody would read {', '.join(unread)}: leave that "
                "out, or pass images without a transform."
            )
        self.eval_dataset = _each(self.eval_dataset, self._readable)

    def _inputs(self) -> dict[str, Any]:
        """Size, statistics and so on of the images: what was passed, over what the model tells."""
        if not self._found:
            model: Any = self.model.module if isinstance(self.model, BareClassifier) else self.model
            own = asdict(input_config(model, self.processing_class))
            told = own | {"crop_pct": own["crop_pct"] or 1.0} | self._given
            missing = [name for name in ("image_size", "mean", "std") if told[name] is None]
            if missing:
                raise ValueError(
                    f"{type(inner_module(self.model)).__name__} does not tell {', '.join(missing)} of its images: pass "
                    "them to ImageMixTrainer, or pass images with a transform."
                )
            self._found = told
        return self._found

    def _transform(self, is_training: bool) -> Transform:
        inputs = self._inputs()
        return image_transform(
            inputs["image_size"],
            inputs["mean"],
            inputs["std"],
            is_training=is_training,
            args=self.args if isinstance(self.args, Augmentation) else None,
            interpolation=inputs["interpolation"] or "bilinear",
            crop_pct=inputs["crop_pct"],
        )

    def _keeps_labels(self) -> bool:
        return not self._own_collator

    def _as_image_set(self, data: Any) -> Any:
        return as_image_set(data, own_collator=self._own_collator)

    def _readable(self, data: Any) -> Any:
        """Data to evaluate on, with a transform."""
        data = self._as_image_set(data)
        if not _is_raw(data):
            return data
        return EvaluatedSet(data.images, data.labels, self._transform(is_training=False), data.fingerprint)

    def _look_at_images(self) -> None:
        """Look at a few images as the model will read them: of one size, and those to train on not all alike."""
        named = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        for name, data in {f"eval_dataset {name}".strip(): data for name, data in named.items()}.items():
            check_sizes(self._few_of(data), name)
        train = self.train_dataset
        looked_at = self._few_of(self._readable(train) if isinstance(train, AugmentedSet) else train)
        check_sizes(looked_at, "train_dataset")
        self._compare_with_processor()
        check_contrast(looked_at, self._inputs() if isinstance(train, AugmentedSet) else {})

    def _compare_with_processor(self) -> None:
        """Say where the image processor that is saved reads images in another way than they are evaluated in here."""
        processor, data = self.processing_class, next(iter(_all_of(self.eval_dataset)), None)
        if processor is None or not isinstance(data, EvaluatedSet):
            return
        if len(self._inputs()["mean"]) == 3 and not reads_alike(processor, self._transform(is_training=False)):
            logger.warning(
                "%s, which is saved beside the model, makes other images than those that are evaluated here, so that "
                "pipelines read them otherwise: pass --image_size, --crop_pct and --interpolation as it has them, or "
                "save one that does as these say.",
                type(processor).__name__,
            )

    def _few_of(self, data: Any) -> list[Mapping[str, Any]]:
        """Up to 16 examples, spread evenly, of data that gives ``pixel_values`` by number; else none."""
        if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
            return []
        numbers = np.linspace(0, len(data) - 1, min(len(data), 16)).astype(int).tolist()
        with drawn_from(self.args.seed):  # a transform of the user's may draw
            examples = [data[number] for number in numbers]
        return examples if all(isinstance(e, Mapping) and "pixel_values" in e for e in examples) else []

    def _try_images(self) -> None:
        """Show the model two images of one colour, so that what does not fit is said before training."""
        inputs = self._inputs()
        size = inputs["image_size"]
        sides = (size, size) if isinstance(size, int) else size
        first = next(self.model.parameters())
        batch = {"pixel_values": torch.zeros(2, len(inputs["mean"]), *sides, device=first.device, dtype=first.dtype)}
        labels = torch.zeros(2, dtype=torch.long, device=first.device)
        num_labels = self.label_spec.num_labels
        with evaluating(self.model):
            try:
                logits = call(self.model, batch, 2)
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ValueError(
                    f"{type(inner_module(self.model)).__name__} cannot read images of shape "
                    f"{list(batch['pixel_values'].shape[1:])} ({error}): pass image_size, and one or three numbers "
                    "each as mean and std, as the model was made for."
                ) from error
            if logits.shape[1] != num_labels:
                raise ValueError(
                    f"{type(inner_module(self.model)).__name__} makes {logits.shape[1]} logits and num_labels="
                    f"{num_labels}: pass the number of its outputs as num_labels."
                )
            if self.method.mixes:
                plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5])).to(first.device)
                step = Step(0, 1, self.args.seed)
                mixed_forward(
                    self.model, batch, plan, mixing=self.method.mixing, rows="mixed", labels=labels, step=step
                )

    def _resolve_method(self) -> None:
        if isinstance(self.args, Augmentation):
            self.args.check()
        super()._resolve_method()
        mixing = self.method.mixing
        options: set[str] = {f.name for f in fields(mixing)} if is_dataclass(mixing) else set()
        is_known = isinstance(self.train_dataset, AugmentedSet) or "mean" in self._given
        if not {"mean", "std"} <= options or getattr(mixing, "mean", None) is not None:
            return
        if is_known:
            inputs = self._inputs()
            self.method = self.method.with_options(mean=tuple(inputs["mean"]), std=tuple(inputs["std"]))
        elif self.train_dataset is not None and not _is_raw(self.train_dataset):
            warnings.warn(
                f"{type(mixing).__name__} compares the colours of images, and takes pixels of a transform of yours to "
                "be in [0, 1]: pass mean and std to ImageMixTrainer if they are normalised.",
                UserWarning,
                stacklevel=2,
            )

    def _training_set(self) -> TrainingSet:
        found = super()._training_set()
        if isinstance(found.dataset, AugmentedSet):
            found = replace(found, dataset=self._readable(found.dataset))
        return found

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        is_name = isinstance(eval_dataset, str)
        return super().get_eval_dataloader(eval_dataset if is_name else self._readable(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        return super().get_test_dataloader(self._readable(test_dataset))

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if inner_module(self.model) is not self.model:
            state_dict = file_state(self.model, state_dict)
        model: Any = unwrap(self.model)
        if isinstance(model, TimmWrapperForImageClassification) and getattr(model.config, "pretrained_cfg", None):
            model.config.pretrained_cfg = {**model.config.pretrained_cfg, **self._images_of_timm()}
        super()._save(output_dir, state_dict)
        if isinstance(self.model, BareClassifier):
            count = self.label_spec.num_labels
            config = timm_config(self.model.module, count, self._images_of_timm(), self._label_names)
            if config is not None:
                write_config(config, output_dir or str(self.args.output_dir))

    def _images_of_timm(self) -> dict[str, Any]:
        """How this run's images are evaluated, as timm's ``pretrained_cfg`` says it; empty where that is unknown."""
        if not (self._found or self._given):
            return {}
        inputs, args = self._inputs(), self.args if isinstance(self.args, Augmentation) else Augmentation()
        size = inputs["image_size"]
        own = args.interpolation if args.interpolation != "random" else None
        return {
            "input_size": [len(inputs["mean"]), *((size, size) if isinstance(size, int) else size)],
            "mean": list(inputs["mean"]),
            "std": list(inputs["std"]),
            "interpolation": own or inputs["interpolation"] or "bilinear",
            "crop_pct": args.kept(inputs["crop_pct"]),
            "crop_mode": "center",
        }

    def _check_label_names(self, is_given: bool) -> None:
        """Refuse names that nobody would read or that are not those of the classes."""
        names = self._label_names
        if is_given and not isinstance(self.model, BareClassifier):
            raise ValueError(
                f"label_names: {type(self.model).__name__} has its own (config.id2label): leave label_names out, or "
                "pass them to create_model."
            )
        if names is not None and len(names) != (count := self.label_spec.num_labels):
            if is_given:
                raise ValueError(f"{len(names)} label_names for {count} classes: pass one name a class.")
            self._label_names = None


def _is_raw(data: Any) -> bool:
    """Whether images are ours to transform."""
    return isinstance(data, (AugmentedSet, EvaluatedSet)) or (isinstance(data, ImageSet) and data.transform is None)


def _all_of(data: Any) -> list[Any]:
    return list(data.values()) if isinstance(data, dict) else [data]


def _each(data: Any, change: Any) -> Any:
    return {name: change(part) for name, part in data.items()} if isinstance(data, dict) else change(data)


class _NewEpoch(TrainerCallback):
    """Tells the images that they are to be augmented in another way."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        if isinstance(train_dataloader.dataset, AugmentedSet):
            train_dataloader.dataset.set_epoch(int(state.epoch or 0))
