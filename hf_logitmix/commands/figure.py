"""Draw a figure of a paper from runs.

hf-logitmix figure alpha runs/figure_alpha --output alpha.png
hf-logitmix figure projection runs/a/mnli-vanilla-1 runs/a/mnli-label_smoothing-1 --output projection.png
hf-logitmix figure --list

Figures over an option read the records of all runs below a folder; those of logits and of snapshots read single runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Picture

from hf_logitmix import figures
from hf_logitmix.analysis import (
    Snapshot,
    mixed_targets,
    mutual_information,
    over_temperatures,
    project_on_templates,
    read_snapshots,
    targets_of,
    top_targets,
)
from hf_logitmix.analysis.runs import check_one_experiment, metric_over, options_in
from hf_logitmix.calibration.plots import class_matrix, reliability_diagram
from hf_logitmix.commands.parser import Parser, did_you_mean
from hf_logitmix.commands.table import read_runs
from hf_logitmix.evidence.records import LOGITS, NAME, Record
from hf_logitmix.training.runs import N_BINS

_ALL = ("accuracy", "ece", "nll")
_TITLES = {"accuracy": "accuracy", "ece": f"ECE, {N_BINS} bins", "nll": "NLL"}
_TERMS = ("mix", "cls", "sim")  # the order of LogitMix's weights
_ALONE = {"Clean": "cls", "Mixed": "mix"}  # objectives that are one of them
_TEMPERATURES = np.geomspace(0.25, 4, 81)


@dataclass(frozen=True)
class Figure:
    """A figure of a paper.

    Attributes:
        told: what it shows, and in which paper.
        draw: makes it of the runs and the other arguments.
        sweep: the packaged sweep whose runs it is drawn from; empty where any will do.
    """

    told: str
    draw: Callable[[Sequence[str], argparse.Namespace], Picture]
    sweep: str = ""


def over(
    option: str, label: str, metrics: Sequence[str], zero: str | None, runs: Sequence[str], args: argparse.Namespace
) -> Picture:
    """Metrics over an option, from the records of all runs."""
    records = [record for folder in runs for record in read_runs(folder)]
    panels = {_TITLES[metric]: metric_over(records, option, f"eval_{metric}", zero) for metric in metrics}
    return figures.metric_curves(panels, label, args.title)


def losses(runs: Sequence[str], args: argparse.Namespace) -> Picture:
    """The terms of LogitMix that are there, and what is compared with them."""
    records = [record for folder in runs for record in read_runs(folder)]
    check_one_experiment(records)
    panels: dict[str, dict[str, list[float]]] = {_TITLES[metric]: {} for metric in ("accuracy", "ece")}
    for record in sorted(records, key=lambda record: (len(_terms(record)), _terms(record))):
        name = " + ".join(_terms(record))
        for metric in ("accuracy", "ece"):
            if (value := record.get(f"eval_{metric}")) is None:
                raise ValueError(f"a run of {record['method_name']} has no eval_{metric}: pass runs on classes.")
            panels[_TITLES[metric]].setdefault(name, []).append(value)
    return figures.loss_ablation(panels, args.title)


def _terms(record: Mapping[str, Any]) -> list[str]:
    options = options_in(record["method"])
    weights = [options.get(f"objective.weights.{number}") for number in range(3)]
    if None in weights:
        name = record["method_name"]
        return [f"{alone} ({name})" if (alone := _ALONE.get(options["objective"])) else name]
    odd = [f"{weight:g} " if weight not in (0, 1) else "" for weight in weights]
    return [f"{times}{term}" for term, weight, times in zip(_TERMS, weights, odd, strict=True) if weight]


def temperature(runs: Sequence[str], args: argparse.Namespace) -> Picture:
    """NLL and ECE of single runs over the temperature."""
    curves = {
        name: over_temperatures(*logits, _TEMPERATURES.tolist(), ("nll", "ece"), N_BINS)
        for name, logits in logits_of(runs).items()
    }
    return figures.metrics_over_temperature(curves, _TEMPERATURES.tolist(), args.title)


def reliability(runs: Sequence[str], args: argparse.Namespace) -> Picture:
    """Reliability diagrams of single runs, side by side."""
    return reliability_diagram(logits_of(runs), N_BINS, args.title)


def projection(runs: Sequence[str], args: argparse.Namespace) -> Picture:
    """The last snapshot of single runs in the plane of three templates."""
    panels = {}
    for name, (*_, last) in snapshots_of(runs).items():
        of_three = np.isin(last.labels, args.classes)
        points, stars = project_on_templates(last.features[of_three], last.weight, args.classes, last.bias)
        places = [args.classes.index(label) for label in last.labels[of_three].tolist()]
        panels[name] = (points, np.array(places, dtype=int), stars)
    return figures.template_projections(panels, [_class(k, args) for k in args.classes], args.title)


def information(runs: Sequence[str], args: argparse.Namespace) -> Picture:
    """Mutual information of the examples of two classes and the difference of these classes' logits."""
    curves, a, b = {}, args.classes[0], args.classes[1]
    for name, shots in snapshots_of(runs).items():
        drawn = [shot.draws for shot in shots if shot.draws is not None]
        if len(drawn) < len(shots):
            raise ValueError(f"the snapshots of {name} hold no draws: train with --snapshot_draws 20 too.")
        if not 0 <= min(a, b) <= max(a, b) < drawn[0].shape[-1]:
            raise ValueError(f"classes={[a, b]}: the classes of {name} are 0 to {drawn[0].shape[-1] - 1}.")
        chosen = np.isin(shots[0].labels, (a, b))
        values = [mutual_information((draws[..., a] - draws[..., b])[:, chosen]) for draws in drawn]
        curves[name] = ([shot.step for shot in shots], values)
    return figures.information_over_training(curves, int(chosen.sum()), args.title)


