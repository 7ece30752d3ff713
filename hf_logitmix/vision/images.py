"""Images with labels, as `hf_logitmix.vision` reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms.functional import to_pil_image
from transformers import default_data_collator

from hf_logitmix.digest import digest

Transform = Callable[[Any], Any]
WHAT_AN_IMAGE_IS = (
    "an image is a PIL image, a path, an array of uint8 [H, W] or [H, W, C], a tensor of uint8 [C, H, W] or, "
    "transformed by you, a tensor of floats [C, H, W]"
)


class ImageSet(Dataset):
    """Images with labels; an image is transformed when it is read.

    Args:
        images: a sequence that gives images by their number: PIL images, paths, arrays of uint8 [H, W] or [H, W, C],
            tensors of uint8 [C, H, W], or whatever ``transform`` reads. Without ``labels`` it may give pairs
            (image, class).
        labels: the class of each, [N] integers, or its soft label, [N, K] floats that sum to 1, so that it is known
            before an image is read; None where the images bring it, and for images to predict on.
        transform: makes a FloatTensor[C, H, W] of an image; None leaves that to `ImageMixTrainer`, which makes one for
            training or evaluation from its arguments.
        fingerprint: tells these images from others; empty where that is not known.

    Raises:
        ValueError: for another number of labels than images, and on reading a file that is damaged, with its name.
    """

    labels: Any

    def __init__(
        self, images: Sequence[Any], labels: Any = None, transform: Transform | None = None, fingerprint: str = ""
    ) -> None:
        self.images, self.labels = images, None if labels is None else np.asarray(labels)
        self.transform, self.fingerprint = transform, fingerprint
        if self.labels is not None and len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images and {len(self.labels)} labels: pass one label an image.")

    @property
    def knows_labels(self) -> bool:
        """Whether labels are there before an image is read."""
        return self.labels is not None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.images[int(index)], None
        if isinstance(image, tuple):
            image, label = image
        if self.knows_labels:
            label = self.labels[int(index)].tolist()
        read = image if self.transform is None else self.transform(image)
        return {"pixel_values": read, **({} if label is None else {"labels": label})}

    def with_transform(self, transform: Transform | None) -> ImageSet:
        """The same images with another transform."""
        return ImageSet(self.images, self.labels, transform, self.fingerprint)

    def select(self, indices: Sequence[int]) -> ImageSet:
        """Some of the images, in the order of ``indices``."""
        chosen = np.asarray(indices, dtype=np.int64)
        name = digest(self.fingerprint, [{"chosen": torch.from_numpy(chosen)}]).hex() if self.fingerprint else ""
        labels = self.labels[chosen] if self.knows_labels else None
        return ImageSet(ReadWhenAsked(chosen, self.images.__getitem__), labels, self.transform, name)


@dataclass(frozen=True)
class ReadWhenAsked(Sequence):
    """A sequence whose elements are made of its items when they are asked for.

    Raises:
        ValueError: for an item that holds a damaged image, with its file where ``items`` tells it, or its number.
    """

    items: Any
    read: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        number = int(index)
        try:
            return self.read(self.items[number])
        except (OSError, SyntaxError) as error:  # what PIL raises for what it cannot decode
            raise _damaged(_name_of(self.items, number), error) from error


def read_image(path: str | Path, mode: str | None = None) -> Image.Image:
    """The image in a file, in a mode of PIL; None keeps greyscale and colour.

    Raises:
        ValueError: for a file that is no image, or is truncated or damaged.
    """
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except Exception as error:  # PIL raises nearly anything for a damaged file
        raise _damaged(path, error) from error


def _name_of(items: Any, number: int) -> str:
    files = getattr(items, "samples", None)  # of torchvision's folders
    if files is not None:
        return str(files[number][0])
    split = getattr(items, "split", None)
    return f"image {number} of {type(items).__name__}{f', split {split}' if split else ''}"


def _damaged(name: str | Path, error: Exception) -> ValueError:
    reason = str(error).rstrip(".") or type(error).__name__
    return ValueError(f"{name} cannot be read as an image ({reason}): get it again, or leave it out.")


def is_raw(value: Any) -> bool:
    """Whether a value is an image that is still to be transformed."""
    is_array = isinstance(value, (np.ndarray, Tensor)) and value.ndim in (2, 3)
    return isinstance(value, (Image.Image, str, Path)) or (is_array and str(value.dtype).endswith("uint8"))


def is_ready(value: Any) -> bool:
    """Whether a value is an image as a model reads it."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 3


