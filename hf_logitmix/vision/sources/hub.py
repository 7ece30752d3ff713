"""Datasets of the Hub: those whose columns, size and pixels are known here, and others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import datasets

from hf_logitmix.tables.labels import ONE, Labels
from hf_logitmix.vision.sources.base import ImageData, Look, Numbers, image_data
from hf_logitmix.vision.sources.tables import ImageColumns, from_tables, split_of


@dataclass(frozen=True)
class HubImages:
    """Where a dataset is on the Hub, its columns, and how models are trained on it.

    Args:
        hub_id: owner/name.
        image_size, channels, mean, std: as in `ImageData`.
        image, label: columns.
        train, test: splits; test is the one with labels.
        config: None where there is just one.
    """

    hub_id: str
    image_size: int
    channels: int
    mean: Numbers
    std: Numbers
    image: str = "image"
    label: str = "label"
    train: str = "train"
    test: str = "test"
    config: str | None = None


# Mean and standard deviation over all pixels of the training images, as they are commonly used: for MNIST those of
# PyTorch's examples, for Fashion-MNIST computed here from its files, for ImageNet torchvision's, for the others the
# numbers that most public training scripts carry.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HUB = {
    "mnist": HubImages("ylecun/mnist", 32, 1, (0.1307,), (0.3081,)),
    "fashion_mnist": HubImages("zalando-datasets/fashion_mnist", 32, 1, (0.2860,), (0.3530,)),
    "svhn": HubImages(
        "ufldl-stanford/svhn", 32, 3, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), config="cropped_digits"
    ),
    "cifar10": HubImages("uoft-cs/cifar10", 32, 3, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "img"),
    "cifar100": HubImages(
        "uoft-cs/cifar100", 32, 3, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), "img", "fine_label"
    ),
    "tiny-imagenet": HubImages(
        "zh-plus/tiny-imagenet", 64, 3, (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821), test="valid"
    ),
    "imagenet-1k": HubImages("ILSVRC/imagenet-1k", 224, 3, *_IMAGENET, test="validation"),
}


def load(hub_id: str, config: str | None = None, split: str | None = None) -> Any:
    try:
        return datasets.load_dataset(hub_id, config, split=split)
    except (OSError, ValueError) as error:  # offline, gated or not there; or a split or a config that is not there
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"dataset {hub_id} could not be loaded from the Hub ({reason}) and is no folder here: check its name and "
            f"the network, or pass synthetic or a folder."
        ) from error


def from_known(known: HubImages) -> ImageData:
    """Images of a dataset whose layout is known.

    Raises:
        ValueError: for one that cannot be loaded, and for another layout than the known one.
    """
    splits, classes = {}, Labels(ONE)
    for split in (known.train, known.test):
        data = load(known.hub_id, known.config, split)
        for column, kind in ((known.image, datasets.Image), (known.label, datasets.ClassLabel)):
            if not isinstance(data.features.get(column), kind):
                found = ", ".join(data.column_names)
                raise ValueError(
                    f"{known.hub_id} has no column {column!r} of type {kind.__name__} in split {split} (its columns: "
                    f"{found}): its layout has changed, so pass a folder instead."
                )
        classes = Labels(ONE, tuple(data.features[known.label].names), named=True)
        splits[split] = split_of(data, known.image, known.label, classes, f"split {split} of {known.hub_id}")
    look = Look(known.image_size, known.channels, known.mean, known.std)
    return image_data(known.hub_id, splits, classes.names, look, known.test)


def from_hub(hub_id: str, columns: ImageColumns) -> ImageData:
    """Images of any other dataset; errors as in `from_tables`."""
    return from_tables(load(hub_id), hub_id, columns)
