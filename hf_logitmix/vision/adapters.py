"""What else may hold images, as an `ImageSet`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

import datasets
import numpy as np
from timm.data import IterableImageDataset
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import VisionDataset

from hf_logitmix.vision.images import WHAT_AN_IMAGE_IS, ImageSet, ReadWhenAsked, as_it_is, is_raw, is_ready, kind
from hf_logitmix.vision.transforms import drawn_from

_LABELS = ("labels", "label")
_FEW = 16  # images that are read to see whose labels an attribute holds


def as_image_set(data: Any, *, needs_labels: bool = False, own_collator: bool = False) -> Any:
    """An `ImageSet` of a dataset that gives images, or (image, class) pairs, or rows with an image and a label.

    So of the datasets of torchvision and timm, of `TensorDataset`, of a `datasets.Dataset` with or without a transform,
    of lists, and of parts and concatenations of them. Tensors of floats are images that have been transformed. Rows
    with such ``pixel_values`` stay as they are, and so do streams of them.

    Args:
        data: whatever was passed as a dataset; None stays None.
        needs_labels: whether images without labels are refused.
        own_collator: whether the user brings a collator, which gets what has been transformed, and what is not known,
            as the dataset gives it.

    Raises:
        ValueError: for anything else, with the columns or the types that were found.
    """
    if isinstance(data, ImageSet):
        return _of_images(data, needs_labels)
    if data is None:
        return None
    if isinstance(data, Mapping):
        raise ValueError(
            f"{type(data).__name__} holds the splits {', '.join(data)}: pass one of them, as data['NAME']."
        )
    if isinstance(data, (IterableDataset, datasets.IterableDataset)):
        return _stream(data, own_collator)
    if isinstance(data, str) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise ValueError(
            f"{type(data).__name__} gives no examples by number: pass a dataset, which of a loader is its .dataset."
        )
    if len(data) == 0:
        return data
    if isinstance(data, Subset) and type(data).__getitem__ is Subset.__getitem__:
        whole = as_image_set(data.dataset, needs_labels=needs_labels, own_collator=own_collator)
        return whole.select(data.indices) if isinstance(whole, ImageSet) else data
    if isinstance(data, datasets.Dataset) and data.format["type"] != "custom" and _columns(data, datasets.Image):
        return data if "pixel_values" in data.features else _of_columns(data, needs_labels)
    return _of_examples(data, needs_labels, own_collator)


def label_names_of(data: Any) -> list[str] | None:
    """The names of the classes, where a dataset tells them: a ClassLabel of `datasets`, ``classes`` of torchvision."""
    if isinstance(data, Subset):
        return label_names_of(data.dataset)
    if len(columns := _columns(data, datasets.ClassLabel)) == 1:
        return list(data.features[columns[0]].names)
    names = getattr(data, "classes", None)
    is_list = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return list(names) if is_list and names else None


def _of_images(data: ImageSet, needs_labels: bool) -> ImageSet:
    """Of images that may have been transformed, and may come with their labels."""
    if not len(data) or (data.transform is not None and data.knows_labels):
        return data
    item = _first_of(data.images)
    image, has_labels = (item[0], True) if isinstance(item, tuple) else (item, data.knows_labels)
    if needs_labels and not has_labels:
        raise ValueError("train_dataset has images and no labels: pass ImageSet(images, labels) with class ids.")
    return data.with_transform(as_it_is) if data.transform is None and is_ready(image) else data


def _of_columns(data: datasets.Dataset, needs_labels: bool) -> ImageSet:
    """Of a column of images and a column of labels, which is read without decoding an image."""
    images = _columns(data, datasets.Image)
    labels = [name for name in _LABELS if name in data.features] or _columns(data, datasets.ClassLabel)
    if len(images) > 1 or len(labels) > 1 or (needs_labels and not labels):
        raise ValueError(
            f"a dataset with the columns {_listed(data.features)} has the image columns {images} and the label columns "
            f"{labels}: leave one of each (remove_columns), and call the labels `labels`."
        )
    data = data.with_format(None)
    numbers = np.asarray(data[labels[0]][:]) if labels else None
    if numbers is not None and not (np.issubdtype(numbers.dtype, np.integer) or _are_rows(numbers)):
        raise ValueError(
            f"column {labels[0]!r} holds neither class ids nor rows of a number a class: turn it into class ids with "
            "class_encode_column."
        )
    rows = ReadWhenAsked(data.select_columns(images), itemgetter(images[0]))
    return ImageSet(rows, numbers, fingerprint=str(data._fingerprint))


def _of_examples(data: Any, needs_labels: bool, own_collator: bool) -> Any:
    """Of anything that gives examples by number: the first one shows where in them the image and the label are."""
    first = _first_of(data)
    if isinstance(first, Mapping) and "pixel_values" in first and not is_raw(first["pixel_values"]):
        return _Rows(data) if isinstance(data, datasets.Dataset) and not own_collator else data
    if _is_image(first):
        keys, image = [], first
    else:
        keys = _keys(first, _columns(data, datasets.ClassLabel))
        image = first[keys[0]] if keys else None
    if own_collator and not is_raw(image):
        return data
    if image is None or (needs_labels and len(keys) < 2):
        raise ValueError(
            f"{type(data).__name__} gives {_described(first)}: pass (image, class) pairs, or rows with one image and "
            f"its class as `label`; {WHAT_AN_IMAGE_IS}."
        )
    labels = _known_labels(data) if len(keys) > 1 else None
    read = ReadWhenAsked(data, itemgetter(*(keys if labels is None else keys[:1]))) if keys else data
    return ImageSet(read, labels, None if is_raw(image) else as_it_is, str(getattr(data, "_fingerprint", "")))


def _first_of(data: Any) -> Any:
    with drawn_from(0):  # a transform of the user's may draw
        return data[0]


def _keys(example: Any, classes: list[str]) -> list[Any]:
    """Where in an example the image is and, behind it, the label if there is one; empty where that cannot be told."""
    if isinstance(example, Mapping):
        images: list[Any] = [name for name, value in example.items() if _is_image(value) and not _is_text(name, value)]
        labels: list[Any] = [name for name in _LABELS if name in example] or [
            name for name in classes if name in example
        ]
    elif isinstance(example, (tuple, list)) and 0 < len(example) < 3:
        images = [0] if _is_image(example[0]) else []
        labels = [1] if len(example) > 1 and example[1] is not None else []
    else:
        return []
    is_clear = len(images) == 1 and len(labels) < 2 and all(_is_label(example[name]) for name in labels)
    return [*images, *labels] if is_clear else []


def _known_labels(data: Any) -> np.ndarray | None:
    """The labels, where they are known to be those that the examples bring; None where they come with the images."""
    if isinstance(data, ConcatDataset) and type(data).__getitem__ is ConcatDataset.__getitem__:
        parts = [_known_labels(part) for part in data.datasets]
        return None if any(part is None for part in parts) else np.concatenate(parts)  # type: ignore[arg-type]
    found: Any = None
    if type(data) is TensorDataset:
        found = data.tensors[1]
    elif isinstance(data, VisionDataset) and type(data).__getitem__.__module__.startswith("torchvision.datasets."):
        is_changed = data.target_transform is not None or (data.transforms is not None and data.transform is None)
        names = [name for name in ("targets", "labels", "_labels") if hasattr(data, name)]
        found = getattr(data, names[0]) if names and not is_changed else None
        found = found if _come_with_images(found, data) else None
    is_list = isinstance(found, (list, np.ndarray, Tensor)) and len(found) == len(data)
    labels = np.asarray(found) if is_list else np.zeros(0)
    return labels if (labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)) or _are_rows(labels) else None


def _come_with_images(labels: Any, data: Any) -> bool:
    """Whether an attribute of a dataset holds what stands beside its images, of which a few are read."""
    if labels is None or len(labels) != len(data):
        return False
    for number in np.linspace(0, len(data) - 1, min(len(data), _FEW)).astype(int).tolist():
        try:
            with drawn_from(0):  # a transform of the user's may draw
                own = data[number][1]
        except (OSError, SyntaxError):
            continue  # a damaged image, which is named when it is read to be trained on
        if not np.array_equal(np.asarray(own), np.asarray(labels[number])):
            return False
    return True


def _are_rows(labels: np.ndarray) -> bool:
    """Whether labels are soft labels or multi-hot rows."""
    return labels.ndim == 2 and labels.dtype.kind in "biuf"


class _Rows(Dataset):
    """Rows of a `datasets.Dataset` that transforms them: it keeps the columns that the transform reads.

    Of a `datasets.Dataset` Trainer takes away beforehand what the model does not read; of other datasets, when a batch
    is made.
    """

    def __init__(self, data: datasets.Dataset) -> None:
        self.data, self.fingerprint = data, str(data._fingerprint)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.data[int(index)]


def _stream(data: Any, own_collator: bool) -> Any:
    is_raw_stream = isinstance(data, IterableImageDataset) or _columns(data, datasets.Image)
    if is_raw_stream and not own_collator:
        raise ValueError(
            f"{type(data).__name__} is a stream of images, which cannot be read by number: pass a dataset with a "
            "length, or make pixel_values."
        )
    return data


def _columns(data: Any, feature: type) -> list[str]:
    """The columns of a type; of `datasets` alone, where they are known."""
    is_known = isinstance(data, (datasets.Dataset, datasets.IterableDataset)) and data.features
    return [name for name, own in data.features.items() if isinstance(own, feature)] if is_known else []


def _is_image(value: Any) -> bool:
    return is_raw(value) or is_ready(value)


def _is_text(name: str, value: Any) -> bool:
    """Whether a text in a row is no path of an image."""
    return isinstance(value, str) and name != "image"


def _is_label(value: Any) -> bool:
    if isinstance(value, (np.ndarray, Tensor)):
        return value.ndim < 2
    numbers = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(number, (int, float, np.number)) for number in numbers)


def _described(example: Any) -> str:
    """The columns or the types of an example, for a message."""
    if isinstance(example, Mapping):
        return f"rows with {_listed(f'{name} ({kind(value)})' for name, value in example.items())}"
    if isinstance(example, (tuple, list)):
        return f"{type(example).__name__}s of {_listed(map(kind, example))}"
    return kind(example)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
