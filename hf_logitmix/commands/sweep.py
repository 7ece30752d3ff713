"""Run tasks x methods x seeds of a YAML file, each in a process of its own; what is done is not done again.

    hf-logitmix sweep first_results --glue_dir GLUE --model_name_or_path MODEL

A sweep is a file, or the name of one that comes with the package. It has `output_dir`, `tasks`, `methods`, `seeds` and
`arguments` of hf-logitmix glue; with `datasets` in place of `tasks` the runs are those of hf-logitmix images. A method
may have options of its own, as on the command line: `logitmix --level hidden:2`. Arguments after the sweep are added to
every run. A run that was cut off goes on from its last checkpoint; one that fails is named at the end, and the exit
status is 1. A folder whose run was started with other arguments (its sweep.json tells) is refused, not counted as done.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from hf_logitmix._requirements import require
from hf_logitmix.commands.main import COMMANDS
from hf_logitmix.commands.parser import Parser
from hf_logitmix.training.checkpoints import last_complete_checkpoint

ARGUMENTS = "sweep.json"
CONFIGS = Path(__file__).parents[1] / "configs"
_INTERRUPTED = (130, -signal.SIGINT)
_KEYS = {"output_dir", "tasks", "methods", "seeds", "arguments"}
# The command that each run is, and its first argument.
_KINDS = {"tasks": ("glue", "--task_name"), "datasets": ("images", "--dataset")}


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
    config = yaml.safe_load(path.read_text())
    keys = _KEYS - {"tasks"} | {"datasets"} if isinstance(config, dict) and "datasets" in config else _KEYS
    if not isinstance(config, dict) or not set(config) <= keys or not keys - {"arguments"} <= set(config):
        raise ValueError(
            f"{path}: a sweep has the keys {', '.join(sorted(_KEYS))}, of which only arguments may be missing; "
            "datasets may stand for tasks."
        )
    for key in keys - {"output_dir", "arguments"}:
        if not isinstance(config[key], list) or not config[key]:
            raise ValueError(f"{path}: {key} must be a list with at least one entry.")
    return config


def commands(config: dict[str, Any], extra: list[str]) -> list[tuple[Path, list[str]]]:
    """The output folder and the command line of each run, in the order in which they are run."""
    kind = "datasets" if "datasets" in config else "tasks"
    command, first = _KINDS[kind]
    fixed = []
    for name, value in (config.get("arguments") or {}).items():
        fixed += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    runs: list[tuple[Path, list[str]]] = []
    for task, seed, method in itertools.product(config[kind], config["seeds"], config["methods"]):
        name = re.sub(r"[^\w.]+", "-", method)  # of a folder, with the options too
        folder = Path(config["output_dir"]) / f"{Path(task).name}-{name}-{seed}"
        chosen = [task, "--seed", str(seed), "--output_dir", str(folder)]
        own = ["--method", *shlex.split(method)]  # behind what is shared, of which an option of its own takes the place
        if folder in dict(runs):
            raise ValueError(f"{kind}: two runs would share the folder {folder}: give them other names.")
        runs.append((folder, [sys.executable, "-m", "hf_logitmix", command, first, *chosen, *fixed, *own, *extra]))
    return runs


def _run(command: list[str]) -> int:
    """Run to the end. Ctrl-C reaches the run itself, which saves and stops; here it is only waited for."""
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, previous)


def arguments_of(command: list[str]) -> dict[str, list[str]]:
    """The arguments of a command line by name, the last one of a name as a parser takes it; without its folder."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in command:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            found[name] = [value] if value else []
        elif name:
            found[name].append(word)
    found.pop("--output_dir", None)
    return found


def check_same(folder: Path, command: list[str]) -> None:
    """Refuse a folder that holds a run which was started with other arguments.

    Raises:
        ValueError: with the arguments that differ.
    """
    if not (folder / "all_results.json").is_file() and last_complete_checkpoint(folder) is None:
        return
    if not (folder / ARGUMENTS).is_file():
        raise ValueError(
            f"{folder} holds a run and no {ARGUMENTS}, so it cannot be told whether that is the one asked for: remove "
            "the folder, or pass another output_dir."
        )
    was, now = json.loads((folder / ARGUMENTS).read_text()), arguments_of(command)
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


def check_arguments(runs: list[tuple[Path, list[str]]]) -> None:
    """Refuse arguments that the runs would not know, before the first of them.

    Raises:
        ValueError: where a package is missing that the runs need.
    """
    (name,) = {command[3] for _, command in runs}
    try:
        require(COMMANDS[name].needs, f"hf-logitmix {name}")
    except ImportError as error:
        raise ValueError(str(error)) from error
    parser = import_module(COMMANDS[name].module).parser()
    for _, command in runs:
        parser.refuse(parser.parse_known_args(command[4:])[1])


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix sweep", description=__doc__)
    parser.add_argument("config", help="YAML file, or the name of a packaged sweep")
    known, extra = parser.parse_known_args(argv)
    runs = commands(read_config(known.config), extra)
    check_arguments(runs)
    for folder, command in runs:
        check_same(folder, command)
    failed = []
    for number, (folder, command) in enumerate(runs, start=1):
        if (folder / "all_results.json").is_file():
            print(f"[{number}/{len(runs)}] {folder.name}: done before", flush=True)
            continue
        print(f"[{number}/{len(runs)}] {folder.name}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ARGUMENTS).write_text(json.dumps(arguments_of(command), indent=2) + "\n")
        if last_complete_checkpoint(folder):
            command = [*command, "--resume_from_checkpoint", "last"]
        started = time.perf_counter()
        status = _run(command)
        print(f"[{number}/{len(runs)}] {folder.name}: exit {status}, {time.perf_counter() - started:.0f} s", flush=True)
        if status in _INTERRUPTED:
            return 130
        if status:
            failed.append(folder.name)
    print(
        f"{len(runs) - len(failed)} of {len(runs)} runs are complete."
        + (f" Failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0
