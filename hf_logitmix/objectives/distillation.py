"""Distillation: cross-entropy with the labels, and the teacher's probabilities at a temperature."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_logitmix import papers
from hf_logitmix.criteria import RowLoss
from hf_logitmix.criteria.base import at_least_float32
from hf_logitmix.modalities import modality_of
from hf_logitmix.models import call, loading, public_name, under_peft_model, unwrap
from hf_logitmix.objectives.base import Objective, Term, Terms
from hf_logitmix.output import MixedOutput
from hf_logitmix.part import LabelSpec

if TYPE_CHECKING:
    from hf_logitmix.training.training_set import TrainingSet


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    r"""The distance of each row to its teacher, :math:`\tau^2\, \mathrm{KL}(\mathrm{softmax}(t/\tau)
    \,\|\, \mathrm{softmax}(z/\tau))`.

    The factor keeps its gradient on the scale of cross-entropy's (Hinton et al., Distilling the Knowledge in a Neural
    Network, 2015). Shapes: [B, K] x 2 -> [B].
    """
    student = F.log_softmax(at_least_float32(logits) / temperature, dim=-1)
    teacher = F.log_softmax(at_least_float32(teacher_logits) / temperature, dim=-1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


@dataclass(frozen=True)
class Distillation(Objective):
    r"""The loss of the labels and distillation from a frozen teacher (Hinton et al., 2015).

    .. math:: L = (1 - w)\, H(z, T_y) + w\, \tau^2\, \mathrm{KL}(p_\tau^{teacher} \,\|\, p_\tau)

    The teacher sees the same batch, in evaluation mode and without gradients, so it must have the student's tokenizer
    and classes. It is neither trained nor saved; a model that is passed is frozen and put into evaluation mode, in
    place.

    Attributes:
        teacher: a local folder or Hub name of a classifier, of images where the student reads images, or a model.
        temperature: tau. 2 is ours: the papers tune it.
        distill_weight: w, in [0, 1]. 0.5 is ours.
        name: of the teacher in records, without a local path; found from the teacher.

    Raises:
        ValueError: for a temperature or weight that is not possible; before training for no teacher, or one with other
            classes or another vocabulary.
    """

    equation = r"L = (1 - w) H(z, T_y) + w \tau^2\, \mathrm{KL}(p_\tau^{teacher} \,\|\, p_\tau)"
    papers = (papers.DISTILLATION,)

    teacher: str | Path | nn.Module | None = field(
        default=None,
        repr=False,
        metadata={"option": "teacher", "help": "Distillation: local folder or Hub name of the teacher."},
    )
    temperature: float = field(default=2.0, metadata={"help": "Distillation: temperature of both softmaxes."})
    distill_weight: float = field(
        default=0.5, metadata={"help": "Distillation: weight of the teacher's term, the labels get the rest."}
    )
    name: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be a number > 0, got {self.temperature}.")
        if not 0 <= self.distill_weight <= 1:
            raise ValueError(f"distill_weight must be in [0, 1], got {self.distill_weight}.")
        if isinstance(self.teacher, (str, Path)):
            object.__setattr__(self, "name", public_name(str(self.teacher)))
        elif self.teacher is not None:
            object.__setattr__(self, "name", type(self.teacher).__name__)

    def __repr__(self) -> str:
        return (
            f"Distillation({self.name or None}, temperature={self.temperature}, distill_weight={self.distill_weight})"
        )

    def check(self, model: nn.Module, labels: LabelSpec) -> None:
        if labels.problem_type != "single_label_classification":
            raise ValueError(
                f"distillation is defined for classes and this is {labels.problem_type}: pass another method."
            )
        if self.teacher is None:
            raise ValueError("distillation needs a teacher: pass teacher=, a local folder or Hub name of a classifier.")

    def setup(self, training_set: TrainingSet) -> Objective:
        student = unwrap(training_set.model)
        teacher: Any = self.teacher
        if teacher is student:
            raise ValueError("the teacher is the model itself: pass a copy, or another model.")
        if isinstance(teacher, (str, Path)):
            with loading("teacher", str(teacher)):
                teacher, loaded = modality_of(student).auto_class.from_pretrained(
                    teacher, dtype=torch.float32, output_loading_info=True
                )
            if loaded["missing_keys"]:
                raise ValueError(
                    f"teacher={self.name!r} lacks {', '.join(sorted(loaded['missing_keys'])[:3])}, so its head knows "
                    "nothing: pass a classifier that was trained on this task."
                )
        if not hasattr(teacher, "config"):
            raise ValueError(
                f"teacher={self.name or teacher!r} is no model with a config: pass a folder, a Hub name or a "
                "classifier of transformers."
            )
        _check_teacher(teacher.config, student.config)
        teacher = teacher.to(next(student.parameters()).device).eval().requires_grad_(False)
        return DistillationFrom(self, teacher)

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        raise ValueError("the teacher is not loaded: call setup(training_set), and what it returns.")


class DistillationFrom(Objective):
    """`Distillation` in training, with its teacher."""

    def __init__(self, options: Distillation, teacher: nn.Module) -> None:
        self.options = options
        self.teacher = teacher
        self.reads = frozenset(inspect.signature(under_peft_model(unwrap(teacher)).forward).parameters)

    def teacher_logits(self, inputs: Mapping[str, Any]) -> Tensor:
        """What the teacher says of a batch, FloatTensor[B, K]."""
        shown = {name: value for name, value in inputs.items() if name in self.reads}
        with torch.no_grad():
            return call(self.teacher, shown, len(next(iter(shown.values()))))

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        assert output.logits is not None
        temperature, weight = self.options.temperature, self.options.distill_weight
        taught = distillation(output.logits, self.teacher_logits(inputs), temperature)
        return {"cls": Term(loss(output.logits, labels), 1 - weight), "distill": Term(taught, weight)}


def _check_teacher(teacher: Any, student: Any) -> None:
    if getattr(teacher, "problem_type", None) not in (None, "single_label_classification"):
        raise ValueError(
            f"the teacher was trained for {teacher.problem_type}, which has no probabilities of classes to learn from."
        )
    if teacher.num_labels != student.num_labels:
        raise ValueError(
            f"the teacher has {teacher.num_labels} classes and the model {student.num_labels}: pass a teacher that was "
            "trained on this task."
        )
    names = [[str(config.id2label[k]).lower() for k in range(config.num_labels)] for config in (teacher, student)]
    if names[0] != names[1] and not any(name[0] == "label_0" for name in names):
        raise ValueError(f"the teacher's classes are {names[0]} and the model's {names[1]}: they must be in one order.")
    sizes = [getattr(config, "vocab_size", None) for config in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the teacher has a vocabulary of {sizes[0]} and the model of {sizes[1]}: both must read one tokenizer."
        )
