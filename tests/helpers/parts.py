"""Every part that the package exports, every method of its table, and two tiny models to try them on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from transformers import default_data_collator

from helpers.data import batch_of, examples, random_images
from helpers.models import tiny_bert, tiny_vit
from hf_logitmix import METHODS, Method
from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing import Mixing
from hf_logitmix.objectives import Objective
from hf_logitmix.pairing import CMixup, Pairing
from hf_logitmix.part import Part
from hf_logitmix.targets import Targets, TrainingSet

KINDS = ("text", "images")  # beside them "numbers": texts with a number each
CHOICES: dict[str, tuple[str, type[Part]]] = {
    "pairing": ("pairing", Pairing),
    "mixing": ("mixing", Mixing),
    "objective": ("objectives", Objective),
    "criterion": ("criteria", Criterion),
    "targets": ("targets", Targets),
}


def new_model(kind: str, **options: Any) -> nn.Module:
    """A tiny classifier that reads text or images, of three classes unless told otherwise."""
    if kind == "numbers":
        return tiny_bert(num_labels=1, problem_type="regression", **options)
    return {"text": tiny_bert, "images": tiny_vit}[kind](**options)


@cache
def teacher_of(kind: str) -> nn.Module:
    """A classifier of other weights than `new_model` has."""
    return new_model(kind, seed=1)


def data_of(kind: str, count: int) -> list[dict]:
    """Examples that `new_model` reads, of all three classes or numbers; texts are of unequal length."""
    rows = random_images(count) if kind == "images" else examples(count)
    return [{**row, "labels": number % 3 / 2 if kind == "numbers" else number % 3} for number, row in enumerate(rows)]


def batch_and_labels(kind: str, count: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    rows = data_of(kind, count)
    return batch_of(rows), torch.tensor([row["labels"] for row in rows])


def training_set(kind: str, model: nn.Module) -> TrainingSet:
    """Classes of five, five and four examples."""
    return TrainingSet(data_of(kind, 14), model, 3, default_data_collator, shows_progress=False)


def needs(kind: str) -> dict[str, dict[str, Any]]:
    """By their names, the arguments that parts cannot do without."""
    rows = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])
    return {
        "Distillation": {"teacher": teacher_of(kind)},
        "TargetMatrix": {"rows": rows},
        "SpanMix": {"special_ids": (0,)},  # the padding of `helpers.data.examples`, which have no other
    }


def classes_of(choice: str) -> list[type[Part]]:
    """The parts of one of the five choices, as the package exports them."""
    folder, base = CHOICES[choice]
    module = importlib.import_module(f"hf_logitmix.{folder}")
    found = [getattr(module, name) for name in sorted(module.__all__)]
    return [part for part in found if isinstance(part, type) and issubclass(part, base) and part is not base]


def parts_of(choice: str, kind: str) -> Iterator[Any]:
    """One of each part of a choice, with its defaults where it has some."""
    for part in classes_of(choice):
        yield part(**needs(kind).get(part.__name__, {}))


def each(*choices: str) -> list[Any]:
    """Parameters of a test: kind of input and class, of some of the choices."""
    found = [(kind, part) for choice in choices for part in classes_of(choice) for kind in KINDS]
    return [pytest.param(kind, part, id=f"{part.__name__} {kind}") for kind, part in found]


def kind_of(method: Method) -> str:
    """The kind of input that a method is tried on: text where it can be, with numbers where it is for these alone."""
    if isinstance(method.pairing, CMixup):
        return "numbers"
    return "text" if "text" in method.mixing.reads else "images"


def method_of(name: str) -> tuple[str, Method]:
    """A kind of input and a method of the table, ready for it."""
    method = METHODS[name]
    kind = kind_of(method)
    given: dict[str, Any] = {}
    for part in (method.mixing, method.objective):
        given |= needs(kind).get(type(part).__name__, {})
    return kind, method.with_options(**given) if given else method
