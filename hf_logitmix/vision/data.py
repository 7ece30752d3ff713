"""Image classification data: from the Hub, from local folders, or made up offline."""

from __future__ import annotations

import re
from pathlib import Path

from hf_logitmix.noise import noisy_labels
from hf_logitmix.training.splits import stratified
from hf_logitmix.vision.images import ImageSet
from hf_logitmix.vision.shapes import SHAPE_NAMES, draw_shapes
from hf_logitmix.vision.sources import folder as folders
from hf_logitmix.vision.sources import idx, tables
from hf_logitmix.vision.sources.base import ImageData, few, moments_of_array, of_array
from hf_logitmix.vision.sources.hub import HUB, from_hub, from_known
from hf_logitmix.vision.sources.tables import ImageColumns

__all__ = ["HUB", "SYNTHETIC", "ImageData", "load_images", "subset", "with_label_noise"]

SYNTHETIC = "synthetic"


def load_images(dataset: str, image_column: str | None = None, label_column: str | None = None) -> ImageData:
    """Training and test images, by a name or from a folder.

    ``dataset`` is, in the order in which it is looked up:

    - ``synthetic``: 2000 and 500 images of ten shapes, drawn here from a seed;
    - a name or a Hub id of `HUB` (write ./mnist for a folder of that name);
    - a folder with MNIST-style idx files. Classes are called by their numbers, but by Fashion-MNIST's names where
      there are ten and "fashion" is in the folder's name;
    - a folder that ``save_to_disk`` of `datasets` wrote;
    - a .csv with a column of paths, which start in its own folder, or a folder with train.csv, test.csv and val.csv;
    - a .parquet with a column of images, or a folder of such files, in the Hub's layout: train.parquet or
      data/train-00000-of-00002.parquet, ... Labels of tables may be numbers or names;
    - a folder with images as train/CLASS/*.png and test/CLASS/*.png; val/, valid/ or validation/ beside them is for
      validation, and without test/ for test;
    - a folder with images as CLASS/*.png, which are all for training, as those of a file alone;
    - another Hub id, owner/name, with one image column, one column of labels, a split train, and splits test,
      validation (valid, val) or both with labels, as in a folder.

    But for the first three, size, channels, mean and std come from 256 training images, spread evenly. Where all images
    are for training, ``test`` is empty.

    Args:
        dataset: as above.
        image_column, label_column: of tables; None finds the only column of images, or of paths by its name (image,
            path, file, file_name, filename), and the only ClassLabel, or label, labels, target or score.

    Raises:
        ValueError: for a name that is none of these, for data that cannot be loaded, and for damaged files.
    """
    columns, path = ImageColumns(image_column, label_column), Path(dataset).expanduser()
    known = next((one for name, one in HUB.items() if dataset in (name, one.hub_id)), None)
    is_id = not path.exists() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", dataset)
    if dataset and tables.is_a_table(path) and known is None:
        return tables.from_path(
            path, f"{path.resolve().stem if path.is_file() else path.resolve().name}, local files", columns
        )
    if is_id and known is None:
        return from_hub(dataset, columns)
    if columns != ImageColumns():
        raise ValueError(
            f"image_column and label_column name columns of tables, and dataset={dataset!r} is none: leave them out."
        )
    if dataset == SYNTHETIC:
        return _synthetic()
    if known is not None:
        return from_known(known)
    if dataset and path.is_dir():
        return _from_folder(path)
    raise ValueError(
        f"dataset={dataset!r} is not known: pass one of {', '.join([SYNTHETIC, *HUB])}, a Hub id such as owner/name, a "
        f".csv or .parquet, or a folder with {idx.LAYOUT}, with {tables.LAYOUT}, or with images as {folders.LAYOUT}."
    )


def subset(data: ImageSet, count: int | None, seed: int) -> ImageSet:
    """A random part in which every class keeps its share as nearly as possible, and at least one image.

    Args:
        data: images with labels.
        count: number of images; None gives all.
        seed: the same seed gives the same images.

    Raises:
        ValueError: for a count below the number of classes or above the number of images.
    """
    return data if count is None else data.select(stratified(data.labels, count, seed).tolist())


def with_label_noise(images: ImageSet, rate: float, kind: str, seed: int, num_labels: int) -> ImageSet:
    """The same images, some with a wrong label; arguments and errors as in `hf_logitmix.noise.noisy_labels`."""
    labels = noisy_labels(images.labels, num_labels, rate, kind, seed)
    return ImageSet(images.images, labels, images.transform, images.fingerprint)


def _from_folder(folder: Path) -> ImageData:
    name = f"{folder.resolve().name}, local files"
    if idx.are_there(folder):
        return idx.from_idx(folder, name)
    if splits := folders.splits_in(folder):
        return folders.from_classes(splits, name)
    found = few(path.name + "/" * path.is_dir() for path in folder.iterdir())
    raise ValueError(
        f"dataset: folder {folder} holds {found}, but neither {idx.LAYOUT}, nor {tables.LAYOUT}, nor images as "
        f"{folders.LAYOUT}, or as CLASS/*.png."
    )


def _synthetic() -> ImageData:
    (pixels, labels), test = draw_shapes(2000, seed=0), draw_shapes(500, seed=1)
    mean, std = moments_of_array(pixels)
    name = "synthetic shapes (made up by hf_logitmix)"
    return ImageData(name, of_array(pixels, labels), of_array(*test), SHAPE_NAMES, 32, 3, mean, std)
