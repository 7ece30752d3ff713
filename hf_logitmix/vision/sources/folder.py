"""Folders of images, a folder for each class: with splits above them, or without."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from hf_logitmix.digest import digest
from hf_logitmix.vision.images import read_image
from hf_logitmix.vision.sources.base import SPLITS, ImageData, Split, few, image_data

_LIKE_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
LAYOUT = "train/CLASS/*.png with test/CLASS/*.png, val/CLASS/*.png (also valid/ or validation/) or both"


def splits_in(folder: Path) -> dict[str, Path]:
    """Split -> folder of its classes; a folder of classes alone is ``train``, and empty if it holds neither.

    Raises:
        ValueError: where the classes would be splits that have other names.
    """
    inside = [path for path in folder.iterdir() if path.is_dir()]
    splits = {split: folder / split for split in SPLITS if (folder / split).is_dir()}
    if "train" in splits and (len(splits) > 1 or len(inside) == 1):
        return splits
    if splits or not any(map(_holds_images, inside)):
        return {}
    if strange := sorted(path.name for path in inside if path.name.lower() in _LIKE_SPLITS):
        raise ValueError(f"{folder} holds {' and '.join(strange)}, which are no classes: call the folders {LAYOUT}.")
    return {"train": folder}


def from_classes(splits: dict[str, Path], name: str) -> ImageData:
    """Images of folders as `splits_in` finds them.

    Raises:
        ValueError: for a class without images, and for splits with other classes than training.
    """
    found = {split: _image_folder(path) for split, path in splits.items()}
    here = set(found["train"].classes)
    for split, there in {split: set(part.classes) for split, part in found.items()}.items():
        if here != there:
            raise ValueError(
                f"train/ and {split}/ of {splits[split].parent} hold different classes, only in train/: "
                f"{few(here - there)}; only in {split}/: {few(there - here)}."
            )
    root = splits["train"].parent if len(splits) > 1 else splits["train"]
    parts = {
        split: of_files([path for path, _ in part.samples], part.targets, root, str(splits[split]))
        for split, part in found.items()
    }
    return image_data(name, parts, tuple(found["train"].classes))


def of_files(paths: list[str], labels: object, root: Path, where: str) -> Split:
    """Images in files; their names from ``root`` on and their sizes tell them from others."""
    names = "\n".join(Path(os.path.relpath(file, root)).as_posix() for file in paths)
    sizes = torch.tensor([Path(file).stat().st_size for file in paths])
    return Split(paths, read_image, np.asarray(labels), digest(names, [{"sizes": sizes}]).hex(), where)


def _holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMG_EXTENSIONS for path in folder.rglob("*"))


def _image_folder(folder: Path) -> ImageFolder:
    try:
        return ImageFolder(str(folder))
    except FileNotFoundError as error:  # no class, or a class without images
        raise ValueError(f"{folder} needs a folder for each class, with images in it: {error}") from error
