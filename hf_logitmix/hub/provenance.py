"""How a model was trained, in a file beside its weights: with which method, which options, on which data."""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate
import datasets
import numpy as np
import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import has_length

from hf_logitmix._version import __version__
from hf_logitmix.digest import digest, in_short
from hf_logitmix.method import Method
from hf_logitmix.methods import METHODS
from hf_logitmix.modalities.masks import Masks
from hf_logitmix.models import public_name, unwrap
from hf_logitmix.part import LabelSpec
from hf_logitmix.soft_labels import problem_type_of
from hf_logitmix.training.labels import label_column
from hf_logitmix.training.training_set import TrainingSet

if TYPE_CHECKING:

    class _Base(Trainer):
        """What the mixin is put in front of, with what else it asks of it."""

        model: nn.Module

        @property
        def label_spec(self) -> LabelSpec: ...
else:
    _Base = object

logger = logging.getLogger(__name__)

FILE_NAME = "hf_logitmix.json"
# Of a command line: arguments that are left out of records, and paths.
_UNTOLD = ("hub_", "push_to_hub", "trackio_", "run_name", "project")
_PATH = re.compile(r"(?:file://|(?<![\w.:/-]))(?:~[\w.-]*|\.{1,2})?/(?:[^\s\"',;=]*/)?([^\s\"',;=/]*)")
ROWS = 16  # of a training set, by which it is told from others


