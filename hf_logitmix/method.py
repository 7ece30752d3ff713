"""A method is five choices: pairing, mixing, objective, criterion and targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix.criteria import Criterion, RowLoss, as_criterion, criterion_of
from hf_logitmix.forward import mixed_forward
from hf_logitmix.mixing import Mixing, NoMixing
from hf_logitmix.models import warn_of_linear_head
from hf_logitmix.objectives import Clean, Objective, Terms
from hf_logitmix.options import fields_of, find, options_of, with_values
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing import MixPlan, Pairing, RandomPairs
from hf_logitmix.pairing.plan import unmixed
from hf_logitmix.papers import Paper
from hf_logitmix.part import LabelSpec, Part
from hf_logitmix.soft_labels import are_soft
from hf_logitmix.step import Step
from hf_logitmix.targets import OneHot, Targets, as_targets
from hf_logitmix.training.training_set import TrainingSet
from hf_logitmix.weights import as_class_weights, balanced, check_class_weights, weights_of


@dataclass(frozen=True, repr=False)
class Method:
    """How a model is trained: any combination of the five choices.

    Attributes:
        mixing: how two inputs become one, and where in the model.
        objective: which logits are compared with what.
        targets: which row stands for a label; a FloatTensor[K, K] or an object of `hf_logitmix.targets`.
        pairing: who meets whom, how much of each input, and how much of each label.
        criterion: how far a row of logits is from its target, an object of `hf_logitmix.criteria` or its name; None is
            the one that fits the labels.
        class_weights: what the loss of an example is multiplied by, by its class: K numbers, or ``"balanced"`` for
            N / (K N_k) of the training set (as scikit-learn). Of a mixed row each of the two labels brings its own. The
            mean over rows stays a mean: it is not divided by the sum of weights.
        name: in `METHODS`; empty for a combination of one's own.

    Raises:
        ValueError: for parts that do not fit together.
    """

    mixing: Mixing = field(default_factory=NoMixing)
    objective: Objective = field(default_factory=Clean)
    targets: Targets = field(default_factory=OneHot)
    pairing: Pairing = field(default_factory=RandomPairs)
    criterion: Criterion | None = field(
        default=None,
        metadata={"help": "Name in hf_logitmix.criteria.CRITERIA; else the one that fits the labels."},
    )
    class_weights: Sequence[float] | str | None = field(
        default=None,
        metadata={"help": "Weights of the classes in the loss: balanced, or a number a class."},
    )
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", as_targets(self.targets))
        object.__setattr__(self, "criterion", as_criterion(self.criterion))
        object.__setattr__(self, "class_weights", as_class_weights(self.class_weights))
        for name, kind in {"mixing": Mixing, "objective": Objective, "pairing": Pairing}.items():
            if not isinstance(part := getattr(self, name), kind):
                raise ValueError(f"{name} must be an object of hf_logitmix.{_FOLDERS[name]}, got {part!r}.")
        kinds = self.objective.kinds
        if kinds != {"clean"} and not self.mixing.mixes:
            raise ValueError(
                f"objective={self.objective} needs mixed rows and mixing={self.mixing} makes none: pass a mixing such "
                "as Linear()."
            )
        if not self.mixing.mixes and self.pairing != RandomPairs():
            raise ValueError(f"pairing={self.pairing} would have no effect: mixing={self.mixing} mixes nothing.")
        if "mixed" in kinds and self.pairing.fraction < 1:
            raise ValueError(
                f"mix_fraction={self.pairing.fraction} would drop the rest of the batch in steps where "
                f"{self.objective} trains on mixed rows alone: pass mix_fraction=1.0, or LogitMix without a ramp."
            )
        rows = self.objective.needs_distributions or not isinstance(self.targets, OneHot)
        if rows and self.criterion is not None and not self.criterion.takes_rows:
            raise ValueError(
                f"criterion={self.criterion} is defined for class ids alone, and targets={self.targets} with "
                f"{self.objective} are rows: pass another criterion."
            )
        if self.objective.takes_pairs_apart and not (self.pairing.is_mutual and self.mixing.keeps_lam):
            raise ValueError(
                f"{self.objective} takes apart two linear mixes of each pair, and pairing={self.pairing} with "
                f"mixing={self.mixing} makes others: pass pairing=MutualPairs() and mixing=Linear()."
            )
        if self.objective.needs_distributions and not self.targets.are_distributions:
            raise ValueError(
                f"targets={self.targets} have rows that need not sum to 1, and {self.objective} mixes them with "
                "probabilities: pass other targets."
            )

    def __repr__(self) -> str:
        shown: dict[str, Any] = dict(self.parts)
        if self.class_weights is not None:
            shown["class_weights"] = repr(self.class_weights)
        return f"Method({', '.join(f'{name}={value}' for name, value in shown.items())})"

    @property
    def mixes(self) -> bool:
        """Whether some step makes mixed rows."""
        return self.objective.kinds != {"clean"}

    @property
    def parts(self) -> dict[str, Part]:
        """The parts by their names; a criterion only where one was chosen, and a pairing only where rows are mixed."""
        found: dict[str, Part | None] = {
            "pairing": self.pairing if self.mixing.mixes else None,
            "mixing": self.mixing,
            "objective": self.objective,
            "criterion": self.criterion,
            "targets": self.targets,
        }
        return {name: part for name, part in found.items() if part is not None}

    @property
    def papers(self) -> tuple[Paper, ...]:
        """The papers of its parts."""
        return tuple(dict.fromkeys(paper for part in self.parts.values() for paper in part.papers))

    @property
    def source(self) -> str:
        """Where it is from, in one line; empty where no paper is named."""
        return "; ".join(paper.reference for paper in self.papers)

    @property
    def options(self) -> list[str]:
        """The names that `with_options` takes."""
        of_parts = (option.name for name, part in self.parts.items() for option in options_of(part, name))
        return list(dict.fromkeys([*of_parts, *_WHOLE]))

    def with_options(self, **options: Any) -> Method:
        """The same method with some options of its parts changed, and ``targets`` or ``criterion`` replaced.

        An option whose name two parts share is ``part__name``, such as ``objective__alpha``.

        Raises:
            ValueError: for an option that none of the parts has, or several; the message says what can be passed.
        """
        whole = {name: options.pop(name) for name in _WHOLE if name in options}
        method = dataclasses.replace(self, **whole)
        parts: dict[str, Any] = method.parts
        own = {name for name in options if any(name in (o.name, o.full_name) for o in fields_of(parts))}
        for now in (own, options.keys() - own):  # first the fields of the parts, then those of what these hold
            paths = {name: find(parts, name).path for name in options if name in now}
            for place in dict.fromkeys(path[:-1] for path in paths.values()):
                values = {path[-1]: options[name] for name, path in paths.items() if path[:-1] == place}
                part, *path = place
                parts[part] = with_values(parts[part], tuple(path), values)
        return dataclasses.replace(method, **parts)

    def check(self, model: nn.Module, labels: LabelSpec) -> None:
        """Fail early where this method cannot train this model.

        Raises:
            ValueError: with what does not fit and what to do.
        """
        if self.mixing.mixes and not self.mixes:
            raise ValueError(
                f"mixing={self.mixing} would have no effect: {self.objective} trains on clean rows alone; pass an "
                "objective on mixed rows, such as Mixed() or LogitMix()."
            )
        for part in self.parts.values():
            part.check(model, labels)
        check_class_weights(self.class_weights, labels)
        if "both" in self.objective.kinds and self.mixing.leaves_a_linear_head(model):
            warn_of_linear_head(self.mixing.place.removeprefix("at "))

    def setup(self, training_set: TrainingSet) -> MethodInTraining:
        """What trains: everything found and made that depends on the training set and the model."""
        parts = {name: getattr(self, name) for name in _FOLDERS}
        made: dict[str, Any] = {
            name: None if part is None else part.setup(training_set) for name, part in parts.items()
        }
        weights = self.class_weights
        if weights == "balanced":
            weights = balanced(training_set.class_counts())
        return MethodInTraining(
            self, training_set.num_labels, **made, class_weights=None if weights is None else torch.tensor(weights)
        )


_WHOLE = ("targets", "criterion", "class_weights")  # options that are no field of a part
_FOLDERS = {
    "pairing": "pairing",
    "mixing": "mixing",
    "objective": "objectives",
    "criterion": "criteria",
    "targets": "targets",
}


@dataclass(frozen=True, eq=False)
class MethodInTraining:
    """A `Method` that has seen the training set: what a Trainer, a collator and a loop of your own call.

    Example:
        >>> ready = get_method("puzzlemix").setup(TrainingSet(data, model, num_labels=10))  # doctest: +SKIP
        >>> with ready.install(model):  # doctest: +SKIP
        ...     terms, output = ready(model, inputs, labels, Step(index=0, max_steps=100))
        ...     total_of(terms).backward()

    Attributes:
        method: the options.
        num_labels: K.
        pairing, mixing, objective, criterion, targets: what the parts' `setup` returned.
        class_weights: FloatTensor[K], or None for 1.
    """

    method: Method
    num_labels: int
    pairing: Pairing
    mixing: Mixing
    objective: Objective
    criterion: Criterion | None
    targets: Targets
    class_weights: Tensor | None = None

    @property
    def parts(self) -> dict[str, Part]:
        """The parts by their names, where there are any."""
        found = {name: getattr(self, name) for name in _FOLDERS}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def learned(self) -> nn.ModuleDict:
        """What is learned beside the model, by part; empty for most methods."""
        found = {name: part.learned for name, part in self.parts.items() if part.learned is not None}
        return nn.ModuleDict(found)

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[None]:
        """Put on the model what the parts need there, for the length of a block: all of a training run."""
        with ExitStack() as stack:
            for part in self.parts.values():
                stack.enter_context(part.install(model))
            yield

    def _rows_of_targets(self, device: torch.device) -> Tensor | None:
        """The rows that stand for labels; made once, and put on a device once, unless they are learned."""
        if self.targets.learned is not None:
            return self.targets.matrix(self.num_labels)
        if device not in self._fixed_rows:
            rows = self.targets.matrix(self.num_labels)
            self._fixed_rows[device] = None if rows is None else rows.to(device)
        return self._fixed_rows[device]

    @cached_property
    def _fixed_rows(self) -> dict[torch.device, Tensor | None]:
        return {}

    def rows(self, step: Step) -> Rows:
        """Which rows the forward of this step makes."""
        return "clean" if self.pairing.is_off(step) else self.objective.rows(step)

    def __call__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        labels: Tensor,
        step: Step,
        plan: MixPlan | None = None,
        sample_weight: Tensor | None = None,
    ) -> tuple[Terms, MixedOutput]:
        """Draw a plan, make the rows in one forward, and compare them with what they should be.

        Args:
            model: as for `mixed_forward`.
            inputs: the batch, without labels.
            labels: LongTensor[B] class ids, FloatTensor[B] for regression, or FloatTensor[B, K]: soft labels where
                the model's ``config.problem_type`` is ``single_label_classification``, else multi-label.
            step: where in training this is.
            plan: of the batch, if it is drawn already.
            sample_weight: FloatTensor[B], what the loss of each example is multiplied by, besides its class's weight.

        Returns:
            the terms of the loss, of which `hf_logitmix.objectives.total_of` makes one number, and the output.
        """
        rows = self.rows(step)
        if plan is not None and rows == "mixed" and len(plan.partner) < len(labels):
            raise ValueError(
                f"a plan of {len(plan.partner)} rows leaves out the rest of a batch of {len(labels)}, of which "
                f"{self.method.objective} trains on mixed rows alone: pass a row for each example."
            )
        if plan is None:
            plan = unmixed(labels) if rows == "clean" else self.pairing(inputs, labels, step)
        soft = are_soft(model, labels)
        criterion = self.criterion or criterion_of(labels, soft)
        output = mixed_forward(
            model, inputs, plan, mixing=self.mixing, rows=rows, labels=labels, step=step, criterion=criterion
        )
        if output.mixed_logits is not None:
            output = output._replace(plan=self.pairing.relabel(output.plan, labels))
        weights = weights_of(labels, self.class_weights, sample_weight)
        loss = RowLoss(criterion, self._rows_of_targets(labels.device), weights, soft)
        return {**self.objective(output, labels, loss, inputs), **self.targets.penalty()}, output
