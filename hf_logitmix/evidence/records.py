"""The records that runs leave, and what to call the method of each."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from hf_logitmix.glue.tasks import TASKS
from hf_logitmix.methods import METHODS

NAME, LOGITS, HISTORY = "all_results.json", "eval_logits.npz", "log_history.json"  # in the folder of a run
BASELINE = "vanilla"
_NEEDED = {"task", "method_name", "seed"}
NOT_TRAINED = {"--output_dir", "--resume_from_checkpoint", "--disable_tqdm"}  # arguments with which a run is the same
_OF_EACH_RUN = {"--method", "--seed", *NOT_TRAINED}  # those that do not tell of a method


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        values: what its ``all_results.json`` holds.
        path: of that file, which may have another name; its logits are beside it, in ``eval_logits.npz`` or in a file
            of its own name.
    """

    values: dict[str, Any]
    path: Path

    @property
    def seed(self) -> int:
        return self.values["seed"]

    @property
    def method(self) -> str:
        return self.values["method_name"]

    @property
    def name(self) -> str:
        """As the sweep called it."""
        return self.path.parent.name if self.path.name == NAME else self.path.stem

    @property
    def logits_path(self) -> Path:
        return self.path.with_name(LOGITS) if self.path.name == NAME else self.path.with_suffix(".npz")

    def logits(self) -> tuple[np.ndarray, np.ndarray] | None:
        """What was predicted of the examples that the figures are of, and their labels; None if it was not kept.

        Raises:
            ValueError: for a file that holds no logits, by its name.
        """
        if not self.logits_path.is_file():
            return None
        try:
            with np.load(self.logits_path) as saved:
                return saved["logits"], saved["labels"]
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise ValueError(
                f"{self.logits_path} holds no logits: remove it, so that intervals are over seeds alone, or run that "
                "run again."
            ) from error

    def history(self) -> list[dict[str, Any]]:
        """What was logged during training; empty if it was not kept."""
        path = self.path.with_name(HISTORY)
        return read_json(path) if self.path.name == NAME and path.is_file() else []

    @property
    def words(self) -> list[str]:
        """The command line; empty for runs that had none."""
        return shlex.split(self.values.get("command") or "")


def read_records(folder: str | Path) -> list[Record]:
    """Every record of a run below a folder, by task, method and seed, in the order of their tables.

    Checkpoints are not looked into.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for a file that is no JSON, by its name.
    """
    paths = [path for path in sorted(Path(folder).rglob("*.json")) if not path.parent.name.startswith("checkpoint-")]
    found = [(read_json(path), path) for path in paths]
    records = [Record(run, path) for run, path in found if isinstance(run, dict) and set(run) >= _NEEDED]
    if not records:
        raise FileNotFoundError(f"{folder} holds no results: pass the folder that a sweep wrote to.")
    return sorted(records, key=lambda run: (*placed(run.values["task"], TASKS), *placed(run.method, METHODS), run.seed))


def read_record(path: Path) -> Record:
    """The record of one run.

    Raises:
        ValueError: for a file that is no JSON, by its name.
    """
    return Record(read_json(path), path)


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Raises:
        ValueError: for a file that is none, by its name.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is no JSON ({error}): if it is of a run, remove it and run that run again; if not, pass a folder "
            "of runs alone."
        ) from error


def placed(name: str, order: Iterable[str]) -> tuple[int, str]:
    """What sorts names by an order, and behind it those that are not there."""
    names = list(order)
    return names.index(name) if name in names else len(names), name


def arguments_of(words: Sequence[str]) -> dict[str, list[str]]:
    """The arguments of a command line by name, with underscores, the last one of a name as a parser takes it."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            name = f"--{name[2:].replace('-', '_')}"
            found[name] = [value] if value else []
        elif name:
            found[name].append(word)
    return found


def labels_of(records: Sequence[Record]) -> list[str]:
    """What to call the method of each run: its name, and the arguments in which it differs from the plain runs.

    Plain is the run of `BASELINE` with the shortest name, as a sweep names runs by method and options; without any,
    whatever most of the runs are told. So beside runs of vanilla with three epochs one with six is called
    ``vanilla --num_train_epochs 6``. A record that brings a ``label`` is called that.
    """
    given = [arguments_of(run.words) for run in records]
    told = [{name: " ".join(values) for name, values in own.items() if name not in _OF_EACH_RUN} for own in given]
    names = dict.fromkeys(name for own in told for name in own)
    plain = [number for number, run in enumerate(records) if run.method == BASELINE]
    if plain:
        usual = {**dict.fromkeys(names), **told[min(plain, key=lambda number: (len(records[number].name), number))]}
    else:
        usual = {name: Counter(own.get(name) for own in told).most_common(1)[0][0] for name in names}
    labels = []
    for run, own in zip(records, told, strict=True):
        if "label" in run.values:
            labels.append(run.values["label"])
            continue
        differs = [f"{name} {own.get(name, 'left out')}".strip() for name in names if own.get(name) != usual[name]]
        labels.append(" ".join([run.method, *differs]))
    return labels


def values_of(runs: Sequence[Record], key: str) -> list[float] | None:
    """A value of each run; None if one lacks it."""
    found = [run.values[key] for run in runs if run.values.get(key) is not None]
    return found if len(found) == len(runs) else None
