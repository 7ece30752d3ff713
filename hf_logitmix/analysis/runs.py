"""What runs differ in, from their records, and their metrics over it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hf_logitmix.calibration.rows import Floats


class Curve(NamedTuple):
    """A metric over an option.

    Attributes:
        x: [P] values of the option, rising.
        mean, std: [P] of the metric over the runs at each; the sample standard deviation, 0 of a single run.
        runs: [P] how many there are at each.
    """

    x: Floats
    mean: Floats
    std: Floats
    runs: Floats


def options_in(method: str) -> dict[str, Any]:
    """The options of a method by their paths, from how a record writes it.

    Example:
        >>> options_in("Method(pairing=RandomPairs(lam=Beta(alpha=0.2)), objective=LogitMix(weights=(1, 1, 0)))")
        {'pairing': 'RandomPairs', 'pairing.lam': 'Beta', 'pairing.lam.alpha': 0.2, 'objective': 'LogitMix', \
'objective.weights.0': 1, 'objective.weights.1': 1, 'objective.weights.2': 0}

    Raises:
        ValueError: for a text that no method is written as.
    """
    try:
        call = ast.parse(method, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"method {method!r} of a record cannot be read.") from error
    if not isinstance(call, ast.Call):
        raise ValueError(f"method {method!r} of a record is not written as Method(...).")
    found: dict[str, Any] = {}
    _collect(call, "", found)
    return found


def _collect(node: ast.expr, path: str, found: dict[str, Any]) -> None:
    inside = f"{path}." if path else ""
    if isinstance(node, ast.Call):
        if path:
            found[path] = ast.unparse(node.func)
        for keyword in node.keywords:
            _collect(keyword.value, f"{inside}{keyword.arg}", found)
    elif isinstance(node, (ast.Tuple, ast.List)):
        for number, element in enumerate(node.elts):
            _collect(element, f"{inside}{number}", found)
    else:
        try:
            found[path] = ast.literal_eval(node)
        except ValueError:
            found[path] = ast.unparse(node)


def noise_of(run: Mapping[str, Any]) -> float:
    """The share of training labels that were changed."""
    told = run.get("settings", {}).get("label_noise")
    return float(str(told).split()[0]) if told else 0.0


def described(run: Mapping[str, Any]) -> dict[str, Any]:
    """All that runs may differ in, name -> value: task, data, model, method, its options and the settings."""
    own = {name: run.get(name) for name in ("task", "data", "model", "n_train", "n_eval", "method_name")}
    settings = {f"settings.{name}": str(value) for name, value in run.get("settings", {}).items()}
    for elsewhere in ("label_noise", "label_smoothing_factor"):  # one is below, the other has become the targets
        settings.pop(f"settings.{elsewhere}", None)
    return {**own, **options_in(run["method"]), "label_noise": noise_of(run), **settings}


def metric_over(
    runs: Sequence[Mapping[str, Any]], option: str, metric: str, zero: str | None = None
) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """A metric over an option, a curve for each experiment that has the option, and what has none.

    Runs are of one curve if they differ in nothing but the option and the seed; a curve is named by its method and by
    what else tells it from the others.

    Args:
        runs: records, as `hf_logitmix.commands.table.read_runs` gives them.
        option: its path, such as ``pairing.lam.alpha``.
        metric: a key of the records, such as ``eval_accuracy``.
        zero: the method that is every curve at 0, such as vanilla for alpha.

    Returns:
        name -> curve, and name -> curve of a single value, at NaN, for runs without the option that no curve begins
        with.

    Raises:
        ValueError: where no run has the option, none of them the metric, and where some have it and others have not.
    """
    having: dict[Any, list[Any]] = defaultdict(list)
    without: dict[Any, list[Any]] = defaultdict(list)
    known = [(run, described(run)) for run in runs if run.get(metric) is not None]
    if not known:
        raise ValueError(f"none of the {len(runs)} runs has {metric}: pass runs that were evaluated on classes.")
    if lacking := [f"{run.get('method_name')} (seed {run.get('seed')})" for run in runs if run.get(metric) is None]:
        raise ValueError(f"{metric} is missing in, or not a number of, {', '.join(lacking)}: leave these runs out.")
    for run, told in known:
        rest = {name: str(value) for name, value in told.items() if name != option}
        (having if _is_number(told.get(option)) else without)[tuple(rest.items())].append(
            (told.get(option), run[metric])
        )
    if not having:
        raise ValueError(f"none of the {len(runs)} runs has the option {option}: pass those of a sweep over it.")
    names = _names([*having, *without])
    curves: dict[str, Curve] = {}
    at_zero: set[Any] = set()
    for key, points in having.items():
        at = defaultdict(list)
        for x, y in points:
            at[float(x)].append(float(y))
        for other, values in without.items():
            if dict(other)["method_name"] == zero and _around(other) == _around(key):
                at.setdefault(0.0, []).extend(float(y) for _, y in values)
                at_zero.add(other)
        curves[names[key]] = _curve(at)
    flat = {
        names[key]: _curve({float("nan"): [float(y) for _, y in points]})
        for key, points in without.items()
        if key not in at_zero
    }
    return curves, flat


def check_one_experiment(runs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that differ in more than their methods.

    Raises:
        ValueError: with what they differ in.
    """
    told = [_around(tuple((name, str(value)) for name, value in described(run).items())) for run in runs]
    names = dict.fromkeys(name for own in told for name in own)
    if differs := [name for name in names if len({own.get(name) for own in told}) > 1]:
        raise ValueError(f"the runs differ in {', '.join(differs)}: pass those of one experiment.")


def _around(key: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Of what runs differ in, all but their methods."""
    names = ("task", "data", "model", "n_train", "n_eval", "label_noise")
    return {k: v for k, v in key if k in names or (k.startswith("settings.") and k != "settings.masks")}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _curve(at: Mapping[float, Sequence[float]]) -> Curve:
    order = sorted(at)
    values = [np.array(at[x]) for x in order]
    std = [v.std(ddof=1) if len(v) > 1 else 0.0 for v in values]
    return Curve(*map(np.array, (order, [v.mean() for v in values], std, [len(v) for v in values])))


def _names(keys: Sequence[tuple[tuple[str, str], ...]]) -> dict[Any, str]:
    """A name for each group of runs: its method, and of its method and data what tells it from others of that name."""
    groups = [dict(key) for key in keys]
    shown: dict[Any, str] = {}
    for key, own in zip(keys, groups, strict=True):
        alike = [other for other in groups if other["method_name"] == own["method_name"]]
        apart = [name for name in own if len({other.get(name) for other in alike}) > 1 and name != "method_name"]
        shown[key] = ", ".join([own["method_name"], *(_told(name, own[name]) for name in apart)])
    return shown


def _told(name: str, value: str) -> str:
    return value if name in ("task", "data", "model") else f"{name.split('.')[-1]} {value}"
