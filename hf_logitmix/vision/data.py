"""Image classification data: from the Hub, from local folders, or made up offline."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from hf_logitmix.digest import digest
from hf_logitmix.noise import noisy_labels
from hf_logitmix.training.splits import stratified
from hf_logitmix.vision.idx import read_idx
from hf_logitmix.vision.images import ImageSet, ReadWhenAsked, read_image
from hf_logitmix.vision.shapes import SHAPE_NAMES, draw_shapes

logger = logging.getLogger(__name__)

Numbers = tuple[float, ...]


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
        test_split: what ``test`` is called where it comes from; "val" or the like where that is all there is.
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

SYNTHETIC = "synthetic"
IDX_LAYOUT = "idx files (train-images-idx3-ubyte, train-labels-idx1-ubyte and the two of t10k, each also as .gz)"
FOLDER_LAYOUT = "train/CLASS/*.png with test/CLASS/*.png, val/CLASS/*.png (also valid/ or validation/) or both"
FASHION_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

_VALIDATION = ("validation", "valid", "val")  # what it is called
_LOOKED_AT = 256


def load_images(dataset: str) -> ImageData:
    """Training and test images, by a name or from a folder.

    ``dataset`` is, in the order in which it is looked up:

    - ``synthetic``: 2000 and 500 images of ten shapes, drawn here from a seed;
    - a name or a Hub id of `HUB` (write ./mnist for a folder of that name);
    - a folder with MNIST-style idx files. Classes are called by their numbers, but by Fashion-MNIST's names where
      there are ten and "fashion" is in the folder's name;
    - a folder with images as train/CLASS/*.png and test/CLASS/*.png; val/, valid/ or validation/ beside them is for
      validation, and without test/ for test;
    - another Hub id, owner/name, with one image column, one ClassLabel column, a split train, and splits test,
      validation (valid, val) or both with labels, as in a folder.

    For the last two, size, channels, mean and std come from 256 training images, spread evenly.

    Raises:
        ValueError: for a name that is none of these, for data that cannot be loaded, and for damaged files.
    """
    if dataset == SYNTHETIC:
        return _synthetic()
    for name, known in HUB.items():
        if dataset in (name, known.hub_id):
            return _from_known(known)
    folder = Path(dataset).expanduser()
    if dataset and folder.is_dir():
        return _from_folder(folder)
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", dataset):
        return _from_hub(dataset)
    raise ValueError(
        f"dataset={dataset!r} is not known: pass one of {', '.join([SYNTHETIC, *HUB])}, a Hub id such as owner/name, "
        f"or a folder with {IDX_LAYOUT} or with images as {FOLDER_LAYOUT}."
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


# ---- reading images ------------------------------------------------------------------------------------------------


def _from_row(row: dict[str, Image.Image], column: str, mode: str | None) -> Image.Image:
    return row[column].convert(mode)


def _of_array(pixels: np.ndarray, labels: np.ndarray) -> ImageSet:
    """Of UIntArray[N, H, W] or [N, H, W, 3]."""
    fingerprint = digest("", [{"images": torch.from_numpy(pixels)}]).hex()
    return ImageSet(ReadWhenAsked(pixels, Image.fromarray), labels, fingerprint=fingerprint)


def _mode(channels: int) -> str:
    return "L" if channels == 1 else "RGB"


@dataclass(frozen=True)
class _Look:
    """What `ImageData` says of images."""

    image_size: int
    channels: int
    mean: Numbers
    std: Numbers


def _look_at(images: Sequence[Image.Image], name: str) -> _Look:
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

    mean, std = _moments(pixels())
    channels = 1 if modes <= {"1", "L", "LA"} else 3
    return _Look(_side(max(sides)), channels, mean[:channels], std[:channels])


def _side(largest: int) -> int:
    """The side to train at, for images with sides up to ``largest``."""
    return next((side for side in (32, 64) if largest <= side), 224)


def _moments(batches: Iterable[np.ndarray]) -> tuple[Numbers, Numbers]:
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


def _moments_of_array(pixels: np.ndarray) -> tuple[Numbers, Numbers]:
    return _moments(pixels[start : start + 1000] for start in range(0, len(pixels), 1000))


# ---- the Hub -------------------------------------------------------------------------------------------------------


def _load(hub_id: str, config: str | None = None, split: str | None = None) -> Any:
    try:
        return datasets.load_dataset(hub_id, config, split=split)
    except (OSError, ValueError) as error:  # offline, gated or not there; or a split or a config that is not there
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"dataset {hub_id} could not be loaded from the Hub ({reason}) and is no folder here: check its name and "
            f"the network, or pass {SYNTHETIC} or a folder."
        ) from error


def _from_known(known: HubImages) -> ImageData:
    parts = {}
    for split in (known.train, known.test):
        data = _load(known.hub_id, known.config, split)
        for column, kind in ((known.image, datasets.Image), (known.label, datasets.ClassLabel)):
            if not isinstance(data.features.get(column), kind):
                found = ", ".join(data.column_names)
                raise ValueError(
                    f"{known.hub_id} has no column {column!r} of type {kind.__name__} in split {split} (its columns: "
                    f"{found}): its layout has changed, so pass a folder instead."
                )
        images = _of_dataset(data, known.image, known.label, _mode(known.channels))
        names = tuple(data.features[known.label].names)
        _check_labels(images.labels, len(names), f"split {split} of {known.hub_id}")
        parts[split] = images
    look = _Look(known.image_size, known.channels, known.mean, known.std)
    return _image_data(known.hub_id, parts, known.test, "", names, look)


def _from_hub(hub_id: str) -> ImageData:
    found = _load(hub_id)
    features = next(iter(found.values())).features
    pictures, classes = (
        [name for name, feature in features.items() if isinstance(feature, kind)]
        for kind in (datasets.Image, datasets.ClassLabel)
    )
    if len(pictures) != 1 or len(classes) != 1:
        raise ValueError(
            f"dataset {hub_id} needs one column of images and one ClassLabel column, but has {_few(pictures)} and "
            f"{_few(classes)}: save it as a folder with {FOLDER_LAYOUT}."
        )
    image, label = pictures[0], classes[0]
    labels = {split: _labels(found[split], label) for split in ("train", "test", *_VALIDATION) if split in found}
    known = [split for split, numbers in labels.items() if len(numbers) and (numbers >= 0).all()]  # -1: kept secret
    for split in labels.keys() - {*known, "train"}:
        logger.warning("split %s of %s has no labels and is left out.", split, hub_id)
    test, validation = _roles(known, hub_id)
    if not len(labels.get("train", ())) or not test:
        raise ValueError(
            f"dataset {hub_id} needs a split train, and a split test or validation with labels, but has "
            f"{_few(found)}: save it as a folder with {FOLDER_LAYOUT}."
        )
    read = partial(_from_row, column=image, mode=None)
    look = _look_at(ReadWhenAsked(found["train"].with_format(None).select_columns(image), read), hub_id)
    names, parts = tuple(features[label].names), {}
    for split in filter(None, ("train", test, validation)):
        parts[split] = _of_dataset(found[split], image, label, _mode(look.channels))
        _check_labels(parts[split].labels, len(names), f"split {split} of {hub_id}")
    return _image_data(hub_id, parts, test, validation, names, look)


def _of_dataset(data: datasets.Dataset, image: str, label: str, mode: str) -> ImageSet:
    rows = data.with_format(None).select_columns(image)
    read = partial(_from_row, column=image, mode=mode)
    return ImageSet(ReadWhenAsked(rows, read), _labels(data, label), fingerprint=str(data._fingerprint))


def _labels(data: datasets.Dataset, column: str) -> np.ndarray:
    """Read from their own column, so that no image is decoded; -1 where there is none."""
    return np.asarray([-1 if label is None else label for label in data.with_format(None)[column][:]], dtype=np.int64)


def _check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    if not len(labels):
        raise ValueError(f"{where} is empty: pass a dataset with images.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"{where} holds labels outside 0..{classes - 1}: pass a dataset where every image has a class."
        )


def _roles(splits: Sequence[str], where: str) -> tuple[str, str]:
    """The split to report on and the one to choose a checkpoint on, of the names that are there; empty for none."""
    validations = [split for split in _VALIDATION if split in splits]
    if len(validations) > 1:
        raise ValueError(f"{where} holds {' and '.join(validations)}, which are all for validation: keep one of them.")
    validation = next(iter(validations), "")
    return ("test", validation) if "test" in splits else (validation, "")


def _image_data(
    name: str, parts: dict[str, ImageSet], test: str, validation: str, label_names: tuple[str, ...], look: _Look
) -> ImageData:
    return ImageData(
        name,
        parts["train"],
        parts[test],
        label_names,
        look.image_size,
        look.channels,
        look.mean,
        look.std,
        test,
        parts.get(validation),
        validation,
    )


def _few(names: Iterable[str]) -> str:
    """Some names for an error message."""
    found = sorted(names)
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    return (", ".join(found[:6]) or "nothing") + more


# ---- folders -------------------------------------------------------------------------------------------------------


def _from_folder(folder: Path) -> ImageData:
    name = f"{folder.resolve().name}, local files"
    if any(_idx_files(folder, part, kind) for part in ("train", "t10k") for kind in ("images", "labels")):
        return _from_idx(folder, name)
    test, validation = _roles([split for split in ("test", *_VALIDATION) if (folder / split).is_dir()], str(folder))
    if test and (folder / "train").is_dir():
        return _from_classes(folder, test, validation, name)
    found = _few(path.name + "/" * path.is_dir() for path in folder.iterdir())
    raise ValueError(f"dataset: folder {folder} holds {found}, but neither {IDX_LAYOUT} nor images as {FOLDER_LAYOUT}.")


def _from_classes(folder: Path, test: str, validation: str, name: str) -> ImageData:
    found = {split: _image_folder(folder / split) for split in filter(None, ("train", test, validation))}
    here = set(found["train"].classes)
    for split, there in {split: set(part.classes) for split, part in found.items()}.items():
        if here != there:
            raise ValueError(
                f"train/ and {split}/ of {folder} hold different classes, only in train/: {_few(here - there)}; only "
                f"in {split}/: {_few(there - here)}."
            )
    paths = {split: [path for path, _ in part.samples] for split, part in found.items()}
    look = _look_at(ReadWhenAsked(paths["train"], partial(read_image, mode=None)), str(folder))
    read = partial(read_image, mode=_mode(look.channels))
    parts = {
        split: ImageSet(ReadWhenAsked(files, read), found[split].targets, fingerprint=_names_and_sizes(files, folder))
        for split, files in paths.items()
    }
    return _image_data(name, parts, test, validation, tuple(found["train"].classes), look)


def _image_folder(folder: Path) -> ImageFolder:
    try:
        return ImageFolder(str(folder))
    except FileNotFoundError as error:  # no class, or a class without images
        raise ValueError(f"{folder} needs a folder for each class, with images in it: {error}") from error


def _names_and_sizes(files: list[str], folder: Path) -> str:
    names = "\n".join(Path(file).relative_to(folder).as_posix() for file in files)
    return digest(names, [{"sizes": torch.tensor([Path(file).stat().st_size for file in files])}]).hex()


def _idx_files(folder: Path, part: str, kind: str) -> list[Path]:
    stem = f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    return [path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()]


def _from_idx(folder: Path, name: str) -> ImageData:
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
    train, test = (_of_array(arrays[part, "images"], arrays[part, "labels"].astype(int)) for part in ("train", "t10k"))
    classes = max(10, int(train.labels.max()) + 1, int(test.labels.max()) + 1)
    fashion = classes == 10 and "fashion" in folder.resolve().name.lower()
    names = FASHION_NAMES if fashion else tuple(map(str, range(classes)))
    pixels = arrays["train", "images"]
    mean, std = _moments_of_array(pixels)
    return ImageData(name, train, test, names, _side(max(pixels.shape[1:])), 1, mean, std)


# ---- made-up images ------------------------------------------------------------------------------------------------


def _synthetic() -> ImageData:
    (pixels, labels), test = draw_shapes(2000, seed=0), draw_shapes(500, seed=1)
    mean, std = _moments_of_array(pixels)
    name = "synthetic shapes (made up by hf_logitmix)"
    return ImageData(name, _of_array(pixels, labels), _of_array(*test), SHAPE_NAMES, 32, 3, mean, std)
