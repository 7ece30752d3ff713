"""Every method on points of the plane, offline, in half a minute: what each makes of three spirals.

hf-logitmix toy
hf-logitmix toy --methods vanilla "mixup --alpha 0.2" "logitmix --weights 1 1 0" --output_dir runs/toy

It is synthetic and one seed: it shows what the methods do to a surface of probabilities, not which is better.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hf_logitmix import METHODS, Method, MixTrainingArguments, get_method
from hf_logitmix.analysis.snapshots import FOLDER
from hf_logitmix.commands.arguments import ArgumentsParser
from hf_logitmix.commands.parser import Parser
from hf_logitmix.criteria import CRITERIA, CrossEntropy
from hf_logitmix.evidence.records import LOGITS, NAME, arguments_of
from hf_logitmix.figures.surfaces import probability_surfaces
from hf_logitmix.mixing import Linear, NoMixing, SpanMix
from hf_logitmix.models import call, evaluating
from hf_logitmix.objectives import Distillation
from hf_logitmix.pairing import CMixup
from hf_logitmix.toy.points import KIND, spirals
from hf_logitmix.toy.training import DATA, Result, Settings, train
from hf_logitmix.training.arguments import METHOD_OPTIONS
from hf_logitmix.training.demo import check_room
from hf_logitmix.training.runs import N_BINS

DEFAULT_OUTPUT = "toy_output"
REACH, CELLS = 3.8, 200  # of the surfaces: from the origin to a side, and points along a side


def left_out(name: str) -> str:
    """Why a method of the table has no place among points; empty for one that has."""
    method = METHODS[name]
    if isinstance(method.mixing, SpanMix):
        return "for texts"
    if not isinstance(method.mixing, (Linear, NoMixing)):
        return "for images"
    return "for scores" if isinstance(method.pairing, CMixup) else ""


def entries() -> list[str]:
    """Every method that has a place among points, each once, and every criterion that no method is named after.

    They are written as in the file of a sweep; those that mix nothing come first.
    """
    names = [name for name in METHODS if not left_out(name)]
    once = [name for number, name in enumerate(names) if METHODS[name] not in [METHODS[n] for n in names[:number]]]
    used = [method.criterion for method in METHODS.values()] + [CrossEntropy()]
    of_classes = [name for name, one in CRITERIA.items() if KIND in one.problem_types and one not in used]
    plain = [name for name in once if not METHODS[name].mixes]
    mixing = [name for name in once if METHODS[name].mixes]
    mixing.insert(mixing.index("logitmix") + 1, "logitmix --level hidden:1")
    return [*plain, *(f"vanilla --criterion {name}" for name in of_classes), *mixing]


def method_of(entry: str) -> Method:
    """A method from its name with options, as the file of a sweep has them: ``mixup --alpha 0.2``.

    Raises:
        ValueError: for a name or an option that is not there, and for one that is no option of a method.
    """
    name, *words = shlex.split(entry)
    if name in METHODS and (reason := left_out(name)):
        raise ValueError(f"method {name} is {reason}, and these are points: leave it out.")
    (args,) = ArgumentsParser((MixTrainingArguments,), "hf-logitmix toy", None).parse(["--method", name, *words])
    asked = [name.removeprefix("--") for name in arguments_of(words)]
    if foreign := [name for name in asked if name not in METHOD_OPTIONS]:
        raise ValueError(f"{entry}: --{foreign[0]} is no option of a method; how the toy trains is fixed.")
    return get_method(name, **args.method_options())


def surface(model: nn.Module) -> np.ndarray:
    """The probabilities of a network on a square grid around the origin, [CELLS, CELLS, K], y upwards."""
    line = torch.linspace(-REACH, REACH, CELLS)
    y, x = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack([x, y], dim=-1).reshape(-1, 2)[:, :, None, None]
    with evaluating(model):
        return call(model, {"pixel_values": grid}, len(grid)).softmax(-1).reshape(CELLS, CELLS, -1).numpy()


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix toy", description=__doc__)
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="as in a sweep (all that make sense here)")
    parser.add_argument("--output_dir", default=DEFAULT_OUTPUT, help="folder of toy.png and the records (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random (%(default)s)")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="steps of training (%(default)s)")
    parser.add_argument("--snapshots", action="store_true", help="keep what figures over training are drawn from")
    parser.add_argument("--bottleneck", action="store_true", help="two units before the classifier (LaMix, figure 8)")
    args = parser.parse_args(argv)
    if args.steps < 1:
        raise ValueError(f"steps={args.steps}: pass at least one.")
    chosen = args.methods or entries()
    methods = {entry: method_of(entry) for entry in chosen}
    output, settings = Path(args.output_dir), Settings(steps=args.steps, bottleneck=args.bottleneck)
    folders = {entry: output / folder_of(entry, args.seed) for entry in methods}
    check_room(output, [folder.name for folder in folders.values()], DATA)
    started = time.perf_counter()
    shares = np.array(settings.counts) / sum(settings.counts)
    points = spirals(settings.counts, settings.noise, args.seed)
    held_out = spirals((settings.held_out * shares).astype(int).tolist(), settings.noise, args.seed + 1)
    results: dict[str, Result] = {}
    own = shlex.join(["--seed", str(args.seed), "--steps", str(args.steps), *(["--bottleneck"] * args.bottleneck)])
    for entry, method in methods.items():
        if isinstance(method.objective, Distillation) and method.objective.teacher is None:
            teacher = results.get("vanilla") or train(METHODS["vanilla"], points, held_out, settings, args.seed)
            method = method.with_options(teacher=teacher.model)
        folder = folders[entry]
        kept = folder / FOLDER if args.snapshots else None
        for older in (folder / FOLDER).glob("step-*.npz"):
            older.unlink()
        found = results[entry] = train(method, points, held_out, settings, args.seed, kept)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / LOGITS, logits=found.logits, labels=held_out.labels.numpy())
        told = {**found.record, "label": entry, "command": f"hf-logitmix toy --methods {shlex.quote(entry)} {own}"}
        (folder / NAME).write_text(json.dumps(told, indent=2) + "\n")
    titles = {entry: ", ".join(entry.removeprefix("vanilla --").split(" --")) for entry in results}
    panels = {titles[entry]: (surface(found.model), _told(found.record)) for entry, found in results.items()}
    picture = output / "toy.png"
    shown = (points.xy.numpy(), points.labels.numpy())
    title = f"Three synthetic spirals, {len(points.labels)} training points, seed {args.seed}"
    probability_surfaces(panels, REACH, *shown, title).savefig(picture, dpi=130)
    print(
        f"Three synthetic spirals, {len(points.labels)} training and {len(held_out.labels)} held-out points, one seed "
        f"({args.seed}):\nwhat methods do, not which is better.\n"
    )
    print(table({titles[entry]: found.record for entry, found in results.items()}))
    if not args.methods:
        others: dict[str, list[str]] = {}
        for name in METHODS:
            if reason := left_out(name):
                others.setdefault(reason, []).append(name)
        print("Left out: " + "; ".join(f"{', '.join(names)} ({reason})" for reason, names in others.items()) + ".")
    print(f"The picture is {picture}; the records are in folders beside it.")
    print(f"{time.perf_counter() - started:.0f} s in all.")
    return 0


def folder_of(entry: str, seed: int) -> str:
    """The folder of a run, named as a sweep names it."""
    name = re.sub(r"[^\w.]+", "-", entry)
    return f"spirals-{name}-{seed}"


def table(records: dict[str, dict[str, Any]]) -> str:
    """A row a method: accuracy, calibration error and negative log-likelihood on held-out points."""
    width = max(10, *(len(name) + 2 for name in records))
    shown = {"accuracy": "accuracy", "ECE": "ece", "NLL": "nll", "NLL scaled": "nll_scaled"}
    lines = [f"{'method':<{width}}" + "".join(f"{title:>12}" for title in shown) + f"{'seconds':>12}"]
    for name, record in records.items():
        cells = "".join(f"{record[f'eval_{key}']:>12.3f}" for key in shown.values())
        lines.append(f"{name:<{width}}{cells}{record['train_seconds']:>12.1f}")
    lines.append(f"ECE: {N_BINS} bins. Scaled: after temperature scaling, cross-fitted in two halves of these points.")
    return "\n".join(lines)


def _told(record: dict[str, Any]) -> str:
    return "   ".join(f"{title} {record[f'eval_{key}']:.3f}" for title, key in _PANEL.items())


_PANEL = {"acc": "accuracy", "ECE": "ece", "NLL": "nll"}
