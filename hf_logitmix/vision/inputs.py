"""What images a model wants: from its own configuration, timm's or its image processor's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor, nn
from transformers import AutoImageProcessor

_ALIKE = 0.05  # in deviations of the pixels: what other ways of interpolating may differ by
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


def image_processor(name: str, *, download: bool = False) -> Any:
    """The image processor beside a model's weights, in its folder, the cache or on the Hub; None if there is none."""
    if not name:
        return None
    try:
        return AutoImageProcessor.from_pretrained(name, local_files_only=not download, trust_remote_code=False)
    except (OSError, ValueError):
        return None


def reads_alike(processor: Any, transform: Callable[[Image.Image], Tensor]) -> bool:
    """Whether an image processor makes of a picture, one wider than high, nearly what a transform makes of it."""
    across = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))
    picture = Image.fromarray(np.stack([across, across[:, ::-1], 255 - across // 2], axis=2))
    made, own = processor(images=picture, return_tensors="pt")["pixel_values"][0], transform(picture)
    return made.shape == own.shape and float((made - own).abs().mean()) < _ALIKE


def of_channels(values: Sequence[float], channels: int) -> list[float]:
    """A mean or deviation of each channel; where there is another number of them, the average for each."""
    return list(values) if len(values) == channels else [sum(values) / len(values)] * channels


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
