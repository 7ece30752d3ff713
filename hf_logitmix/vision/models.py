"""Image classifiers by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import DropPath
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

import hf_logitmix.vision.small_models  # noqa: F401  registers them
from hf_logitmix.models import check_is_trained, loading
from hf_logitmix.vision.bare_config import KEPT
from hf_logitmix.vision.inputs import input_config, of_channels

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
    saved = saved_config(name, trust_remote_code=trust_remote_code)
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
            f"image_size={image_size}, but {name} was made for {size}: pass image_size={size}, and they are resized."
        )
    return model


def saved_config(name: str, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The configuration of a model that is not timm's, in a folder or on the Hub.

    Raises:
        ValueError: for one that is not there, and for a model of timm without ``timm/``.
    """
    if timm.is_model(name.split(".")[0]) and not Path(name).exists():
        raise ValueError(f"name={name!r} is a model of timm: write 'timm/{name}'.")
    with loading("model", name, EXAMPLE):
        return AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)


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


def _drops(module: nn.Module) -> bool:
    return isinstance(module, DropPath) and bool(module.drop_prob)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _size_is_fixed(model: PreTrainedModel) -> bool:
    cfg = getattr(model.config, "pretrained_cfg", None)
    return bool(cfg.get("fixed_input_size")) if cfg else hasattr(model.config, "image_size")
