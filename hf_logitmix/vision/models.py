"""Image classifiers by name, and what images they want."""

from __future__ import annotations

import ast
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from PIL.Image import Resampling
from timm.layers import DropPath
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

import hf_logitmix.vision.small_models  # noqa: F401  registers them
from hf_logitmix.models import check_is_trained, loading
from hf_logitmix.vision.bare_config import KEPT

_CALLED_HERE = {  # arguments of timm.create_model that have a place of their own
    "num_classes": "the number of classes of the dataset",
    "in_chans": "channels",
    "img_size": "image_size",
    "pretrained": "pretrained",
    **dict.fromkeys(("pretrained_cfg", "pretrained_cfg_overlay"), "made of the dataset's size, mean and std"),
    "checkpoint_path": "a folder as the model",
    "features_only": "not for classifiers, which are all that is trained",
}
EXAMPLE = "google/vit-base-patch16-224"
_SIDES = ("height", "width", "shortest_edge")


@dataclass(frozen=True)
class InputConfig:
    """The images that a model wants; None where that is not known.

    Attributes:
        channels: of an image.
        image_size: its side in pixels; None too where the sides differ.
        mean: of each channel, which is subtracted.
        std: of each channel, by which it is divided then.
        interpolation: how to resize, such as "bicubic".
        crop_pct: share of a side that is kept of an image to be classified, by a model of timm.
    """

    channels: int | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None


