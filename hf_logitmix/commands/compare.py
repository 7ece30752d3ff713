"""Does a method help on your data? Methods x seeds, side by side, and what they say on one screen.

    hf-logitmix compare mrpc --model_name_or_path bert-base-uncased --methods logitmix mixup --seeds 5
    hf-logitmix compare train.csv --validation_file dev.csv --model_name_or_path bert-base-uncased --budget 2h
    hf-logitmix compare path/to/images --model timm/resnet18 --methods logitmix_c cutmix

DATA is a GLUE task; with `--model_name_or_path` a file or dataset of `hf-logitmix text`; with `--model` one of
`hf-logitmix images`. Every other argument is passed to each run. `vanilla` is always there, and a second time for twice
as long where a method sees clean and mixed rows, which costs it more. Nothing that is done is done again: the same
command, with more seeds or methods too, goes on. It is a sweep, and its file is left in the output folder.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from hf_logitmix import METHODS
from hf_logitmix.commands import sweep
from hf_logitmix.commands.engines import Engine
from hf_logitmix.commands.main import COMMANDS
from hf_logitmix.commands.methods import rows_of
from hf_logitmix.commands.parser import Parser
from hf_logitmix.evidence.comparison import compare
from hf_logitmix.evidence.page import page
from hf_logitmix.evidence.records import BASELINE, NAME, arguments_of, read_record
from hf_logitmix.evidence.verdict import screen
from hf_logitmix.glue.tasks import TASKS, get_task

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EVALUATED = {"--validation_file", "--test_file", "--val_split", "--validation_split"}  # one of them, of a file
_LENGTHS = ("--max_steps", "--num_train_epochs")  # the first that is given sets how long a run is


def seconds(text: str) -> float:
    """A time such as ``90m`` or ``1.5h``.

    Raises:
        ValueError: for any other text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None or not float(found[1]):
        raise ValueError(f"budget={text!r}: pass a time such as 45m, 2h or 1d.")
    return float(found[1]) * _SECONDS[found[2]]


def planned(data: str, methods: Sequence[str], seeds: int, output_dir: str, extra: Sequence[str]) -> dict[str, Any]:
    """The sweep that a comparison is.

    Raises:
        ValueError: for no seeds, for data without a model, and for more than one name of data.
    """
    if seeds < 1:
        raise ValueError(f"seeds={seeds}: pass at least 1; below 3 nothing can be told from luck.")
    if extra and not extra[0].startswith("--"):
        raise ValueError(f"{extra[0]}: data is one name; compare the others by themselves.")
    if not all(method.split() for method in methods):
        raise ValueError("--methods has an empty name: leave it out.")
    given = arguments_of(extra)
    for name in ("--do_train", "--do_eval"):
        if f"--no_{name[2:]}" in given or given.get(name, [""])[-1:] in (["False"], ["false"], ["0"], ["no"]):
            raise ValueError(f"{name} cannot be turned off here: runs are trained, and compared by their evaluation.")
    kind = _kind(data, given)
    if kind == "texts" and Path(data).is_file() and not given.keys() & _EVALUATED:
        raise ValueError(
            f"there is nothing to compare on but {data}, which is trained on: pass --validation_file, or --val_split "
            "0.2 to hold out a fifth of it."
        )
    every = list(dict.fromkeys([BASELINE, *methods]))
    if any(_costs_more(method) for method in every):
        every.insert(1, _twice_as_long(kind, given))
    return {
        "output_dir": output_dir,
        kind: [get_task(data).name if kind == "tasks" else data],
        "methods": list(dict.fromkeys(every)),
        "seeds": list(range(1, seeds + 1)),
        "arguments": {name.removeprefix("--"): values for name, values in given.items()},
    }


def _kind(data: str, given: dict[str, list[str]]) -> str:
    is_task = data.lower() in {name for task in TASKS.values() for name in (task.name, task.folder.lower())}
    if "--model" in given and not is_task:
        return "datasets"
    if "--model_name_or_path" not in given:
        raise ValueError(
            "no model is named: pass --model_name_or_path for texts, such as bert-base-uncased, or --model for images, "
            "such as timm/resnet18."
        )
    return "tasks" if is_task else "texts"


def _costs_more(method: str) -> bool:
    name = method.split()[0]
    return name in METHODS and rows_of(METHODS[name]) == "clean and mixed"