def as_image(value: Any) -> Image.Image:
    """A PIL image of any image that is still to be transformed.

    Raises:
        ValueError: for what is no image, or has more than 8 bits.
    """
    if isinstance(value, (str, Path)):
        value = read_image(value)
    if not is_raw(value):
        raise ValueError(f"found {kind(value)} as an image: {WHAT_AN_IMAGE_IS}.")
    image = value if isinstance(value, Image.Image) else to_pil_image(value)
    if image.mode[0] in "IF":
        raise ValueError(f"found an image of more than 8 bits ({image.mode}): convert it to 8 bits.")
    return image


def as_it_is(image: Any) -> Any:
    """The transform of images that have been transformed."""
    return image


def kind(value: Any) -> str:
    """A type for messages, with the element type and the shape of arrays."""
    shape = f" of {str(value.dtype).removeprefix('torch.')} {list(value.shape)}" if hasattr(value, "dtype") else ""
    return f"{type(value).__name__}{shape}"


def check_sizes(examples: Sequence[Any], where: str) -> None:
    """Refuse examples whose ``pixel_values`` cannot be one batch."""
    shapes = sorted({tuple(getattr(example["pixel_values"], "shape", ())) for example in examples})
    if len(shapes) > 1:
        found = ", ".join(str(list(shape)) for shape in shapes[:4])
        raise ValueError(
            f"{where} has images of the sizes {found}: let your transform make all of them one size, or leave the "
            "transform out and pass image_size."
        )


def check_contrast(examples: Sequence[Any], normalised: Mapping[str, Any]) -> None:
    """Refuse examples whose ``pixel_values`` are nearly one colour, as they are where they were normalised wrongly.

    Args:
        examples: of one size, spread over the dataset.
        normalised: ``mean`` and ``std``, if that was done here.
    """
    if not examples:
        return
    pixels = torch.stack([torch.as_tensor(example["pixel_values"]).double().cpu() for example in examples])
    spread = pixels.transpose(0, 1).flatten(1).std(1, correction=0).max().item()  # channels have levels of their own
    if spread < 0.01:
        by = f"mean={tuple(normalised['mean'])} and std={tuple(normalised['std'])}" if normalised else "your transform"
        raise ValueError(
            f"train_dataset is nearly one colour when it is normalised by {by}: its standard deviation is {spread:.2g} "
            f"over {len(examples)} images, so normalise pixels in [0, 1] by their own mean and standard deviation."
        )


def collate_images(examples: Sequence[Any]) -> dict[str, Any]:
    """Transformers' `default_data_collator`, which says in a sentence what cannot be a batch.

    Images are stacked by torch's own collator, which in a worker writes them straight into the memory that is shared
    with the main process.

    Raises:
        ValueError: for images of several sizes, and for examples that are not rows with ``pixel_values``.
    """
    first = examples[0]
    if not isinstance(first, Mapping) or "pixel_values" not in first:
        names = ", ".join(map(str, first)) if isinstance(first, Mapping) else kind(first)
        raise ValueError(f"an example of the dataset is {names}: pass rows with `pixel_values` and `labels`.")
    check_sizes(examples, "a batch")
    if not isinstance(first["pixel_values"], Tensor):
        return default_data_collator(list(examples))
    rest = [{name: value for name, value in example.items() if name != "pixel_values"} for example in examples]
    pixels = default_collate([example["pixel_values"] for example in examples])
    return {**default_data_collator(rest), "pixel_values": pixels}
