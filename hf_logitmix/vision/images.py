"""Images with labels, as `hf_logitmix.vision` reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

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