def create_model(
    name: str,
    num_labels: int,
    *,
    label_names: Sequence[str] | None = None,
    channels: int = 3,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop_pct: float | None = None,
    pretrained: bool = False,
    trust_remote_code: bool = False,
    new_head: bool = True,
    model_kwargs: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """An image classifier of transformers, in evaluation mode; what it saves, transformers and timm load.

    Args:
        name: "timm/ARCHITECTURE" for any model of timm and of `small_models`, such as "timm/small_resnet18"; or a local
            folder or a Hub name of an image classifier of transformers, which keeps its weights and gets a new head
            where it has another number of classes.
        num_labels: number of classes.
        label_names: their names.
        channels: of the images.
        image_size: their side in pixels; None for the one that the model was made for.
        mean, std: of the pixels in [0, 1], a number a channel, with which a timm model will read images: they are kept
            in its configuration. None keeps timm's.
        crop_pct: share of a side that is kept of an image to be classified, in its configuration too. None keeps
            timm's, at any size, as timm does.
        pretrained: take a timm model's weights from the Hub, adapted to the channels and the size.
        trust_remote_code: let a model that is not timm's bring code of its own.
        new_head: whether a saved model may get one, because it will be trained.
        model_kwargs: more arguments of ``timm.create_model``, such as ``drop_path_rate``; they are kept in the
            configuration.

    Raises:
        ValueError: for a model that is not there, a name that timm does not know and images that the saved model cannot
            read, without ``new_head`` for weights that would be random, and for ``model_kwargs`` of a model that does
            not take them or is not timm's.
    """
    labels: dict[str, Any] = {"num_labels": num_labels}
    if label_names is not None:
        if len(label_names) != num_labels:
            raise ValueError(f"{len(label_names)} label_names for num_labels={num_labels}: pass one name a class.")
        labels["id2label"] = dict(enumerate(label_names))
        labels["label2id"] = {label: index for index, label in enumerate(label_names)}
    if name.startswith("timm/"):
        statistics = {"mean": mean, "std": std}
        more = dict(model_kwargs or {})
        return _timm_model(
            name.removeprefix("timm/"), labels, channels, image_size, statistics, crop_pct, pretrained, more
        )
    if model_kwargs:
        raise ValueError(
            f"{_listed(model_kwargs)}: arguments of timm.create_model, and {name} is no model of timm: leave them out, "
            "or pass timm/NAME."
        )
    if timm.is_model(name.split(".")[0]) and not Path(name).exists():
        raise ValueError(f"name={name!r} is a model of timm: write 'timm/{name}'.")
    with loading("model", name, EXAMPLE):
        saved = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    if label_names is None and saved.num_labels == num_labels:
        labels = {}  # the names that it has
    with loading("model", name, EXAMPLE):
        model, info = AutoModelForImageClassification.from_pretrained(
            name,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **labels,
        )
    if not new_head:
        check_is_trained(f"model={name!r}", info)
    wanted = input_config(model)
    if wanted.channels not in (None, channels):
        raise ValueError(
            f"channels={channels}, but {name} reads images of {wanted.channels}: pass channels={wanted.channels}."
        )
    size = wanted.image_size if _size_is_fixed(model) else None
    if size is not None and image_size not in (None, size):
        raise ValueError(
            f"image_size={image_size}, but {name} was made for {size}: leave it out and resize the images."
        )
    return model


def input_config(model: nn.Module, processor: Any = None) -> InputConfig:
    """The images that a model wants: from timm's configuration, or from its own and its image processor's.

    Args:
        model: an image classifier.
        processor: its image processor; None looks for one with `image_processor`.
    """
    config: Any = getattr(model, "config", None)
    network: Any = getattr(model, "timm_model", model)
    timms = getattr(config, "pretrained_cfg", None) or getattr(network, "pretrained_cfg", None)
    if timms:
        size = timms.get("input_size") or (None, None)
        return InputConfig(
            channels=getattr(network, "in_chans", size[0]),
            image_size=_side(size[1:]),
            mean=_numbers(timms.get("mean")),
            std=_numbers(timms.get("std")),
            interpolation=timms.get("interpolation"),
            crop_pct=timms.get("crop_pct"),
        )
    processor = processor or image_processor(getattr(config, "_name_or_path", ""))
    crop = getattr(processor, "do_center_crop", None) and getattr(processor, "crop_size", None)
    own_size = getattr(config, "image_size", None)
    return InputConfig(
        channels=getattr(config, "num_channels", None),
        image_size=_side(own_size) or _side(crop or getattr(processor, "size", None)),
        mean=_numbers(getattr(processor, "image_mean", None)),
        std=_numbers(getattr(processor, "image_std", None)),
        interpolation=_interpolation(getattr(processor, "resample", None)),
    )


def _timm_model(
    name: str,
    labels: dict[str, Any],
    channels: int,
    image_size: int | None,
    statistics: Mapping[str, Sequence[float] | None],
    crop_pct: float | None,
    pretrained: bool,
    model_kwargs: dict[str, Any],
) -> TimmWrapperForImageClassification:
    """A model of timm in the wrapper of transformers; its configuration says what `input_config` and timm read."""
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = " or ".join(f"'timm/{other}'" for other in near) or "a name that timm.list_models() lists"
        raise ValueError(f"timm {timm.__version__} has no model {architecture!r}: pass {hint}.")
    for key, called in _CALLED_HERE.items():
        if key in model_kwargs:
            raise ValueError(f"model_kwargs: {key} is {called} here: leave it out of model_kwargs.")
    model_args: dict[str, Any] = {**model_kwargs, "in_chans": channels}
    registered = timm.models.get_pretrained_cfg(name)
    if image_size is not None and registered is not None and registered.fixed_input_size:
        model_args["img_size"] = image_size
    try:
        network: Any = timm.create_model(name, pretrained=pretrained, num_classes=labels["num_labels"], **model_args)
    except RuntimeError as error:
        if not pretrained:
            raise
        raise ValueError(f"pretrained=True: timm has no weights of {name}: leave it out.") from error
    except (TypeError, AttributeError, KeyError, AssertionError, ValueError) as error:
        if not model_kwargs:
            raise
        raise ValueError(
            f"{_listed(model_kwargs)}: {architecture} cannot be made with that ({error}): leave out what it does not "
            "take."
        ) from error
    if model_kwargs.get("drop_path_rate") and not any(_drops(module) for module in network.modules()):
        raise ValueError(
            f"drop_path_rate={model_kwargs['drop_path_rate']}: {architecture} has no paths to drop: leave it out."
        )
    cfg = network.pretrained_cfg
    own = {key: cfg[key] for key in KEPT if key in cfg}
    own |= {key: of_channels(values or cfg[key], channels) for key, values in statistics.items()}
    sides = cfg["input_size"][1:] if image_size is None else (image_size, image_size)
    own["input_size"] = [channels, *sides]
    if crop_pct is not None:
        own["crop_pct"] = crop_pct
    config: Any = TimmWrapperConfig(architecture=architecture, model_args=model_args, **labels)
    config.pretrained_cfg = own
    # from_pretrained keeps these weights, where a new wrapper would draw all of them from N(0, 0.02); and what came in
    # under timm's names is saved under them.
    model = TimmWrapperForImageClassification.from_pretrained(None, config=config, state_dict=network.state_dict())
    model.name_or_path = model.config.name_or_path = f"timm/{name}" if pretrained else ""  # it would be "None"
    return model


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


def _drops(module: nn.Module) -> bool:
    return isinstance(module, DropPath) and bool(module.drop_prob)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def of_channels(values: Sequence[float], channels: int) -> list[float]:
    """A mean or deviation of each channel; where there is another number of them, the average for each."""
    return list(values) if len(values) == channels else [sum(values) / len(values)] * channels


def _size_is_fixed(model: PreTrainedModel) -> bool:
    cfg = getattr(model.config, "pretrained_cfg", None)
    return bool(cfg.get("fixed_input_size")) if cfg else hasattr(model.config, "image_size")


def image_processor(name: str) -> Any:
    """The image processor beside a model's weights, in its folder or the cache, or None; nothing is downloaded."""
    if not name:
        return None
    try:
        return AutoImageProcessor.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return None


def _numbers(values: Any) -> tuple[float, ...] | None:
    return tuple(float(value) for value in values) if values is not None else None


def _side(size: Any) -> int | None:
    """The side of a square, of the ways in which it is written."""
    if isinstance(size, Mapping) or hasattr(size, "shortest_edge"):
        values = [size.get(key) if isinstance(size, Mapping) else getattr(size, key, None) for key in _SIDES]
        size = [value for value in values if value is not None][:2]
    sides = [size] if isinstance(size, int) else list(size or [])
    return int(sides[0]) if sides and len(set(sides)) == 1 and sides[0] else None


def _interpolation(resample: Any) -> str | None:
    """The name of a filter of PIL, of torchvision or its number."""
    if resample is None:
        return None
    if isinstance(resample, int):
        return Resampling(resample).name.lower()
    return str(getattr(resample, "value", resample))
