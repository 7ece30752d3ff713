"""Run tasks x methods x seeds of a YAML file, each in a process of its own; what is done is not done again.

    hf-logitmix sweep first_results --glue_dir GLUE --model_name_or_path MODEL

A sweep is a file, or the name of one that comes with the package. It has `output_dir`, `tasks`, `methods`, `seeds` and
`arguments` of hf-logitmix glue; with `datasets` in place of `tasks` the runs are those of hf-logitmix images, with
`texts` (training files, or names of datasets) those of hf-logitmix text. A method may have options of its own, as on
the command line: `logitmix --level hidden:2`. Arguments after the sweep are added to every run, but for a method that
has its own; `--tasks`, `--methods` and `--seeds` choose a part of it.

What a run prints is in logs/ beside its folder. A run that was cut off goes on from its last checkpoint; of one that
fails the end of its log is shown, the others go on, and the exit status is 1. A folder whose run was started with other
arguments (its sweep.json tells, or the record of a run that was kept) is refused, not counted as done.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml
from tqdm import tqdm

from hf_logitmix import METHODS
from hf_logitmix._requirements import require
from hf_logitmix.commands.engines import STOPPED, Engine, Job, Local, Ray
from hf_logitmix.commands.main import COMMANDS
from hf_logitmix.commands.parser import Parser, did_you_mean
from hf_logitmix.evidence.records import NAME, NOT_TRAINED, arguments_of, read_json, read_record
from hf_logitmix.hub.provenance import public_command
from hf_logitmix.training.checkpoints import last_complete_checkpoint

ARGUMENTS = "sweep.json"
GOES_ON = "Stopped. The same command goes on."
CONFIGS = Path(__file__).parents[1] / "configs"
ENGINES: dict[str, Callable[[int], Engine]] = {"local": Local, "ray": Ray}
Planned = tuple[Path, list[str]]  # the folder of a run, and its command line
_PARTS: dict[str, Callable[[str], Any]] = {"tasks": str, "datasets": str, "texts": str, "methods": str, "seeds": int}
# What a sweep may be over, and of each the command that its runs are.
KINDS = {"tasks": "glue", "datasets": "images", "texts": "text"}
_KEYS = {"output_dir", "methods", "seeds"}


def file_of(sweep: str) -> Path:
    """The file of a sweep, which is a path or the name of one that comes with the package.

    Raises:
        FileNotFoundError: for neither.
    """
    if Path(sweep).is_file():
        return Path(sweep)
    packaged = {file.stem: file for file in CONFIGS.glob("*.yaml")}
    if sweep not in packaged:
        raise FileNotFoundError(f"{sweep} is no file and none of {', '.join(sorted(packaged))}: pass one of these.")
    return packaged[sweep]


def read_config(sweep: str | Path) -> dict[str, Any]:
    """Read and check a sweep, as `file_of` finds it.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: for a missing or unknown key, or an empty list.
    """
    path = file_of(str(sweep))
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
    kinds = set(KINDS) & set(config) if isinstance(config, dict) else set()
    keys = _KEYS | kinds
    if len(kinds) != 1 or not keys <= set(config) <= keys | {"arguments"}:
        raise ValueError(
            f"{path}: a sweep has the keys {', '.join(sorted(_KEYS))}, one of {', '.join(KINDS)}, and arguments, which "
            "may be missing."
        )
    for key in keys - {"output_dir"}:
        if not isinstance(config[key], list) or not config[key]:
            raise ValueError(f"{path}: {key} must be a list with at least one entry.")
        if strange := [entry for entry in config[key] if not isinstance(entry, int if key == "seeds" else str)]:
            kind = "a whole number" if key == "seeds" else "text"
            raise ValueError(f"{path}: {strange[0]!r} of {key} is not {kind}.")
    if not isinstance(config.get("arguments") or {}, dict):
        raise ValueError(f"{path}: arguments must be names with values, such as `num_train_epochs: 3`.")
    return config


def commands(config: dict[str, Any], extra: list[str]) -> list[Planned]:
    """The output folder and the command line of each run, in the order in which they are run.

    Raises:
        ValueError: for arguments that the sweep sets for each run, for a method without a name, and for two runs that
            would share a folder or what records call them.
    """
    (kind,) = set(KINDS) & set(config)
    options = {name for data in config[kind] for name in (_option_of(kind, data), "--seed", "--output_dir")}
    _refuse("arguments", [f"--{name}" for name in config.get("arguments") or {}], {*options, "--method"})
    _refuse("the command line", extra, {*options, "--method"})
    called: dict[str, str] = {}  # as records call it, in which paths have no folders -> method
    for method in config["methods"]:
        _refuse(f"methods, {method}", _words(method), {*options, "--method"})
        if (same := called.setdefault(public_command("", _words(method)), method)) != method:
            raise ValueError(
                f"methods: records keep the last part of a path, so {same} and {method} would be called the same: give "
                "what they name other names."
            )
    fixed = []
    for name, value in (config.get("arguments") or {}).items():
        fixed += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    runs: list[Planned] = []
    for task, seed, method in itertools.product(config[kind], config["seeds"], config["methods"]):
        name = re.sub(r"[^\w.]+", "-", method)  # of a folder, with the options too
        folder = Path(config["output_dir"]) / f"{Path(task).name}-{name}-{seed}"
        chosen = [_option_of(kind, task), task, "--seed", str(seed), "--output_dir", str(folder)]
        own = ["--method", *_words(method)]  # behind what is shared, of which an option of its own takes the place
        if folder in dict(runs):
            raise ValueError(f"{kind}: two runs would share the folder {folder}: give them other names.")
        runs.append((folder, [sys.executable, "-m", "hf_logitmix", KINDS[kind], *chosen, *fixed, *extra, *own]))
    return runs


def _words(method: str) -> list[str]:
    """The name of a method, and the options of its own."""
    try:
        words = shlex.split(method)
    except ValueError as error:
        raise ValueError(f"methods: {method!r} has a quote without its other half ({error}).") from error
    if not words or words[0].startswith("-"):
        raise ValueError(f"methods: {method!r} does not begin with a name, as `mixup --alpha 0.2` does.")
    return words


def _refuse(where: str, words: Sequence[str], taken: set[str]) -> None:
    """Refuse what the sweep itself tells each run."""
    if found := sorted(arguments_of(words).keys() & taken):
        raise ValueError(f"{where}: {found[0]} is what the sweep sets for each run: leave it out.")


def _option_of(kind: str, data: str) -> str:
    """The option by which a command is told its data."""
    if kind == "texts":
        return "--train_file" if Path(data).is_file() else "--dataset_name"
    return {"tasks": "--task_name", "datasets": "--dataset"}[kind]


def told(command: Sequence[str]) -> dict[str, list[str]]:
    """The arguments of a run by which it is told from others."""
    return {name: values for name, values in arguments_of(command).items() if name not in NOT_TRAINED}


def check_same(folder: Path, command: list[str]) -> None:
    """Refuse a folder that holds a run which was started with other arguments.

    Raises:
        ValueError: with the arguments that differ.
    """
    if not (folder / NAME).is_file() and last_complete_checkpoint(folder) is None:
        return
    if (folder / ARGUMENTS).is_file():
        kept = read_json(folder / ARGUMENTS)
        was, now = {name: values for name, values in kept.items() if name not in NOT_TRAINED}, told(command)
    elif (folder / NAME).is_file() and (words := read_record(folder / NAME).words):  # one that was kept, without paths
        was, now = told(words), told(shlex.split(public_command("", command)))
        last = {name: [PurePath(value).name for value in values] for name, values in now.items()}
        now |= {name: values for name, values in last.items() if was.get(name) == values}
    else:
        raise ValueError(
            f"{folder} holds a run and no {ARGUMENTS}, so it cannot be told whether that is the one asked for: remove "
            "the folder, or pass another output_dir."
        )
    differs = [
        f"{name} was {' '.join(was.get(name, ['left out']))} and is {' '.join(now.get(name, ['left out']))}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]
    if differs:
        raise ValueError(
            f"{folder} holds a run with other arguments ({'; '.join(differs)}): remove the folder, or pass another "
            "output_dir."
        )


def check_arguments(runs: list[Planned]) -> None:
    """Refuse arguments that the runs would not know, before the first of them.

    Raises:
        ValueError: where a package is missing that the runs need, and for a method that there is not.
    """
    (name,) = {command[3] for _, command in runs}
    try:
        require(COMMANDS[name].needs, f"hf-logitmix {name}")
    except ImportError as error:
        raise ValueError(str(error)) from error
    parser = import_module(COMMANDS[name].module).parser()
    for method in (told(command)["--method"][0] for _, command in runs):
        if method not in METHODS:
            raise ValueError(f"method {method} is unknown{did_you_mean(method, METHODS)}: `hf-logitmix methods`.")
    for _, command in runs:
        parser.refuse(parser.parse_known_args(command[4:])[1])


def select(config: dict[str, Any], chosen: Mapping[str, Sequence[Any] | None]) -> dict[str, Any]:
    """The part of a sweep that is chosen, list -> entries; None for all of them.

    Raises:
        ValueError: for entries that the sweep does not have.
    """
    found = dict(config)
    for key, entries in chosen.items():
        if entries is None:
            continue
        known = config.get(key, [])
        if strange := [entry for entry in entries if entry not in known]:
            has = ", ".join(map(str, known)) or f"no {key}"
            raise ValueError(f"--{key} {shlex.quote(str(strange[0]))}: the sweep has {has}.")
        found[key] = [entry for entry in known if entry in entries]
    return found


class Outcome(NamedTuple):
    """How runs ended: the folders of those that failed, and whether Ctrl-C stopped them."""

    failed: list[Path]
    stopped: bool


def run_all(runs: Sequence[Planned], engine: Engine, bar: tqdm) -> Outcome:
    """Run what is not done yet; of a run that fails, the end of what it printed is shown, and the others go on."""
    waiting: list[Planned] = []
    failed: list[Path] = []
    for folder, command in runs:
        check_same(folder, command)
        if not is_done(folder):
            waiting.append((folder, command))
    bar.update(len(runs) - len(waiting))
    try:
        for number, status in engine([_job(folder, command) for folder, command in waiting]):
            folder = waiting[number][0]
            if status in STOPPED:
                return Outcome(failed, True)
            bar.update()
            if status or not is_done(folder):
                failed.append(folder)
                bar.write(f"{folder.name} failed (exit status {status}); the end of {log_of(folder)}:\n{_tail(folder)}")
    except KeyboardInterrupt:  # of an engine whose last run had come to its end
        return Outcome(failed, True)
    return Outcome(failed, False)


def is_done(folder: Path) -> bool:
    """Whether a folder holds a run that came to its end."""
    return (folder / NAME).is_file()


def log_of(folder: Path) -> Path:
    """The file that takes what a run prints: beside its folder, which may be pushed."""
    return folder.parent / "logs" / f"{folder.name}.txt"


def _tail(folder: Path, lines: int = 15) -> str:
    told = log_of(folder).read_text(encoding="utf-8", errors="replace").splitlines() if log_of(folder).exists() else []
    return "\n".join(f"  {line.rsplit(chr(13))[-1]}" for line in told[-lines:])


def _job(folder: Path, command: list[str]) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{ARGUMENTS}.part"  # so that the file is never there in part
    part.write_text(json.dumps(told(command), indent=2) + "\n")
    part.replace(folder / ARGUMENTS)
    goes_on = ["--resume_from_checkpoint", "last"] if last_complete_checkpoint(folder) else []
    return Job([*command, *goes_on], log_of(folder))


def add_engine(parser: Parser) -> None:
    """The options that say where runs are run."""
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each with its share of cores or a GPU")
    parser.add_argument(
        "--engine", choices=ENGINES, default="local", help="local, or ray: a cluster, or this machine without one"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix sweep", description=__doc__)
    parser.add_argument("config", help="YAML file, or the name of a packaged sweep")
    for key, kind in _PARTS.items():
        parser.add_argument(f"--{key}", nargs="+", type=kind, help=f"only these {key} of the sweep")
    add_engine(parser)
    known, extra = parser.parse_with_rest(argv)
    engine = ENGINES[known.engine](known.jobs)
    config = select(read_config(known.config), {key: getattr(known, key) for key in _PARTS})
    runs = commands(config, extra)
    check_arguments(runs)
    for folder, command in runs:
        check_same(folder, command)
    with tqdm(total=len(runs), desc=Path(known.config).stem, unit="run") as bar:
        failed, stopped = run_all(runs, engine, bar)
    done = sum(is_done(folder) for folder, _ in runs)
    print(f"{done} of {len(runs)} runs are complete, in {config['output_dir']}.")
    if stopped:
        print(GOES_ON)
        return 130
    if failed:
        print(f"Failed: {', '.join(folder.name for folder in failed)}")
    return 1 if failed else 0