def soft_targets(runs: Sequence[str], args: argparse.Namespace) -> Picture:
    """The soft targets of one LaMix run over its snapshots."""
    if len(runs) != 1:
        raise ValueError(f"{len(runs)} runs: soft_targets is of a single one, of LaMix.")
    (run,) = runs
    ((name, shots),) = snapshots_of(runs).items()
    last = shots[-1]
    if last.soft is None or last.partner is None:
        raise ValueError(f"the snapshots of {name} hold no soft labels: pass a run of LaMix with beta below 1.")
    beta = float(options_in(_record(run)["method"])["objective.beta"])
    soft = [np.asarray(shot.soft) for shot in shots]
    lam = np.random.default_rng(0).uniform(size=len(last.labels))
    blends = mixed_targets(last.mixed_soft, last.labels, last.labels[last.partner], lam, beta)
    targets = [targets_of(p, shot.labels, beta) for p, shot in zip(soft, shots, strict=True)]
    return figures.soft_targets_over_training(
        [shot.step for shot in shots], targets, soft, top_targets(blends).tolist(), args.title
    )


def embedding(runs: Sequence[str], args: argparse.Namespace) -> Picture:
    """The two units of a bottleneck at four snapshots, spread evenly, the first with a step behind it."""
    rows = {}
    for name, shots in snapshots_of(runs).items():
        if any(shot.embedding is None for shot in shots):
            raise ValueError(f"{name} has no bottleneck: train a model made by hf_logitmix.analysis.with_bottleneck.")
        trained = [shot for shot in shots if shot.step] or shots
        chosen = np.unique(np.linspace(0, len(trained) - 1, min(4, len(trained))).astype(int))
        rows[name] = [(trained[n].step, trained[n].embedding, trained[n].labels) for n in chosen]
    count = 1 + max(int(labels.max()) for shown in rows.values() for _, _, labels in shown)
    return figures.embedding_over_training(rows, [_class(k, args) for k in range(count)], args.title)


def class_similarity(runs: Sequence[str], args: argparse.Namespace) -> Picture:
    """What a run of the MCEL family found alike."""
    if len(runs) != 1:
        raise ValueError(f"{len(runs)} runs: class_similarity is of a single one.")
    record = _record(runs[0])
    if "class_similarity" not in record:
        raise ValueError(f"{runs[0]} found no class similarity: pass a run of mcel, sg_mcel or gmcel.")
    matrix = record["class_similarity"]
    return class_matrix(np.array(matrix), [_class(k, args) for k in range(len(matrix))], args.title)


def _record(run: str) -> dict[str, Any]:
    found = read_runs(run)
    if len(found) != 1:
        raise ValueError(f"{run} holds {len(found)} runs: pass the folder of one.")
    return found[0]


def _class(number: int, args: argparse.Namespace) -> str:
    if not args.names:
        return f"class {number}"
    if number >= len(args.names):
        raise ValueError(f"names: {len(args.names)} for at least {number + 1} classes: pass one a class.")
    return args.names[number]