def _twice_as_long(kind: str, given: dict[str, list[str]]) -> str:
    given = {name: values for name, values in given.items() if (name, values) != ("--max_steps", ["-1"])}  # its default
    name = next((name for name in _LENGTHS if name in given), _LENGTHS[-1])
    default = import_module(COMMANDS[sweep.KINDS[kind]].module).parser().get_default(name.removeprefix("--"))
    try:
        length = 2 * float(given[name][0] if name in given else default)
    except (ValueError, IndexError):
        raise ValueError(f"{name} {' '.join(given[name])}: pass one number.") from None
    return f"{BASELINE} {name} {int(length) if length.is_integer() else length}"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix compare", description=__doc__)
    parser.add_argument("data", help="GLUE task, file, folder, or dataset of the Hub")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["logitmix", "mixup", "label_smoothing"],
        help="each may have options: quote it (logitmix mixup label_smoothing)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[5], help="number of seeds (5)")
    parser.add_argument("--budget", help="time limit, such as 2h: no seed is started that would run past it")
    parser.add_argument("--output_dir", help="folder of the runs [runs/compare-DATA]")
    sweep.add_engine(parser)
    known, extra = parser.parse_with_rest(argv)
    budget = None if known.budget is None else seconds(known.budget)
    output = Path(known.output_dir or f"runs/compare-{Path(known.data).stem}")
    engine = sweep.ENGINES[known.engine](known.jobs)
    if len(known.seeds) > 1:
        raise ValueError(f"--seeds {' '.join(map(str, known.seeds))}: pass their number, such as --seeds 5.")
    config = planned(known.data, known.methods, known.seeds[0], str(output), extra)
    runs = sweep.commands(config, [])
    sweep.check_arguments(runs)
    for folder, command in runs:
        sweep.check_same(folder, command)
    output.mkdir(parents=True, exist_ok=True)
    (output / "compare.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    failed, stopped = _run_seeds(config, engine, budget, known.budget)
    plain = sweep.commands({**config, "methods": [BASELINE]}, [])
    _tell(known.data, output, runs, stopped, any(sweep.is_done(folder) for folder, _ in plain))
    if failed:
        print(f"Failed: {', '.join(folder.name for folder in failed)}; their logs are in {output / 'logs'}.")
    return 130 if stopped == sweep.GOES_ON else 1 if failed else 0


def _run_seeds(
    config: dict[str, Any], engine: Engine, budget: float | None, told: str | None
) -> tuple[list[Path], str]:
    """Run a seed after the other with all methods: the folders of runs that failed, and why it stopped, if it did."""
    started, ran = time.monotonic(), 0
    failed: list[Path] = []
    seeds = [sweep.commands({**config, "seeds": [seed]}, []) for seed in config["seeds"]]
    with tqdm(total=sum(map(len, seeds)), desc=config["output_dir"], unit="run") as bar:
        for seed, runs in zip(config["seeds"], seeds, strict=True):
            is_new = not all(sweep.is_done(folder) for folder, _ in runs)
            spent = time.monotonic() - started
            if budget is not None and is_new and ran and spent * (ran + 1) / ran > budget:
                return failed, f"The budget of {told} ends before seed {seed} would."
            ended = sweep.run_all(runs, engine, bar)
            failed += ended.failed
            if ended.stopped:
                return failed, sweep.GOES_ON
            if is_new and not ran and len(ended.failed) == len(runs):
                return failed, f"All runs of seed {seed} failed, so no other was started."
            ran += is_new
    return failed, ""


def _tell(data: str, output: Path, runs: Sequence[sweep.Planned], stopped: str, has_baseline: bool) -> None:
    """Print what the runs that are complete say, and write the page of it."""
    records = [read_record(folder / NAME) for folder, _ in runs if sweep.is_done(folder)]
    print(f"\n{stopped}" if stopped else "")
    if len(records) < len(runs):
        print(f"Of {len(runs)} runs {len(records)} are complete.")
    if not has_baseline:
        print(f"No run of {BASELINE} is complete, so there is nothing to compare with.")
        return
    found = compare(records, BASELINE)
    print("\n".join(map(screen, found)))
    (output / "report.html").write_text(page(found, f"Methods on {data}"), encoding="utf-8")
    print(f"\nTables, pictures and every run: {output / 'report.html'}")
