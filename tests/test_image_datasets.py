"""Every ordinary dataset of images trains as rows made by hand do; others, and damaged files, are one sentence."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import timm.data
import torch
from conftest import Lazy
from PIL import Image
from test_image_trainer import IMAGES, MEAN, STD, InOrder, Tiny, image_arguments, images, logged, tensors
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split
from torchvision import transforms
from torchvision.datasets import ImageFolder
from transformers import DefaultDataCollator

from hf_logitmix import MixCollator
from hf_logitmix.vision import ImageMixTrainer, ImageSet
from hf_logitmix.vision.transforms import image_transform

COUNT = 12
LABELS = [number // 4 for number in range(COUNT)]  # as a folder for each class has them
PICTURES = images(COUNT).images
NORMALISE = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def by_hand() -> tuple[torch.Tensor, torch.Tensor]:
    """FloatTensor[12, 3, 32, 32], normalised without any transform, and the labels."""
    return tensors(ImageSet(PICTURES, LABELS))[0], torch.tensor(LABELS)


class Pairs(Dataset):
    """A dataset as anybody writes it."""

    def __init__(self, transform: Callable | None = None) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index):
        image = PICTURES[index]
        return image if self.transform is None else self.transform(image), LABELS[index]


def folder_of(path: Path) -> Path:
    for number, (image, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
        (path / "abc"[label]).mkdir(parents=True, exist_ok=True)
        image.save(path / "abc"[label] / f"{number:02}.png")
    return path


def paths_of(path: Path) -> list[Path]:
    return sorted(folder_of(path).glob("*/*.png"))


def table(transform: Callable | None = None) -> datasets.Dataset:
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abc")), "id": datasets.Value("int64")}
    rows = {"image": PICTURES, "label": LABELS, "id": list(range(COUNT))}
    data = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    return data if transform is None else data.with_transform(transform)


def pixels_added(batch):
    return {**batch, "pixel_values": [NORMALISE(image) for image in batch["image"]]}


def pixels_alone(batch):
    return {"pixel_values": [NORMALISE(image) for image in batch["image"]], "labels": batch["label"]}


def in_their_place(batch):
    return {**batch, "image": [NORMALISE(image) for image in batch["image"]]}


def bytes_of() -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(image)) for image in PICTURES])


KINDS: dict[str, Callable[[Path], object]] = {
    "pairs of tensors": lambda path: Pairs(NORMALISE),
    "pairs of images": lambda path: Pairs(),
    "TensorDataset": lambda path: TensorDataset(*by_hand()),
    "TensorDataset of bytes": lambda path: TensorDataset(bytes_of().permute(0, 3, 1, 2), torch.tensor(LABELS)),
    "ConcatDataset of tensors": lambda path: ConcatDataset([TensorDataset(*by_hand())]),
    "Subset": lambda path: Subset(Pairs(NORMALISE), range(COUNT)),
    "torchvision": lambda path: ImageFolder(str(folder_of(path))),
    "torchvision, transformed": lambda path: ImageFolder(str(folder_of(path)), NORMALISE),
    "timm": lambda path: timm.data.create_dataset("", str(folder_of(path))),
    "timm, transformed": lambda path: timm.data.create_dataset("", str(folder_of(path)), transform=NORMALISE),
    "datasets": lambda path: table(),
    "datasets, with_transform": lambda path: table(pixels_added),
    "datasets, labels made by a transform": lambda path: table(pixels_alone),
    "datasets, transformed in their place": lambda path: table(in_their_place),
    "datasets, with a transform that does nothing": lambda path: table(lambda batch: batch),
    "ConcatDataset of datasets": lambda path: ConcatDataset([table()]),
    "list of pairs": lambda path: list(zip(PICTURES, LABELS, strict=True)),
    "list of paths with classes": lambda path: list(zip(map(str, paths_of(path)), LABELS, strict=True)),
    "list of rows": lambda path: [{"image": i, "label": k} for i, k in zip(PICTURES, LABELS, strict=True)],
    "rows that come late": lambda path: Lazy([{"img": np.array(i), "label": k} for i, k in Pairs()]),
    "ImageSet of an array": lambda path: ImageSet(bytes_of().numpy(), LABELS),
    "ImageSet of a tensor": lambda path: ImageSet(bytes_of().permute(0, 3, 1, 2), LABELS),
    "ImageSet of floats": lambda path: ImageSet(by_hand()[0], LABELS),
    "ImageSet of paths": lambda path: ImageSet(paths_of(path), LABELS),
    "ImageSet of pairs": lambda path: ImageSet(list(zip(PICTURES, LABELS, strict=True))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_is_read_as_by_hand(tmp_path, kind):
    """Its predictions and its first loss are those of tensors that were normalised by hand, in the same order."""
    data = KINDS[kind](tmp_path / "images")
    args = image_arguments(tmp_path, max_steps=1, per_device_train_batch_size=4, no_aug=True)
    trainer = InOrder(model=Tiny(), args=args, method="vanilla", train_dataset=data, num_labels=3, **IMAGES)
    pixels, labels = by_hand()
    found = trainer.predict(data)
    np.testing.assert_allclose(found.predictions, Tiny().eval()(pixels).detach(), atol=1e-5)
    assert found.label_ids.tolist() == LABELS
    trainer.train()
    assert logged(trainer, "loss") == pytest.approx([F.cross_entropy(Tiny()(pixels[:4]), labels[:4]).item()], abs=1e-4)
