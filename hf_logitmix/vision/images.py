"""Images with labels, as `hf_logitmix.vision` reads them, and what else may hold such."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets import VisionDataset

from hf_logitmix.digest import digest

Transform = Callable[[Any], Any]


class ImageSet(Dataset):
    """Images with labels; an image is transformed when it is read, the labels are known before.

    Args:
        images: a sequence that gives PIL images by their number.
        labels: the class of each, [N] integers; None of images to predict on.
        transform: makes a FloatTensor[C, H, W] of an image; None leaves that to `ImageMixTrainer`, which makes one for
            training or evaluation from its arguments.
        fingerprint: tells these images from others; empty where that is not known.

    Raises:
        ValueError: for another number of labels than images.
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
        return self.labels is not None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[int(index)]
        label = {"labels": int(self.labels[index])} if self.knows_labels else {}
        return {"pixel_values": image if self.transform is None else self.transform(image), **label}

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
    """A sequence whose elements are made of its items when they are asked for."""

    items: Any
    read: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.read(self.items[int(index)])


def as_image_set(data: Any) -> Any:
    """An `ImageSet` of a `datasets.Dataset` with images, of a dataset of torchvision, or of a part of one.

    Anything else stays as it is, as does a `datasets.Dataset` with a transform of its own or with ``pixel_values``.

    Raises:
        ValueError: for a stream of images, for several image columns, or where it is not clear what the labels are.
    """
    if isinstance(data, Subset) and isinstance(whole := as_image_set(data.dataset), ImageSet):
        return whole.select(data.indices)
    if isinstance(data, datasets.IterableDataset) and any(
        isinstance(kind, datasets.Image) for kind in (data.features or {}).values()
    ):
        raise ValueError("a stream of images cannot be read by number: pass a datasets.Dataset, or make pixel_values.")
    if isinstance(data, VisionDataset):
        return _of_torchvision(data)
    if isinstance(data, (ConcatDataset, TensorDataset)) and len(data) and isinstance(data[0], (tuple, list)):
        raise ValueError(
            f"{type(data).__name__} gives tuples, of which labels cannot be told: pass ImageSet(images, labels), a "
            "dataset of torchvision, or rows with pixel_values and labels."
        )
    if not isinstance(data, datasets.Dataset) or data.format["type"] == "custom" or "pixel_values" in data.features:
        return data
    images = [name for name, kind in data.features.items() if isinstance(kind, datasets.Image)]
    if not images:
        return data
    labels = [name for name in ("labels", "label") if name in data.features]
    labels = labels or [name for name, kind in data.features.items() if isinstance(kind, datasets.ClassLabel)]
    if len(images) > 1 or len(labels) > 1:
        raise ValueError(
            f"image columns {images} and label columns {labels}: leave one of each (remove_columns), and call the "
            "labels `labels`."
        )
    data = data.with_format(None)
    numbers = np.asarray(data[labels[0]][:]) if labels else None
    if numbers is not None and not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"column {labels[0]!r} holds no class ids: turn it into them with class_encode_column.")
    return ImageSet(
        ReadWhenAsked(data.select_columns(images), itemgetter(images[0])), numbers, fingerprint=str(data._fingerprint)
    )


def _of_torchvision(data: VisionDataset) -> ImageSet:
    labels = getattr(data, "targets", getattr(data, "labels", None))
    if labels is None or len(labels) != len(data) or data.target_transform is not None:
        raise ValueError(f"{type(data).__name__} does not tell its targets: pass ImageSet(images, labels).")
    transformed = data.transform is not None or data.transforms is not None
    return ImageSet(ReadWhenAsked(data, itemgetter(0)), labels, as_it_is if transformed else None)


def as_it_is(image: Any) -> Any:
    """The transform of images that have been transformed."""
    return image
