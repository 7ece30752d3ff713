"""Every combination of the package's parts trains, or is refused in a sentence that names one of them."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from torch import nn

from helpers.parts import CHOICES, KINDS, batch_and_labels, classes_of, each, needs, new_model, parts_of, training_set
from hf_logitmix import Method
from hf_logitmix.objectives import total_of
from hf_logitmix.pairing import RandomPairs
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step
from hf_logitmix.targets import OneHot

# what labels are, and what stands for the labels 0, 1 and 2
PROBLEMS = {
    LabelSpec(3, "single_label_classification"): torch.tensor([0, 1, 2]),
    LabelSpec(3, "single_label_classification", soft=True): torch.tensor(
        [[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0]]
    ),
    LabelSpec(3, "multi_label_classification"): torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
    LabelSpec(1, "regression"): torch.tensor([-0.5, 0.0, 1.5]),
}
STEP = Step(1, 4)  # odd, in which LaMix mixes


@cache
def student(kind: str, num_labels: int, problem_type: str) -> nn.Module:
    return new_model(kind, num_labels=num_labels, problem_type=problem_type).train()


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """The model has its weights back after this block."""
    before = [parameter.detach().clone() for parameter in model.parameters()]
    yield
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), before, strict=True):
            parameter.copy_(value)


def trains(method: Method, kind: str, spec: LabelSpec) -> str:
    """What is wrong when a step of plain SGD is made; empty where it lowers the loss of its own batch."""
    model = student(kind, spec.num_labels, spec.problem_type)
    method.check(model, spec)
    ready = method.setup(training_set(kind, model))
    inputs, classes = batch_and_labels(kind, 4)
    labels = PROBLEMS[spec][classes]

    def loss() -> torch.Tensor:
        terms, _ = ready(model, inputs, labels, STEP)
        return total_of({**terms, **ready.targets.penalty()})

    with ready.install(model), unchanged(model):
        before = loss()
        if not before.isfinite():
            return f"a loss of {before.item()}"
        learned = [p for p in (*model.parameters(), *ready.learned.parameters()) if p.requires_grad]
        gradients = torch.autograd.grad(before, learned, allow_unused=True)
        pairs = [(p, g) for p, g in zip(learned, gradients, strict=True) if g is not None]
        steepness = sum(gradient.square().sum() for _, gradient in pairs)
        if not steepness.isfinite() or steepness == 0:
            return f"gradients of square {float(steepness)}"
        with torch.no_grad():
            for parameter, gradient in pairs:
                parameter -= 1e-4 * before / steepness * gradient  # so little that saliency chooses the same
        after = loss()
    return "" if after < before else f"a loss of {before.item()} and then {after.item()}"


def outcome(kind: str, spec: LabelSpec, **parts) -> str:
    """``trains``, ``refused``, or what is wrong."""
    names = [name.lower() for name in (*CHOICES, *(type(part).__name__ for part in parts.values()))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trains(Method(**parts), kind, spec) or "trains"
    except ValueError as error:
        return "refused" if any(name in str(error).lower() for name in names) else f"{error} (no part is named)"


@cache
def tried(kind: str, mixing: type, objective: type) -> dict[str, tuple[dict, str]]:
    """Every combination with a mixing and an objective, by all that it is made of, and how it ended."""
    fixed = {part: part(**needs(kind).get(part.__name__, {})) for part in (mixing, objective)}
    found = {}
    for pairing, rows, criterion, spec in itertools.product(
        parts_of("pairing", kind), parts_of("targets", kind), [None, *parts_of("criterion", kind)], PROBLEMS
    ):
        others = [type(pairing) is not RandomPairs, type(rows) is not OneHot, criterion is not None]
        if sum(others) > (1 if spec.soft else 2):
            continue  # two that are not the default at a time, one with soft labels
        parts = {"mixing": fixed[mixing], "objective": fixed[objective], "pairing": pairing, "targets": rows}
        parts |= {"criterion": criterion}
        found[f"{spec}: {Method.__name__}{parts}"] = parts, outcome(kind, spec, **parts)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", classes_of("objective"))
@pytest.mark.parametrize("mixing", classes_of("mixing"))
def test_every_combination_trains_or_is_refused(mixing, objective, kind):
    """With every two of pairing, targets and criterion, for every kind of labels."""
    found = tried(kind, mixing, objective)
    assert {name: how for name, (_, how) in found.items() if how not in ("trains", "refused")} == {}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "part"), each(*CHOICES))
def test_every_part_trains_in_some_combination(kind, part):
    """A part that is refused in all of them would pass the test above."""
    reads = getattr(part(**needs(kind).get(part.__name__, {})), "reads", KINDS)
    every = [
        entry
        for mixing in classes_of("mixing")
        for objective in classes_of("objective")
        for entry in tried(kind, mixing, objective).values()
    ]
    trained = [parts for parts, how in every if how == "trains" and part in map(type, parts.values())]
    assert bool(trained) is (kind in reads)
