"""Images in tables: of the Hub, in parquet, saved by `datasets`, or a csv of their paths."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from hf_logitmix.tables.files import is_saved_to_disk, read_file, read_named
from hf_logitmix.tables.labels import LABELS, ONE, Labels, class_names, label_values, labels_of
from hf_logitmix.vision.sources.base import SPLITS, ImageData, Split, few, image_data
from hf_logitmix.vision.sources.folder import LAYOUT as FOLDER_LAYOUT
from hf_logitmix.vision.sources.folder import of_files

logger = logging.getLogger(__name__)

LAYOUT = (
    "train.csv and test.csv with a column of paths, or train.parquet and test.parquet with one of images (or either "
    "with val), or what save_to_disk wrote"
)
PATHS = ("image", "path", "file", "file_name", "filename")  # what a column of them is called


@dataclass(frozen=True)
class ImageColumns:
    """Which columns of a table hold the images and the labels; None finds them."""

    image: str | None = None
    label: str | None = None


def is_a_table(path: Path) -> bool:
    """Whether a path is a csv or parquet file, a folder with such files, or one of ``save_to_disk``."""
    if path.is_dir():
        return is_saved_to_disk(path) or _holds_parquet(path) or bool(_csvs_in(path))
    return path.is_file() and path.suffix.lower() in (".csv", ".parquet")


def from_path(path: Path, name: str, columns: ImageColumns) -> ImageData:
    """Images of what `is_a_table`; a file alone is ``train``, and parquet files in a folder are what their names say.

    Raises:
        ValueError: as `from_tables`, for a csv beside parquet, and for a path without an image.
    """
    if path.is_dir() and not _csvs_in(path):
        return from_tables(read_named(str(path), argument="dataset"), name, columns)
    if path.is_dir() and _holds_parquet(path):
        raise ValueError(f"{path} holds tables as .csv and as .parquet: keep those of one kind.")
    files = _csvs_in(path) if path.is_dir() else {"train": path}
    tables = {split: read_file(file, "dataset") for split, file in files.items()}
    if path.suffix.lower() == ".parquet":
        return from_tables(tables, name, columns)

    def split_of_paths(data: datasets.Dataset, image: str, label: str, known: Labels, split: str) -> Split:
        root, where = files[split].parent, files[split].name
        paths = [str(root / path) for path in data[image][:]]
        for row, path in enumerate(paths, start=1):
            if not Path(path).is_file():
                raise ValueError(f"{where}, row {row}: {path} is no file: paths start in the folder of the table.")
        return of_files(paths, _ids(data, label, known, where), root, where)

    def path_columns(data: datasets.Dataset) -> list[str]:
        return [one for one in data.column_names if one.lower() in PATHS]

    return _image_data(tables, name, columns, path_columns, split_of_paths)


def from_tables(tables: Mapping[str, datasets.Dataset], name: str, columns: ImageColumns) -> ImageData:
    """Images of tables with a column of them.

    Raises:
        ValueError: for columns that cannot be told, for data without a split ``train``, and for labels that are no
            classes.
    """

    def split_of_images(data: datasets.Dataset, image: str, label: str, known: Labels, split: str) -> Split:
        return split_of(data, image, label, known, f"split {split} of {name}")

    return _image_data(tables, name, columns, _image_columns, split_of_images)


def split_of(data: datasets.Dataset, image: str, label: str, known: Labels, where: str) -> Split:
    """The images of a table, which are decoded when they are asked for; a label that is missing is -1."""
    rows = data.with_format(None).select_columns(image)
    if not isinstance(rows.features[image], datasets.Image):
        rows = rows.cast_column(image, datasets.Image())
    return Split(rows, partial(_from_row, column=image), _ids(data, label, known, where), str(data._fingerprint), where)


def _image_data(
    tables: Mapping[str, datasets.Dataset],
    name: str,
    columns: ImageColumns,
    image_columns: Callable[[datasets.Dataset], list[str]],
    read: Callable[[datasets.Dataset, str, str, Labels, str], Split],
) -> ImageData:
    first = next(iter(tables.values()))
    image = _chosen("image", columns.image, first, image_columns(first), name)
    label = _chosen("label", columns.label, first, _label_columns(first), name)
    if "train" not in tables:
        raise ValueError(f"dataset {name} needs a split train, but has {few(tables)}: call it so.")
    tables = {split: table for split, table in tables.items() if split in SPLITS}
    for split, table in tables.items():
        if lacks := {image, label} - set(table.column_names):
            raise ValueError(f"split {split} of {name} has no column {lacks.pop()!r}, but {few(table.column_names)}.")
    known = _labels(tables["train"], label, f"column {label!r} of {name}")
    splits = {split: read(table, image, label, known, split) for split, table in tables.items()}
    return image_data(name, _with_labels(splits, name), known.names)


def _csvs_in(folder: Path) -> dict[str, Path]:
    """Split -> csv in a folder, by its name; empty if there are none."""
    return {split: path for split in SPLITS if (path := folder / f"{split}.csv").is_file()}


def _holds_parquet(folder: Path) -> bool:
    return any(next(place.glob("*.parquet"), None) for place in (folder, folder / "data"))


def _from_row(row: dict[str, Image.Image], column: str, mode: str | None) -> Image.Image:
    if row[column] is None:
        raise OSError("there is none")
    return row[column].convert(mode)


def _image_columns(data: datasets.Dataset) -> list[str]:
    """Columns of images, by their type; without one those of bytes, as others than `datasets` write them."""
    found = [name for name, feature in data.features.items() if isinstance(feature, datasets.Image)]
    return found or [name for name, feature in data.features.items() if _holds_bytes(feature)]


def _holds_bytes(feature: Any) -> bool:
    inner = feature.get("bytes") if isinstance(feature, dict) else feature
    return isinstance(inner, datasets.Value) and inner.dtype in ("binary", "large_binary")


def _label_columns(data: datasets.Dataset) -> list[str]:
    """Columns of classes, by their type; without one those of a usual name."""
    found = [name for name, feature in data.features.items() if isinstance(feature, datasets.ClassLabel)]
    return found or [name for name in data.column_names if name.lower() in LABELS]


def _chosen(kind: str, named: str | None, data: datasets.Dataset, found: Sequence[str], name: str) -> str:
    if named is not None:
        if named not in data.column_names:
            raise ValueError(
                f"{kind}_column={named!r} is no column of {name}, whose columns are {few(data.column_names)}."
            )
        return named
    if len(found) != 1:
        raise ValueError(
            f"dataset {name} needs one {kind} column, but has {few(found)}: name it with --{kind}_column (the columns "
            f"are {few(data.column_names)}), or save it as a folder with {FOLDER_LAYOUT}."
        )
    return found[0]


def _labels(data: datasets.Dataset, label: str, where: str) -> Labels:
    """The classes, by the training images."""
    if names := class_names(data, label):
        return Labels(ONE, names, named=True)
    values = [value for value in label_values(data, label) if value is not None]
    if not values:
        raise ValueError(f"{where} holds no labels: name another with --label_column.")
    known = labels_of(values, where)
    if known.problem_type != ONE:
        raise ValueError(f"{where} holds {values[0]!r}, and images from a table need one class each.")
    return known


def _ids(data: datasets.Dataset, label: str, known: Labels, where: str) -> np.ndarray:
    values = label_values(data, label)
    ids = np.full(len(values), -1, dtype=np.int64)
    there = [number for number, value in enumerate(values) if value is not None]
    ids[there] = known.encode([values[number] for number in there], where)
    return ids


def _with_labels(splits: Mapping[str, Split], name: str) -> dict[str, Split]:
    """The splits that have labels, of which one kept secret is left out with a line."""
    kept = {}
    for split, part in splits.items():
        if split == "train" or (len(part.labels) and (part.labels >= 0).all()):
            kept[split] = part
        else:
            logger.warning("split %s of %s has no labels and is left out.", split, name)
    return kept