def logits_of(runs: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> logits and labels of the evaluation of each run.

    Raises:
        FileNotFoundError: for a run without them.
    """
    found = {}
    for name, run in _named(runs):
        kept = Record({}, Path(run) / NAME).logits()
        if kept is None:
            raise FileNotFoundError(f"{run} holds no {LOGITS}: pass the output folder of a run.")
        found[name] = kept
    return found


def snapshots_of(runs: Sequence[str]) -> dict[str, list[Snapshot]]:
    """Name -> the snapshots of each run; errors as `read_snapshots`."""
    return {name: read_snapshots(run) for name, run in _named(runs)}


def _named(runs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each run with its name: what of its folder's the others do not share, or its path where that names two."""
    names = [Path(run).resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = list(runs)
    elif len(names) > 1:
        names = ["-".join(parts) for parts in _apart([name.split("-") for name in names])]
    yield from zip(names, runs, strict=True)


def _apart(words: Sequence[list[str]]) -> Sequence[list[str]]:
    """Lists without what all of them begin and end with, of which at least one word is left."""
    shortest = min(map(len, words))
    first = next((n for n in range(shortest) if len({w[n] for w in words}) > 1), shortest - 1)
    room = shortest - first - 1
    last = next((n for n in range(room) if len({w[-1 - n] for w in words}) > 1), room)
    return [w[first : len(w) - last] for w in words]


FIGURES: Mapping[str, Figure] = {
    "alpha": Figure(
        "accuracy, ECE and NLL over alpha (Neuhaus et al., figures 1 and 2, as numbers)",
        partial(over, "pairing.lam.alpha", "alpha", _ALL, "vanilla"),
        "figure_alpha",
    ),
    "reliability": Figure(
        "reliability diagrams of runs (Neuhaus et al., figures 1 and 2)", reliability, "figure_alpha"
    ),
    "losses": Figure("which of LogitMix's three terms (poster, ablation)", losses, "figure_losses"),
    "logits_or_probabilities": Figure(
        "LogitMix over alpha, the similarity of logits and of probabilities (poster)",
        partial(over, "pairing.lam.alpha", "alpha", _ALL, None),
        "figure_logits_or_probabilities",
    ),
    "similarity_weight": Figure(
        "LogitMix over the weight of its similarity, of logits and of probabilities (poster)",
        partial(over, "objective.weights.2", "weight of the similarity", _ALL, None),
        "figure_similarity_weight",
    ),
    "projection": Figure("the last layer in the plane of three templates (Müller et al., figure 1)", projection),
    "temperature": Figure("ECE and NLL over the temperature (Müller et al., figure 4)", temperature),
    "information": Figure("mutual information of inputs and logits (Müller et al., figure 6)", information),
    "soft_targets": Figure("LaMix's soft targets over training (LaMix, figures 2 and 3)", soft_targets),
    "beta": Figure(
        "LaMix over beta (LaMix, figure 4)", partial(over, "objective.beta", "beta", _ALL, None), "figure_beta"
    ),
    "smoothing": Figure(
        "label smoothing over its factor, LaMix across (LaMix, figure 6)",
        partial(over, "targets.eps", "smoothing factor", _ALL, "vanilla"),
        "figure_smoothing",
    ),
    "embedding": Figure("a bottleneck of two units over training (LaMix, figure 8)", embedding),
    "eps": Figure(
        "MCEL over eps (Negi et al., figure 3)", partial(over, "targets.eps", "eps", _ALL, "vanilla"), "figure_eps"
    ),
    "label_noise": Figure(
        "methods over the share of wrong labels (Negi et al., figure 5)",
        partial(over, "label_noise", "share of wrong labels", _ALL, None),
        "figure_label_noise",
    ),
    "class_similarity": Figure("what is alike by discriminant analysis (Negi et al., figure 2)", class_similarity),
}


def overview() -> str:
    """A line for each figure, with the sweep that it is drawn from."""
    width = max(map(len, FIGURES)) + 2
    return "\n".join(
        f"{name:<{width}}{figure.told}" + (f"; hf-logitmix sweep {figure.sweep}" if figure.sweep else "")
        for name, figure in FIGURES.items()
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = Parser("hf-logitmix figure", description=__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of a figure; --list lists them")
    parser.add_argument("runs", nargs="*", metavar="RUNS", help="folders of runs")
    parser.add_argument("--list", action="store_true", help="a line for each figure")
    parser.add_argument("--output", help="the picture, such as alpha.png")
    parser.add_argument("--title", default="", help="over the figure")
    parser.add_argument(
        "--classes", nargs="+", type=int, default=[0, 1, 2], help="three for projection, two for information (0 1 2)"
    )
    parser.add_argument("--names", nargs="+", help="names of all classes, in order (class 0, class 1, ...)")
    args = parser.parse_args(argv)
    if args.list:
        print(overview())
        return 0
    if args.name not in FIGURES:
        if args.name is None:
            raise ValueError("no figure is named: hf-logitmix figure --list lists them.")
        told = did_you_mean(args.name, FIGURES)
        raise ValueError(f"figure {args.name!r} is unknown{told}: hf-logitmix figure --list lists them.")
    if not args.runs or not args.output:
        raise ValueError(f"figure {args.name} needs folders of runs and --output, such as --output {args.name}.png.")
    if len(args.classes) < 2:
        raise ValueError(f"classes={args.classes}: pass three classes, or two for information.")
    FIGURES[args.name].draw(args.runs, args).savefig(args.output, dpi=150)
    print(f"The picture is {args.output}.")
    return 0
