"""Tables as they lie in files, folders and on the Hub; nothing in them is guessed or changed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, load_dataset, load_dataset_builder, load_from_disk
from datasets.exceptions import DatasetsError
from pyarrow import csv as arrow_csv

FORMATS = ".csv, .tsv, .json, .jsonl or .parquet"


def read_file(path: str | Path, argument: str = "train_file") -> Dataset:
    """One file as a table, by the end of its name.

    - ``.csv``: comma-separated, fields in double quotes or not; every field stays text, so that "NA" and "007" are what
      they are. Empty lines are left out.
    - ``.tsv``: the same with tabs, and without quotes: a quotation mark is part of its text, as in GLUE's files.
    - ``.json``, ``.jsonl``: a list of objects, or one object a line. A key that an object lacks is None there.
    - ``.parquet``: with the types that the file has.

    Text is UTF-8, with or without a byte order mark.

    Args:
        path: of the file.
        argument: that named it, for errors.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: for another ending, a file that is damaged, a row of another width, and one without rows.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{argument}={str(path)!r} is no file: pass the path of a {FORMATS}.")
    read = {".csv": _read_csv, ".tsv": _read_tsv, ".json": _read_json, ".jsonl": _read_json, ".parquet": _read_parquet}
    ending = path.suffix.lower()
    if ending not in read:
        raise ValueError(f"{argument}={path.name!r} ends in {ending or 'nothing'}: pass a {FORMATS}.")
    try:
        data = read[ending](path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 ({error}): save it as UTF-8.") from error
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path.name} cannot be read as {ending[1:]}: {_first_line(error)}") from error
    if not len(data):
        raise ValueError(f"{path.name} holds no examples: pass a file with rows.")
    return data


def read_named(name: str, config: str | None = None, argument: str = "dataset_name") -> dict[str, Dataset]:
    """The splits of a dataset: a folder of ``save_to_disk``, a folder in the Hub's layout, or an id of the Hub.

    A folder that holds a single dataset is a split ``train``. In csv files, which `datasets` reads, "NA" stays text.

    Raises:
        ValueError: for what cannot be loaded.
    """
    folder = Path(name).expanduser()
    is_saved = is_saved_to_disk(folder)
    if is_saved and config is not None:
        raise ValueError(
            f"dataset_config_name={config!r}: {folder.name} was saved without configurations: leave it out."
        )
    try:
        found: Any = (
            load_from_disk(str(folder)) if is_saved else _load(str(folder) if folder.exists() else name, config)
        )
    except (OSError, ValueError, DatasetsError) as error:
        # not there, gated or offline; a configuration that is not there; or files whose columns differ
        chosen = f" with dataset_config_name={config!r}" if config else ""
        raise ValueError(
            f"{argument}={name!r}{chosen} could not be loaded ({_first_line(error)}): pass an id of the Hub, a "
            "folder of save_to_disk, or a folder in the Hub's layout."
        ) from error
    return dict(found) if isinstance(found, DatasetDict | Mapping) else {"train": found}


def _load(name: str, config: str | None) -> Any:
    is_csv = hasattr(load_dataset_builder(name, config).config, "keep_default_na")
    return load_dataset(name, config, **({"keep_default_na": False} if is_csv else {}))


def is_saved_to_disk(folder: Path) -> bool:
    """Whether a folder is one of ``save_to_disk``."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _read_csv(path: Path) -> Dataset:
    return _read_separated(path, arrow_csv.ParseOptions(delimiter=",", newlines_in_values=True))


def _read_tsv(path: Path) -> Dataset:
    return _read_separated(path, arrow_csv.ParseOptions(delimiter="\t", quote_char=False))


def _read_separated(path: Path, options: arrow_csv.ParseOptions) -> Dataset:
    is_quoted = options.quote_char is not False
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(
            (
                row
                for row in csv.reader(
                    file, delimiter=options.delimiter, quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE
                )
                if row
            ),
            [],
        )
    if not header:
        raise ValueError(f"{path.name} is empty: its first line names the columns.")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ValueError(f"{path.name} names the column {twice[0]!r} twice: rename one of them in its first line.")
    as_text = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False, quoted_strings_can_be_null=False
    )
    return Dataset(arrow_csv.read_csv(path, parse_options=options, convert_options=as_text))


def _read_json(path: Path) -> Dataset:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        rows = _parsed(text, path.name)
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [_parsed(line, f"{path.name}, line {number}") for number, line in lines if line.strip()]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}, row {number}: {type(row).__name__} in the place of an object with columns.")
    columns: dict[str, list] = {
        name: [row.get(name) for row in rows] for name in dict.fromkeys(n for r in rows for n in r)
    }
    if not columns:
        return Dataset.from_dict({})
    return Dataset(
        pa.table({name: _column(values, f"{path.name}: column {name!r}") for name, values in columns.items()})
    )


def _column(values: list[Any], where: str) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{where} holds values of several types ({_first_line(error)}): make them one.") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is no JSON ({error}): pass a list of objects, or one object a line.") from error


def _read_parquet(path: Path) -> Dataset:
    return Dataset.from_parquet(str(path))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
