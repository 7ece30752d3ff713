"""What every source of images gives in the end: images with labels, and how models are trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_logitmix.digest import digest
from hf_logitmix.vision.images import ImageSet, ReadWhenAsked

Numbers = tuple[float, ...]
VALIDATION = ("validation", "valid", "val")  # what it is called
SPLITS = ("train", "test", *VALIDATION)
_LOOKED_AT = 256


@dataclass(frozen=True)
class ImageData:
    """Training and test images of a task.

    Args:
        name: for records; a Hub id, or the last part of a local folder.
        train, test: images without a transform, all of them greyscale or all of them RGB.
        label_names: of the classes.
        image_size: side that models are trained at by default.
        channels: 1 for greyscale images, else 3.
        mean, std: of the pixels in [0, 1], one number a channel.
        test_split: what ``test`` is called where it comes from; "val" or the like where that is all there is, and empty
            where nothing but training images is there: then ``test`` is empty too.
        validation: images to choose a checkpoint on, which ``test`` is not for; None where there are none.
        validation_split: what they are called.
    """

    name: str
    train: ImageSet
    test: ImageSet
    label_names: tuple[str, ...]
    image_size: int
    channels: int
    mean: Numbers
    std: Numbers
    test_split: str = "test"
    validation: ImageSet | None = None
    validation_split: str = ""


@dataclass(frozen=True)
class Split:
    """The images of one split, where they lie.

    Attributes:
        items: a sequence of whatever ``read`` makes an image of.
        read: makes an image of an item, in a mode of PIL; None keeps greyscale and colour.
        labels: IntArray[N], -1 for an image without one.
        fingerprint: tells these images from others.
        where: what errors call it.
    """

    items: Any
    read: Callable[..., Image.Image]
    labels: np.ndarray
    fingerprint: str
    where: str

    def images(self, mode: str | None) -> ReadWhenAsked:
        return ReadWhenAsked(self.items, partial(self.read, mode=mode))


def image_data(
    name: str, splits: Mapping[str, Split], label_names: tuple[str, ...], look: Look | None = None, test: str = ""
) -> ImageData:
    """Images of their splits.

    Args:
        name: for records.
        splits: ``train``, and others by their names.
        label_names: of the classes.
        look: size, channels, mean and deviation; None looks at some of the training images.
        test: the split to report on; empty finds it, and the one for validation, by their names.

    Raises:
        ValueError: for a split without images, for labels that are no classes, and for two splits for validation.
    """
    test, validation = (
        (test, "") if test else roles([split for split in splits if split != "train"], name.split(",")[0])
    )
    for split in filter(None, ("train", test, validation)):
        check_labels(splits[split].labels, len(label_names), splits[split].where)
    look = look or look_at(splits["train"].images(None), name)
    parts = {
        split: ImageSet(part.images(mode(look.channels)), part.labels, fingerprint=part.fingerprint)
        for split, part in splits.items()
    }
    return ImageData(
        name,
        parts["train"],
        parts[test] if test else ImageSet([], np.zeros(0, dtype=np.int64)),
        label_names,
        look.image_size,
        look.channels,
        look.mean,
        look.std,
        test,
        parts.get(validation),
        validation,
    )


def roles(splits: Sequence[str], where: str) -> tuple[str, str]:
    """The split to report on and the one to choose a checkpoint on, of the names that are there; empty for none."""
    validations = [split for split in VALIDATION if split in splits]
    if len(validations) > 1:
        raise ValueError(f"{where} holds {' and '.join(validations)}, which are all for validation: keep one of them.")
    validation = next(iter(validations), "")
    return ("test", validation) if "test" in splits else (validation, "")


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    if not len(labels):
        raise ValueError(f"{where} is empty: pass a dataset with images.")
    if labels.min() < 0 or labels.max() >= classes:
        row = int(np.argmax((labels < 0) | (labels >= classes))) + 1
        raise ValueError(
            f"{where} holds labels outside 0..{classes - 1}, the first in row {row}: pass a dataset where every "
            "image has a class."
        )


def few(names: Iterable[str]) -> str:
    """Some names for an error message."""
    found = sorted(names)
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    return (", ".join(found[:6]) or "nothing") + more


def of_array(pixels: np.ndarray, labels: np.ndarray) -> ImageSet:
    """Of UIntArray[N, H, W] or [N, H, W, 3]."""
    fingerprint = digest("", [{"images": torch.from_numpy(pixels)}]).hex()
    return ImageSet(ReadWhenAsked(pixels, Image.fromarray), labels, fingerprint=fingerprint)


def mode(channels: int) -> str:
    return "L" if channels == 1 else "RGB"


@dataclass(frozen=True)
class Look:
    """What `ImageData` says of images."""

    image_size: int
    channels: int
    mean: Numbers
    std: Numbers


def look_at(images: Sequence[Image.Image], name: str) -> Look:
    """Look at some images, spread evenly; where one is in colour, all are."""
    modes, sides = set(), set()

    def pixels() -> Iterator[np.ndarray]:
        for number in np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).astype(int):
            image = images[number]
            if image.mode[0] in "IF":
                raise ValueError(f"{name} holds images of more than 8 bits ({image.mode}): convert them to 8 bits.")
            modes.add(image.mode)
            sides.add(max(image.size))
            yield np.asarray(image.convert("RGB"))[None]

    mean, std = moments(pixels())
    channels = 1 if modes <= {"1", "L", "LA"} else 3
    return Look(side(max(sides)), channels, mean[:channels], std[:channels])


def side(largest: int) -> int:
    """The side to train at, for images with sides up to ``largest``."""
    return next((side for side in (32, 64) if largest <= side), 224)


def moments(batches: Iterable[np.ndarray]) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of pixels in [0, 1], of batches [n, H, W] or [n, H, W, 3]; images count alike."""
    count, first, second = 0, np.zeros(()), np.zeros(())
    for batch in batches:
        values = batch.reshape(len(batch), -1, 3 if batch.ndim == 4 else 1).astype(np.float32) / 255
        count += len(batch)
        first = first + values.mean(axis=1).sum(axis=0, dtype=np.float64)
        second = second + np.square(values).mean(axis=1).sum(axis=0, dtype=np.float64)
    mean = first / count
    std = np.sqrt(np.maximum(second / count - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std < 1e-4, 1.0, std).tolist())  # one colour throughout: no scaling


def moments_of_array(pixels: np.ndarray) -> tuple[Numbers, Numbers]:
    return moments(pixels[start : start + 1000] for start in range(0, len(pixels), 1000))
