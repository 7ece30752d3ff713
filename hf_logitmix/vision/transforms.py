"""From a PIL image to what a model reads, for training and for evaluation; the parts are timm's and torchvision's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_interp_mode
from torch import Tensor
from torchvision import transforms

from hf_logitmix.vision.images import ImageSet, as_image

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "random")


@dataclass
class Augmentation:
    """How training images are changed, under the names of timm's train.py; the defaults are timm's without colours.

    Raises:
        ValueError: for values that are not possible or exclude one another.
    """

    padding: int | None = field(
        default=None, metadata={"help": "Crop at random after padding by so many pixels, instead of scale and ratio."}
    )
    scale: list[float] | None = field(
        default=None, metadata={"help": "Share of the image that a random crop takes, two numbers (0.08 1)."}
    )
    ratio: list[float] | None = field(
        default=None, metadata={"help": "Width over height of a random crop, two numbers (0.75 1.3333)."}
    )
    hflip: float | None = field(default=None, metadata={"help": "Probability to turn left to right (0.5)."})
    vflip: float = field(default=0.0, metadata={"help": "Probability to turn upside down."})
    color_jitter: float | None = field(
        default=None, metadata={"help": "How much brightness, contrast and saturation vary."}
    )
    aa: str | None = field(default=None, metadata={"help": "timm's auto-augment, such as rand-m9-mstd0.5 or original."})
    reprob: float = field(default=0.0, metadata={"help": "Probability to erase a random box."})
    interpolation: str | None = field(
        default=None,
        metadata={"help": f"{', '.join(_INTERPOLATIONS)} (for crops in training); else the model's own."},
    )
    crop_pct: float | None = field(
        default=None,
        metadata={
            "help": "Share of a side that evaluation keeps; else all with padding or no_aug, and otherwise the model's "
            "own, at any size."
        },
    )
    no_aug: bool = field(default=False, metadata={"help": "Train on images as they are evaluated."})

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse what is not possible or would not be read."""
        if self.padding is not None and (self.padding < 0 or self.scale or self.ratio):
            raise ValueError(
                f"padding={self.padding}, scale={self.scale}, ratio={self.ratio}: pass a padding of at least 0 and no "
                "scale or ratio, which crop in another way."
            )
        for name in ("scale", "ratio"):
            pair = getattr(self, name)
            if pair is not None and not (len(pair) == 2 and 0 < pair[0] <= pair[1]):
                raise ValueError(f"{name}={pair}: pass two numbers above 0, the smaller one first.")
        for name in ("hflip", "vflip", "reprob"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is outside [0, 1]: it is a probability.")
        if self.color_jitter is not None and self.color_jitter < 0:
            raise ValueError(f"color_jitter={self.color_jitter}: pass at least 0, or None for none.")
        if self.aa is not None and self.color_jitter is not None and "3a" not in self.aa:
            raise ValueError(f"aa={self.aa!r} changes colours itself: leave color_jitter={self.color_jitter} out.")
        if self.interpolation is not None and self.interpolation not in _INTERPOLATIONS:
            raise ValueError(f"interpolation={self.interpolation!r} is unknown: pass one of {_INTERPOLATIONS}.")
        if self.no_aug and (unread := self.of_training()):
            raise ValueError(f"no_aug=True leaves nobody to read {', '.join(unread)}: pass one or the other.")
        if self.padding is not None and self.interpolation == "random":
            raise ValueError(
                f"interpolation='random' is for crops that are resized and padding={self.padding} resizes none: pass "
                "scale (0.08 1) in the place of padding, or another interpolation."
            )
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct={self.crop_pct} is outside (0, 1]: it is the share of a side that is kept.")

    def of_training(self) -> list[str]:
        """The options that change training images alone, as they are set."""
        names = ("padding", "scale", "ratio", "hflip", "vflip", "color_jitter", "aa", "reprob")
        found = [f"{name}={value}" for name in names if (value := getattr(self, name))]
        return found + ["interpolation=random"] * (self.interpolation == "random")

    def kept(self, own: float | None) -> float | None:
        """The share of a side that evaluation keeps, by a model that was made for ``own``."""
        return self.crop_pct or (1.0 if self.padding is not None or self.no_aug else own)


@dataclass(frozen=True)
class ToMode:
    """Converts an image, of any kind that an `ImageSet` may hold, to a mode of PIL."""

    mode: str

    def __call__(self, image: Any) -> Image.Image:
        found = as_image(image)
        return found if found.mode == self.mode else found.convert(self.mode)


def image_transform(
    size: int | tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    is_training: bool,
    args: Augmentation | None = None,
    interpolation: str = "bilinear",
    crop_pct: float | None = None,
) -> Callable[[Image.Image], Tensor]:
    """What makes a FloatTensor[C, H, W] of a PIL image; C is the number of means, 1 (greyscale) or 3.

    Args:
        size: of the result, a side or (height, width).
        mean, std: of the pixels in [0, 1], a number a channel.
        is_training: augment.
        args: the augmentation; None takes its defaults.
        interpolation, crop_pct: the model's, where ``args`` leaves them open; crop_pct None is timm's 0.875.

    Raises:
        ValueError: for statistics of neither one nor three channels or of pixels in 0..255, and for an ``aa`` that timm
            does not know.
    """
    if len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0:
        raise ValueError(f"mean={mean} and std={std}: pass one or three numbers each, and std above 0.")
    if max(*mean, *std) > 1:
        raise ValueError(f"mean={mean} and std={std} are those of pixels in 0..255: divide them by 255.")
    args = args or Augmentation()
    size = size[0] if isinstance(size, tuple) and size[0] == size[1] else size
    is_training = is_training and not args.no_aug
    if args.interpolation is not None and (is_training or args.interpolation != "random"):
        interpolation = args.interpolation
    try:
        steps = create_transform(
            size,
            is_training=is_training,
            scale=_pair(args.scale),
            ratio=_pair(args.ratio),
            hflip=0.5 if args.hflip is None else args.hflip,
            vflip=args.vflip,
            color_jitter=args.color_jitter,  # type: ignore[arg-type]
            auto_augment=args.aa,
            re_prob=args.reprob,
            interpolation=interpolation,
            crop_pct=args.kept(crop_pct),
            mean=tuple(mean),
            std=tuple(std),
        ).transforms
    except (AssertionError, KeyError, ValueError) as error:
        if args.aa is None:
            raise
        raise ValueError(
            f"aa={args.aa!r} is not known to timm: pass one such as 'rand-m9-mstd0.5', 'augmix-m5-w4' or 'original'."
        ) from error
    if isinstance(steps[0], RandomResizedCropAndInterpolation) and args.padding is not None:
        resize = transforms.Resize(size, interpolation=str_to_interp_mode(interpolation))
        steps = [resize, transforms.RandomCrop(size, padding=args.padding), *steps[1:]]
    return transforms.Compose([ToMode("L" if len(mean) == 1 else "RGB"), *steps])


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


class AugmentedSet(ImageSet):
    """Images whose augmentation depends on the seed, the epoch and the image's number alone.

    So neither the number of workers nor a stop in the middle of an epoch changes what a run sees.

    Args:
        data: the images.
        transform: makes a FloatTensor[C, H, W] of an image, at random.
        seed: at least 0.
    """

    def __init__(self, data: ImageSet, transform: Callable[[Any], Any], seed: int) -> None:
        super().__init__(data.images, data.labels, transform, data.fingerprint)
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that persist see it change

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from now on."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        entropy = (self.seed, int(self._epoch), int(index))
        with drawn_from(int(np.random.SeedSequence(entropy).generate_state(1)[0])):
            return super().__getitem__(index)


class EvaluatedSet(ImageSet):
    """Images with the transform that a trainer reads them with in evaluation."""


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """A block whose random numbers come from a seed; those outside are as if the block were not there."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