class ProvenanceMixin(_Base):
    """Tells every folder that a model is saved to (``hf_logitmix.json``), and every tracker, how it is trained."""

    method: Method
    _training_set: Callable[[], TrainingSet]
    _record: dict[str, Any] | None = None

    def _new_record(self) -> dict[str, Any]:
        """The method as it is asked for, before anything is found in the data, and the data."""
        data = None if self.train_dataset is None else data_record(self.train_dataset)
        return {
            **method_record(self.method),
            "train_dataset": data,
            "problem_type": problem_type_of(self.model),
            "versions": versions(),
        }

    def _check_resumed(self, checkpoint: Path) -> None:
        """Refuse to go on from a checkpoint that was trained with another method or options, or on other data.

        Raises:
            ValueError: with what differs.
        """
        path, name = checkpoint / FILE_NAME, checkpoint.name
        if not path.exists():
            logger.warning("%s lacks %s, so how it was trained cannot be compared with this run.", name, FILE_NAME)
        elif differs := differences(*_as_settled(json.loads(path.read_text(encoding="utf-8")), self._new_record())):
            raise ValueError(
                f"resume_from_checkpoint: {name} was trained in another way ({'; '.join(differs)}): go back to that, "
                "or start a new run from its weights, with from_pretrained."
            )
        if not self.is_deepspeed_enabled and not any(checkpoint.glob("*optimizer*")):
            logger.warning("%s holds no optimizer: the steps are counted on, optimizer and schedule start anew.", name)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            told = {"problem_type": self.label_spec.problem_type, "soft_labels": self.label_spec.soft}
            record = {**(self._record or self._new_record()), **told, "steps": self.state.global_step}
            if self._record is None and self.state.global_step == 0:
                record = self._record_as_it_came() or record
            (folder / FILE_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        super().save_model(output_dir, _internal_call)

    def _record_as_it_came(self) -> dict[str, Any]:
        """Of a model that was not trained here: the record beside what it was loaded from, or one of no method.

        It is empty for a model that is still to be trained.
        """
        before = record_of(getattr(getattr(unwrap(self.model), "config", None), "_name_or_path", None))
        if before or self.train_dataset is not None:
            return before
        return {**self._new_record(), "method": None, "options": {}, "source": None, "steps": 0}

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        with told_to_trackers(self.args, for_trackers(self._record or self._new_record(), self.method)):
            return super()._inner_training_loop(*args, **kwargs)


def record_of(model: str | None) -> dict[str, Any]:
    """What the record beside a model says, of a folder or of the Hub's cache; empty without one."""
    if not model:
        return {}
    path: Any = Path(model) / FILE_NAME
    try:
        path = path if path.exists() else try_to_load_from_cache(model, FILE_NAME)
        return dict(json.loads(Path(path).read_text(encoding="utf-8"))) if isinstance(path, (str, Path)) else {}
    except ValueError:  # no name of the Hub, or no JSON
        return {}


def method_record(method: Method) -> dict[str, Any]:
    """Name, options by part and source of a method, as JSON has them."""
    row = METHODS.get(method.name, method)  # whose mixing or objective may have been replaced
    is_row = (type(row.mixing), type(row.objective)) == (type(method.mixing), type(method.objective))
    weights = {} if method.class_weights is None else {"class_weights": _plain(method.class_weights)}
    return {
        "method": method.name if method.name and is_row else None,
        "options": {name: _plain(part) for name, part in method.parts.items()},
        **weights,
        "source": method.source or None,
    }


def masks_of(record: Mapping[str, Any]) -> Masks | None:
    """How masks of texts met; None where they did not. Records from before there was a choice are of the union."""
    mixing = record["options"].get("mixing", {})
    return mixing.get("masks", "union") if mixing.get("type") == "Linear" else None


def with_masks(record: Mapping[str, Any], masks: Masks | None) -> dict[str, Any]:
    """A record of a linear mixing that says how masks of texts meet."""
    options = record["options"]
    return {**record, "options": {**options, "mixing": {**options["mixing"], "masks": masks}}}


def _as_settled(saved: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Two records, in which ``masks`` that were left open are what they were settled to be."""
    if saved["options"].get("mixing", {}).get("type") == own["options"]["mixing"]["type"] == "Linear":
        saved = with_masks(saved, masks_of(saved))
        own = with_masks(own, own["options"]["mixing"]["masks"] or masks_of(saved))
    return saved, own


def data_record(data: Any) -> dict[str, Any]:
    """How many examples there are, and a digest of their labels and of some rows; None for what is not known."""
    count = len(data) if has_length(data) else None
    labels, rows = label_column(data), _some_rows(data)
    if labels is None and not rows:
        return {"examples": count, "digest": None}
    text = json.dumps(rows, sort_keys=True, default=_plain)
    return {
        "examples": count,
        "digest": digest(text, [{} if labels is None else {"labels": torch.from_numpy(labels)}]).hex(),
    }


def versions() -> dict[str, str]:
    """Of what a run depends on."""
    return {
        "hf_logitmix": __version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "python": platform.python_version(),
    }


def git_record() -> dict[str, Any] | None:
    """The commit that the current folder is at, and whether its tracked files are as committed; None outside of git."""

    def told(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": told("rev-parse", "HEAD"), "clean": not told("status", "--porcelain", "--untracked-files=no")}
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, no repository, or one without a commit


def public_command(prog: str, words: Sequence[str]) -> str:
    """A command line for records: of paths the last part, and nothing of the Hub's or of what a tracker is told."""
    shown, is_left_out = [], False
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            is_left_out = name[2:].replace("-", "_").startswith(_UNTOLD)
            word = f"{name}={_without_paths(value)}" if equals else word
        else:
            word = _without_paths(word)
        shown += [] if is_left_out else [word]
    return f"{prog} {shlex.join(shown)}"


def _without_paths(word: str) -> str:
    """A word with the last part of every path in it that begins at a root, at home, or above the current folder."""
    return _PATH.sub(lambda found: found[1], public_name(word))


def differences(saved: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """In what two records differ that changes training, a phrase each; what only one of them knows is left out."""
    found = []
    kinds = [record["options"].get("criterion") for record in (saved, own)]  # None: the one that fits the labels
    if None in kinds and kinds[0] != kinds[1]:
        was, now = ("that of the labels" if kind is None else kind["type"] for kind in kinds)
        found.append(f"criterion was {was} and is {now}")
    for part in (part for part in own["options"] if part in saved["options"]):
        was, now = flat(saved["options"][part]), flat(own["options"][part])
        names = ["type"] if was["type"] != now["type"] else [name for name in now if name in was]
        found += [
            f"{part if name == 'type' else name} was {was[name]} and is {now[name]}"
            for name in names
            if was[name] != now[name]
        ]
    weights = [record.get("class_weights") for record in (saved, own)]
    found += [f"class_weights was {weights[0]} and is {weights[1]}"] if weights[0] != weights[1] else []
    problems = [record.get("problem_type") for record in (saved, own)]  # None: left open, or an older record
    if None not in problems and problems[0] != problems[1]:
        found.append(f"problem_type was {problems[0]} and is {problems[1]}")
    if found and saved["method"] != own["method"]:
        found.insert(0, f"method was {saved['method']} and is {own['method']}")
    was, now = saved["train_dataset"] or {}, own["train_dataset"] or {}
    known = [name for name in ("examples", "digest") if None not in (was.get(name), now.get(name))]
    changed = [name for name in known if was[name] != now[name]]
    if "examples" in changed:
        found.append(f"train_dataset had {was['examples']} examples and has {now['examples']}")
    elif changed:
        found.append("train_dataset had other examples or labels")
    return found


def for_trackers(record: Mapping[str, Any], method: Method) -> dict[str, Any]:
    """A method for a flat table of settings, with options under the names that `MixTrainingArguments` gives them."""
    parts = {name: flat(part) for name, part in record["options"].items()}
    options = {name: value for part in parts.values() for name, value in part.items() if name != "type"}
    return {
        "method": record["method"] or str(method),
        **{name: part["type"] for name, part in parts.items()},
        **options,
    }


def flat(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part's options in one table: of a field that holds options its type, and these beside it under their names."""
    table: dict[str, Any] = {}
    for name, value in part.items():
        held = value if isinstance(value, Mapping) and "type" in value else {"type": value}
        table[name] = held["type"]
        for inner, number in held.items():
            if inner != "type":
                table[f"{name}.{inner}" if inner in table or inner in part else inner] = number
    return table


@contextmanager
def told_to_trackers(args: TrainingArguments, told: Mapping[str, Any]) -> Iterator[None]:
    """A block in which ``args.to_dict()``, from which every tracker takes a run's settings, tells these too."""
    args.to_dict = partial(_with, args, told)  # type: ignore[method-assign]  # a partial can be pickled
    try:
        yield
    finally:
        vars(args).pop("to_dict", None)


def _with(args: TrainingArguments, told: Mapping[str, Any]) -> dict[str, Any]:
    return {**type(args).to_dict(args), **told}


def _some_rows(data: Any) -> list[Any]:
    """Rows from all over a dataset that gives them as they are, without pictures and what else is a file."""
    if not isinstance(data, (list, datasets.Dataset)) or not len(data):
        return []
    chosen = np.linspace(0, len(data) - 1, min(len(data), ROWS)).astype(int).tolist()
    if isinstance(data, datasets.Dataset):
        rows = data.with_format("arrow")[chosen].to_pylist()
    else:
        rows = [data[number] for number in chosen if isinstance(data[number], Mapping)]
    return [{name: value for name, value in row.items() if not isinstance(value, dict)} for row in rows]


def _plain(value: Any) -> Any:
    """A value as JSON has it: a tensor by its shape and a digest, a path by its last part, an object by its type."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (str, Path)):
        return public_name(str(value))
    if isinstance(value, Tensor):
        return in_short(value)
    if isinstance(value, np.ndarray):
        return in_short(torch.from_numpy(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, nn.Module):
        own = getattr(getattr(value, "config", None), "name_or_path", "")
        return f"{name} {public_name(own)}" if own else name
    own = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    shown = [f.name for f in own if f.repr or f.metadata.get("option")]
    return {"type": name, **{option: _plain(getattr(value, option)) for option in shown}}
