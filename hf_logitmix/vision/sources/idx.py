"""Folders with MNIST-style idx files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hf_logitmix.vision.idx import read_idx
from hf_logitmix.vision.sources.base import ImageData, moments_of_array, of_array, side

LAYOUT = "idx files (train-images-idx3-ubyte, train-labels-idx1-ubyte and the two of t10k, each also as .gz)"
FASHION_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def are_there(folder: Path) -> bool:
    """Whether a folder holds any of the four files."""
    return any(_idx_files(folder, part, kind) for part in ("train", "t10k") for kind in ("images", "labels"))


def from_idx(folder: Path, name: str) -> ImageData:
    arrays: dict[tuple[str, str], np.ndarray] = {}
    for part in ("train", "t10k"):
        for kind, dimensions in (("images", 3), ("labels", 1)):
            files = _idx_files(folder, part, kind)
            if not files:
                raise ValueError(
                    f"{folder} lacks {part}-{kind}-idx{dimensions}-ubyte[.gz]: it needs all four idx files."
                )
            arrays[part, kind] = read_idx(files[0], dimensions)
        images, labels = len(arrays[part, "images"]), len(arrays[part, "labels"])
        if images != labels or not arrays[part, "images"].size:
            raise ValueError(f"{folder} has {images} images and {labels} labels of {part}: get its idx files again.")
    train, test = (of_array(arrays[part, "images"], arrays[part, "labels"].astype(int)) for part in ("train", "t10k"))
    classes = max(10, int(train.labels.max()) + 1, int(test.labels.max()) + 1)
    fashion = classes == 10 and "fashion" in folder.resolve().name.lower()
    names = FASHION_NAMES if fashion else tuple(map(str, range(classes)))
    pixels = arrays["train", "images"]
    mean, std = moments_of_array(pixels)
    return ImageData(name, train, test, names, side(max(pixels.shape[1:])), 1, mean, std)


def _idx_files(folder: Path, part: str, kind: str) -> list[Path]:
    stem = f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    return [path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()]
